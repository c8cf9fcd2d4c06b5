//! Opening a store: the lock, the file and its mode, the format, the server keys. All that an operator can get
//! wrong is told here, in words that say what to do.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, params};
use tempalias_alias::{KeyId, Owner, UnixTime};

use crate::OpenError;

use super::Options;
use super::damage::Damage;
use super::link::{Link, Watched, begin_anew};
use super::offline::unfinished;
use super::rows::{self, to_sql};
use super::schema::{APPLICATION_ID, FORMAT, Role, SCHEMA, connect};
use super::work::Context;

/// Nobody but us: what is sealed stays sealed, but nobody needs to count our aliases.
const MODE: u32 = 0o600;
/// How large a database is read in whole at the start: a quarter of a second or so.
const LOOK_UP_TO: u64 = 64 << 20;

/// A store that is ours, checked and ready to be served.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: Arc<Watched>,
    pub(super) writer: Link,
    pub(super) readers: Vec<Link>,
    pub(super) lock: File,
    pub(super) damage: Arc<Damage>,
}

/// Opens a store that is whole.
pub(super) fn open(options: &Options, readers: usize) -> Result<Opened, OpenError> {
    let mut opened = open_half(options, readers)?;
    let path = opened.file.path().to_owned();
    match opened.writer.connection().and_then(unfinished) {
        Ok(None) => Ok(opened),
        Ok(Some(mark)) => Err(OpenError::Copying { path, from: mark.from.shown }),
        Err(error) => Err(OpenError::Database { path, why: error.to_string() }),
    }
}

/// Opens a store that may be half a copy. Takes the lock first: nothing of the database is touched while another
/// daemon has it.
pub(super) fn open_half(options: &Options, readers: usize) -> Result<Opened, OpenError> {
    let path = resolve(&options.path)?;
    let lock = lock(&path)?;
    let failed = |why| OpenError::File { path: path.clone(), why };
    secure(&path).map_err(failed)?;
    let file = Arc::new(Watched::new(&path).map_err(failed)?);
    let damage = Arc::new(Damage::default());
    let connection = open_database(&path, &options.keys, (options.clock)(), &damage)?;
    let writer = Link::with(Arc::clone(&file), Role::Writer, connection);
    let readers = (0..readers).map(|_| Link::new(Arc::clone(&file), Role::Reader)).collect();
    Ok(Opened { file, writer, readers, lock, damage })
}

/// The path with all links resolved: two names of one file must meet at one lock.
fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    if let Ok(resolved) = path.canonicalize() {
        return Ok(resolved);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let resolved =
        folder.canonicalize().map_err(|why| OpenError::Folder { folder: folder.to_owned(), why })?;
    let name = path.file_name().ok_or_else(|| OpenError::Foreign { path: path.to_owned() })?;
    Ok(resolved.join(name))
}

/// Holds `….lock` for as long as the file stays open. It is never deleted: whoever deletes a lock file lets two
/// in.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |why| OpenError::File { path: name.clone(), why };
    let mut open = OpenOptions::new();
    let open = open.read(true).write(true).create(true).truncate(false).mode(MODE);
    let mut file = open.open(&name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = io::read_to_string(&mut file).ok().and_then(|pid| pid.trim().parse().ok());
            return Err(OpenError::InUse { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(why)) => return Err(failed(why)),
    }
    // For the error of the next one that tries; nothing depends on it.
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

/// Makes the file, or narrows its mode. `SQLite` gives the log the same mode.
fn secure(path: &Path) -> io::Result<()> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode != MODE {
        tracing::warn!(path = %path.display(), "the store was open to others (mode {mode:o}); now it is not");
        file.set_permissions(PermissionsExt::from_mode(MODE))?;
    }
    // SQLite does this for its log, but the name of a file that we made is ours to bring to the disk.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn open_database(
    path: &Path,
    keys: &[KeyId],
    now: UnixTime,
    damage: &Damage,
) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::Foreign { path: path.to_owned() },
        _ => OpenError::Database { path: path.to_owned(), why: error.to_string() },
    };
    let connection = connect(path, Role::Writer).map_err(failed)?;
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0)).map_err(failed);
    let (application, format, tables) =
        (number("application_id")?, number("user_version")?, number("schema_version")?);
    if application != APPLICATION_ID && (application, format, tables) != (0, 0, 0) {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    if application == APPLICATION_ID && format < FORMAT && format != 0 {
        let why = format!("it has store format {format}, from before the first release");
        return Err(OpenError::Database { path: path.to_owned(), why });
    }
    if format > FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found: format, known: FORMAT });
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        let why = format!("its file system allows no write-ahead log (mode {mode})");
        return Err(OpenError::Database { path: path.to_owned(), why });
    }
    begin_anew(&connection, path).map_err(failed)?;
    // Nobody claims while it is opened: any owner will do.
    let at = Context { connection: &connection, now, owner: Owner { node: 0, boot: 0 }, damage };
    if format == 0 {
        make(&at).map_err(failed)?;
    } else {
        look(&at, path);
    }
    check_keys(&connection, path, keys, failed)?;
    Ok(connection)
}

/// Lays out an empty file, in one step: a crash leaves an empty file or a store.
fn make(at: &Context<'_>) -> rusqlite::Result<()> {
    let transaction = at.connection.unchecked_transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute("INSERT INTO meta (name, value) VALUES ('made', ?1)", params![to_sql(at.now)])?;
    rows::begin_ring(at)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// Looks for damage, unless that would make the start wait too long. Damage is no reason not to start: the rows that
/// it has not hit are served, and `/readyz` says what is to be done.
fn look(at: &Context<'_>, path: &Path) {
    if path.metadata().is_ok_and(|file| file.len() > LOOK_UP_TO) {
        return;
    }
    if let Err(error) = read_all(at) {
        at.damage.note(&error);
    }
}

fn read_all(at: &Context<'_>) -> rusqlite::Result<()> {
    let verdict: String = at.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(rows::damaged(&verdict.replace('\n', ", ")));
    }
    let mut after = None;
    while let Some(last) = rows::page(at, after, 1000)?.last() {
        after = Some(last.key);
    }
    Ok(())
}

fn check_keys(
    connection: &Connection,
    path: &Path,
    keys: &[KeyId],
    failed: impl Fn(rusqlite::Error) -> OpenError,
) -> Result<(), OpenError> {
    let mut statement =
        connection.prepare("SELECT id, row_count FROM server_key ORDER BY first_used").map_err(&failed)?;
    let used = statement
        .query_map([], |row| Ok((KeyId(row.get(0)?), row.get::<_, i64>(1)?)))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .map_err(&failed)?;
    match used.into_iter().find(|(id, _)| !keys.contains(id)) {
        None => Ok(()),
        Some((missing, rows)) => Err(OpenError::MissingKey {
            path: path.to_owned(),
            missing,
            rows: u64::try_from(rows).unwrap_or_default(),
            listed: keys.to_vec(),
        }),
    }
}
