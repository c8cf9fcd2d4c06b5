/* Records what a program does to the files of one folder, in the order in which it happened, for the power-loss test
 * (crates/store/tests/power_loss). Preloaded; RECORD_FOLDER is watched, RECORD_TRACE is written.
 *
 * One record: kind (1 octet), length of the name (1), name, offset or size (8, little endian), length (4), octets.
 *   C the file was made        W octets were written          T it was cut to a size      U its name was removed
 *   S a sync begins            F that sync is done            X that sync failed
 * The folder itself has the name ".". A write is recorded when it has returned, a sync at both ends: what stands
 * before an S, and only that, is on the disk once its F is there.
 *
 * With RECORD_FAIL=n three syncs in a row of every n of the database and its log fail, as they do when the disk refuses
 * the pages: the kernel then calls them clean, and they may never reach the disk. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILES 4096
#define NAME 64

static char names[FILES][NAME]; /* of open files, by descriptor; "" for those of others */
static const char *folder;
static int trace = -1, fail_every;
static unsigned syncs;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RECORD_TRACE");
    folder = getenv("RECORD_FOLDER");
    if (!folder || !path) return;
    fail_every = getenv("RECORD_FAIL") ? atoi(getenv("RECORD_FAIL")) : 0;
    trace = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) abort();
}

/* The name inside the folder, "." for itself, NULL for anything else. SQLite's shared memory is made anew at each
 * start and the lock file says nothing: neither counts. */
static const char *inside(const char *path) {
    size_t length;
    if (trace < 0 || !path) return NULL;
    length = strlen(folder);
    if (strncmp(path, folder, length)) return NULL;
    if (path[length] == 0) return ".";
    if (path[length] != '/' || strstr(path, "-shm") || strstr(path, ".lock")) return NULL;
    return strlen(path + length + 1) < NAME ? path + length + 1 : NULL;
}

static void all(const void *octets, size_t count) {
    const char *next = octets;
    while (count) {
        long done = syscall(SYS_write, trace, next, count);
        if (done <= 0) abort();
        next += done;
        count -= (size_t)done;
    }
}

static void record(char kind, const char *name, uint64_t at, const void *octets, uint32_t count) {
    char head[2 + NAME + 12];
    size_t length = strlen(name);
    head[0] = kind;
    head[1] = (char)length;
    memcpy(head + 2, name, length);
    memcpy(head + 2 + length, &at, 8);
    memcpy(head + 10 + length, &count, 4);
    all(head, 14 + length);
    if (count) all(octets, count);
}

static void say(char kind, const char *name, uint64_t at, const void *octets, size_t count) {
    int kept = errno;
    pthread_mutex_lock(&lock);
    record(kind, name, at, octets, (uint32_t)count);
    pthread_mutex_unlock(&lock);
    errno = kept;
}

static const char *of(int fd) { return fd >= 0 && fd < FILES && names[fd][0] ? names[fd] : NULL; }

static int opened(const char *path, int flags, mode_t mode, int at) {
    const char *name = inside(path);
    struct stat had;
    int is_new = name && (flags & O_CREAT) && stat(path, &had);
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && fd < FILES) strcpy(names[fd], name ? name : "");
    if (fd >= 0 && is_new) say('C', name, 0, NULL, 0);
    else if (fd >= 0 && name && (flags & O_TRUNC)) say('T', name, 0, NULL, 0);
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE(flags) return opened(path, flags, mode, AT_FDCWD); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(path, flags | O_LARGEFILE, mode, AT_FDCWD); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return opened(path, flags, mode, at); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return opened(path, flags, mode, at); }

int close(int fd) {
    if (fd >= 0 && fd < FILES) names[fd][0] = 0;
    return (int)syscall(SYS_close, fd);
}

static ssize_t placed(int fd, const void *octets, size_t count, off_t at) {
    const char *name = of(fd);
    ssize_t done = syscall(SYS_pwrite64, fd, octets, count, at);
    if (name && done > 0) say('W', name, (uint64_t)at, octets, (size_t)done);
    return done;
}
ssize_t pwrite(int fd, const void *octets, size_t count, off_t at) { return placed(fd, octets, count, at); }
ssize_t pwrite64(int fd, const void *octets, size_t count, off_t at) { return placed(fd, octets, count, at); }

ssize_t write(int fd, const void *octets, size_t count) {
    const char *name = of(fd);
    ssize_t done;
    if (!name) return syscall(SYS_write, fd, octets, count);
    /* Under the lock: several threads append to the list of what was acknowledged. */
    pthread_mutex_lock(&lock);
    done = syscall(SYS_write, fd, octets, count);
    if (done > 0) record('W', name, (uint64_t)(lseek(fd, 0, SEEK_CUR) - done), octets, (uint32_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

static int cut(int fd, off_t size) {
    int done = (int)syscall(SYS_ftruncate, fd, size);
    if (of(fd) && !done) say('T', of(fd), (uint64_t)size, NULL, 0);
    return done;
}
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off_t size) { return cut(fd, size); }

static int synced(int fd, long call) {
    const char *name = of(fd);
    int done;
    if (!name) return (int)syscall(call, fd);
    say('S', name, 0, NULL, 0);
    if (fail_every && strcmp(name, ".") && __atomic_add_fetch(&syncs, 1, __ATOMIC_SEQ_CST) % (unsigned)fail_every < 3) {
        say('X', name, 0, NULL, 0);
        errno = EIO;
        return -1;
    }
    done = (int)syscall(call, fd);
    say(done ? 'X' : 'F', name, 0, NULL, 0);
    return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int unlink(const char *path) {
    int done = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (!done && inside(path)) say('U', inside(path), 0, NULL, 0);
    return done;
}

/* Not modelled: better to stop than to record half of it. */
int rename(const char *from, const char *to) {
    if (inside(from) || inside(to)) abort();
    return (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
}
ssize_t pwritev(int fd, const void *parts, int count, off_t at) {
    if (of(fd)) abort();
    return syscall(SYS_pwritev, fd, parts, count, at, 0L);
}
ssize_t writev(int fd, const void *parts, int count) {
    if (of(fd)) abort();
    return syscall(SYS_writev, fd, parts, count);
}
