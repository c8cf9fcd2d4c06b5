//! The server's keys in their files.
//!
//! Owns the text form of a key file, its making, and the rule that a key is never made over an old store: a new
//! key would find nothing in it, and the old aliases would look unknown. Never prints a key, and never reads one
//! that others may read.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tempalias_alias::{Keys, ServerKey};
use zeroize::{Zeroize as _, Zeroizing};

/// Secret bytes of one key.
const KEY_BYTES: usize = 32;
/// What stands before the key itself; another number means another layout.
const LABEL: &str = "tempalias-server-key-1:";
/// A key file is never larger.
const LARGEST_FILE: u64 = 4096;
/// Bits of a mode that let others read or write.
const OTHERS: u32 = 0o077;

const HEADER: &str = "\
# A server key of tempalias. Without it the aliases in the store cannot be found or read: keep a copy of this file
# in a safe place, and never beside a copy of the store.
";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The configuration lists none.
    #[error("store.key_files names no file: name at least one")]
    NoneListed,
    /// A listed file is not there, and may not be made.
    #[error(
        "the server key {} is missing, and it is not the first of store.key_files, so it cannot be a new one: \
         restore the file from a copy, or remove it from store.key_files if no alias made with it is left", .path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The first key is not there, but a store is.
    #[error(
        "the server key {} is missing, but the store {} holds aliases that only its key can find: restore the key \
         from a copy. (To replace a key that you still have, make the new one with `tempalias key new {}` and keep \
         the old one listed behind it.) Nothing was changed",
        .path.display(), .store.display(), .path.display()
    )]
    StoreWithoutKey {
        /// The key file.
        path: PathBuf,
        /// The store.
        store: PathBuf,
    },
    /// There is a file where a new key should go.
    #[error("{} exists already, and a key is never overwritten", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or write it.
    #[error(
        "others may read or change the server key {} (mode {mode:04o}): run `chmod 600 {}`, and think about who \
         may have read it", .path.display(), .path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It was cut short while it was made.
    #[error(
        "the server key {} is empty: if this server never started before, remove the file and start again; \
         otherwise restore it from a copy", .path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It holds something else than a key.
    #[error(
        "{} is not a server key: it should hold one line of \"{LABEL}\" and 64 hexadecimal digits beside comments; \
         restore it from a copy", .path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Two files hold one key.
    #[error("{} and {} of store.key_files hold the same key: remove one", .first.display(), .second.display())]
    Twice {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The folder is not there.
    #[error("cannot make the server key {}: its folder does not exist; make it, owned by the server's user", .path.display())]
    NoFolder {
        /// The file that was to be made.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("cannot {action} the server key {}: {error}", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The system gave no randomness.
    #[error("cannot make a server key: the system has no random numbers ({0})")]
    Random(getrandom::Error),
}

/// What [`open_or_create`] found.
#[derive(Debug)]
pub struct Opened {
    /// All listed keys, the sealing one first.
    pub keys: Keys,
    /// Whether the first was made just now.
    pub is_new: bool,
}

/// Reads the listed keys; makes the first on the first start, which is when `store` is not there or is empty.
///
/// # Errors
/// [`KeyError`]; it says what to do.
pub fn open_or_create(files: &[PathBuf], store: Option<&Path>) -> Result<Opened, KeyError> {
    let first = files.first().ok_or(KeyError::NoneListed)?;
    let is_new = !exists(first)?;
    if is_new {
        if let Some(store) = store.filter(|store| std::fs::metadata(store).is_ok_and(|meta| meta.len() > 0)) {
            return Err(KeyError::StoreWithoutKey { path: first.clone(), store: store.to_owned() });
        }
        create(first)?;
    }
    Ok(Opened { keys: open(files)?, is_new })
}

/// Reads the listed keys; all must be there.
///
/// # Errors
/// [`KeyError`]; it says what to do.
pub fn open(files: &[PathBuf]) -> Result<Keys, KeyError> {
    let mut read: Vec<(&PathBuf, ServerKey)> = Vec::with_capacity(files.len());
    for path in files {
        let key = read_key(path)?;
        if let Some((first, _)) = read.iter().find(|(_, earlier)| earlier.id() == key.id()) {
            return Err(KeyError::Twice { first: (*first).clone(), second: path.clone() });
        }
        read.push((path, key));
    }
    let mut keys = read.into_iter().map(|(_, key)| key);
    let first = keys.next().ok_or(KeyError::NoneListed)?;
    Ok(Keys::new(first, keys.collect()))
}

/// Makes a new key. It is on the disk when this returns.
///
/// # Errors
/// [`KeyError`]; an existing file is never touched.
pub fn create(path: &Path) -> Result<(), KeyError> {
    let io = |error| KeyError::Io { action: "write", path: path.into(), error };
    let text = new_text()?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(
        |error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.into() },
            std::io::ErrorKind::NotFound => KeyError::NoFolder { path: path.into() },
            _ => io(error),
        },
    )?;
    let written =
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| sync_folder(path));
    written.map_err(|error| {
        // What is there now is no key, and would stand in the way of the next start.
        let _best_effort = std::fs::remove_file(path);
        io(error)
    })
}

/// A file's name is on the disk only once its folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn new_text() -> Result<Zeroizing<String>, KeyError> {
    let mut secret = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(secret.as_mut_slice()).map_err(KeyError::Random)?;
    // Room for all of it: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(HEADER.len() + LABEL.len() + 2 * KEY_BYTES + 1));
    text.push_str(HEADER);
    text.push_str(LABEL);
    for nibble in secret.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
    }
    text.push('\n');
    Ok(text)
}

