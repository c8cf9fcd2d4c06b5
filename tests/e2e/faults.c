/* A disk and a clock that fail on command, for tests/e2e: preloaded into the real program. What fails is written into
 * a small file by the test (faults.py) while the program runs. Only files whose path begins with FAULTS_FILES are
 * concerned, and of SQLite's not its shared memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FILES 8192

/* faults.py writes these in this order. */
struct control {
    int32_t read, write, sync; /* the error that such a call gets; 0: none */
    int32_t stall;             /* writes and syncs wait while this is not 0 */
    int64_t clock;             /* seconds that the calendar is ahead */
    int32_t stalled;           /* ours: how many calls wait now */
};

static volatile struct control *control;
static const char *files;
static char ours[FILES];

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_CONTROL");
    int fd;
    files = getenv("FAULTS_FILES");
    if (!path || !files) return;
    fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) abort();
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (control == MAP_FAILED) abort();
}

static int opened(int at, const char *path, int flags, mode_t mode) {
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && fd < FILES)
        ours[fd] = control && !strncmp(path, files, strlen(files)) && !strstr(path, "-shm") && !strstr(path, ".lock");
    return fd;
}
#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode); }

/* Whether this call fails now; what it asks for has then been put into errno. */
static int fails(int fd, int32_t volatile *error) {
    if (fd < 0 || fd >= FILES || !ours[fd] || !*error) return 0;
    errno = *error;
    return 1;
}

static void wait_on(int fd) {
    struct timespec moment = {0, 5000000};
    if (fd < 0 || fd >= FILES || !ours[fd] || !control->stall) return;
    __atomic_add_fetch(&control->stalled, 1, __ATOMIC_SEQ_CST);
    while (control->stall) nanosleep(&moment, NULL);
    __atomic_sub_fetch(&control->stalled, 1, __ATOMIC_SEQ_CST);
}

static ssize_t read_at(int fd, void *octets, size_t count, off_t at) {
    if (control && fails(fd, &control->read)) return -1;
    return syscall(SYS_pread64, fd, octets, count, at);
}
ssize_t pread(int fd, void *octets, size_t count, off_t at) { return read_at(fd, octets, count, at); }
ssize_t pread64(int fd, void *octets, size_t count, off_t at) { return read_at(fd, octets, count, at); }

static ssize_t write_at(int fd, const void *octets, size_t count, off_t at) {
    if (control) wait_on(fd);
    if (control && fails(fd, &control->write)) return -1;
    return syscall(SYS_pwrite64, fd, octets, count, at);
}
ssize_t pwrite(int fd, const void *octets, size_t count, off_t at) { return write_at(fd, octets, count, at); }
ssize_t pwrite64(int fd, const void *octets, size_t count, off_t at) { return write_at(fd, octets, count, at); }

static int synced(int fd, long call) {
    if (control) wait_on(fd);
    if (control && fails(fd, &control->sync)) return -1;
    return (int)syscall(call, fd);
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = (int)syscall(SYS_clock_gettime, clock, now);
    if (!done && control && clock == CLOCK_REALTIME) now->tv_sec += control->clock;
    return done;
}