fn exists(path: &Path) -> Result<bool, KeyError> {
    path.try_exists().map_err(|error| KeyError::Io { action: "look for", path: path.into(), error })
}

fn read_key(path: &Path) -> Result<ServerKey, KeyError> {
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => KeyError::Missing { path: path.into() },
        _ => KeyError::Io { action: "read", path: path.into(), error },
    };
    let malformed = || KeyError::Malformed { path: path.into() };
    let file = File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    let mode = meta.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(KeyError::Permissions { path: path.into(), mode });
    }
    if !meta.is_file() || meta.len() > LARGEST_FILE {
        return Err(malformed());
    }
    let mut bytes = Zeroizing::new([0; 4096]);
    let mut filled = 0;
    let mut file = file.take(LARGEST_FILE);
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).map_err(io)? {
            0 => break,
            n => filled += n,
        }
    }
    let text = bytes.get(..filled).and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(malformed)?;
    if text.trim().is_empty() {
        return Err(KeyError::Empty { path: path.into() });
    }
    parse(text).ok_or_else(malformed)
}

/// The one key of a text; comments and empty lines around it do not matter.
fn parse(text: &str) -> Option<ServerKey> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let digits = lines.next()?.strip_prefix(LABEL)?.trim();
    if lines.next().is_some() || digits.len() != 2 * KEY_BYTES {
        return None;
    }
    let mut secret = Zeroizing::new([0u8; KEY_BYTES]);
    for (byte, pair) in secret.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        for &digit in pair {
            let nibble = char::from(digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(nibble).ok()?;
        }
    }
    let mut copy = *secret;
    let key = ServerKey::new(copy);
    copy.zeroize();
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_start_makes_a_key_and_later_ones_find_it() {
        let folder = folder();
        let files = [folder.path().join("server.key")];
        let store = folder.path().join("aliases.db");
        let made = open_or_create(&files, Some(&store)).unwrap();
        assert!(made.is_new);
        assert_eq!(std::fs::metadata(&files[0]).unwrap().permissions().mode() & 0o7777, 0o600);
        std::fs::write(&store, "not empty").unwrap();
        let found = open_or_create(&files, Some(&store)).unwrap();
        assert!(!found.is_new);
        assert_eq!(found.keys.first().id(), made.keys.first().id());
        let other = open_or_create(&[folder.path().join("other.key")], None).unwrap();
        assert_ne!(other.keys.first().id(), made.keys.first().id());
    }

    #[test]
    fn no_key_is_made_over_an_old_store() {
        let folder = folder();
        let files = [folder.path().join("server.key")];
        let store = folder.path().join("aliases.db");
        std::fs::write(&store, "not empty").unwrap();
        let error = open_or_create(&files, Some(&store)).unwrap_err();
        assert!(matches!(error, KeyError::StoreWithoutKey { .. }), "{error}");
        assert!(error.to_string().contains("restore the key"), "{error}");
        assert!(!files[0].exists());
        // A first start that was cut short leaves an empty file at most.
        std::fs::write(&store, "").unwrap();
        assert!(open_or_create(&files, Some(&store)).unwrap().is_new);
    }

    #[test]
    fn only_the_first_of_several_keys_is_ever_made() {
        let folder = folder();
        let files = [folder.path().join("new.key"), folder.path().join("old.key")];
        let error = open_or_create(&files, None).unwrap_err();
        assert!(matches!(&error, KeyError::Missing { path } if *path == files[1]), "{error}");
        create(&files[1]).unwrap();
        let keys = open_or_create(&files, None).unwrap().keys;
        assert_eq!(keys.all().count(), 2);
        assert!(matches!(open(&[files[0].clone(), files[0].clone()]), Err(KeyError::Twice { .. })));
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let folder = folder();
        let path = folder.path().join("server.key");
        create(&path).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(create(&path), Err(KeyError::Exists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(matches!(create(&folder.path().join("none/server.key")), Err(KeyError::NoFolder { .. })));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_cure() {
        let folder = folder();
        let path = folder.path().join("server.key");
        create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = open(std::slice::from_ref(&path)).unwrap_err();
            assert!(matches!(error, KeyError::Permissions { .. }), "{mode:o}: {error}");
            assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        open(&[path]).unwrap();
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let folder = folder();
        let path = folder.path().join("server.key");
        let digits = "0123456789abcdef".repeat(4);
        let good = format!("\n# note\n\n{LABEL} {digits}\r\n");
        write(&path, &good, 0o600);
        open(std::slice::from_ref(&path)).unwrap();
        for bad in [
            digits.clone(),
            format!("{LABEL}{}", &digits[1..]),
            format!("{LABEL}{digits}0"),
            format!("{LABEL}{}g", &digits[1..]),
            format!("{LABEL}{digits}\n{LABEL}{digits}"),
            format!("tempalias-server-key-2:{digits}"),
            format!("{good}{}", "#".repeat(5000)),
        ] {
            write(&path, &bad, 0o600);
            let error = open(std::slice::from_ref(&path)).unwrap_err();
            assert!(matches!(error, KeyError::Malformed { .. }), "{error}");
            assert!(!error.to_string().contains("0123456789"), "the message shows the key: {error}");
        }
        write(&path, "\n", 0o600);
        assert!(matches!(open(std::slice::from_ref(&path)), Err(KeyError::Empty { .. })));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(open(&[path]), Err(KeyError::Malformed { .. })));
    }

    #[test]
    fn keys_are_not_shown() {
        let folder = folder();
        let path = folder.path().join("server.key");
        let opened = open_or_create(std::slice::from_ref(&path), None).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let digits = text.lines().last().unwrap().strip_prefix(LABEL).unwrap();
        assert!(!format!("{opened:?}").contains(&digits[..16]));
    }
}
