//! The server's end of the socket.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempalias_service::Aliases;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::answer;
use super::wire::{Reply, Request};
use crate::parts::with_suffix;

/// The longest path: `sun_path` holds 108 bytes with a zero at the end, and `.new` is put behind it for a moment.
const LONGEST_PATH: usize = 103;
/// The longest line that a command sends.
const LONGEST_LINE: u64 = 64 * 1024;
/// Commands at one time.
const MOST_COMMANDS: usize = 32;
/// How long a command may be silent.
const IDLE: Duration = Duration::from_mins(1);
/// How long to wait after a failed accept: out of file descriptors, it would fail again at once.
const PAUSE: Duration = Duration::from_millis(200);

/// The socket that commands connect to. Dropping it removes its file.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Its folder is not there.
    #[error(
        "cannot make the admin socket {}: its folder does not exist; make it, owned by the server's user, or set \
         admin_socket.path to another place", .0.display()
    )]
    NoFolder(PathBuf),
    /// Something else stands in its place.
    #[error("cannot make the admin socket {}: there is a file of that name that is no socket; set \
             admin_socket.path to another place", .0.display())]
    NotASocket(PathBuf),
    /// Another server answers on it.
    #[error("another tempalias answers on the admin socket {}: stop it first, or give this one another \
             admin_socket.path", .0.display())]
    InUse(PathBuf),
    /// No socket can have such a path.
    #[error("the path of the admin socket {} is longer than {LONGEST_PATH} bytes: set admin_socket.path to a \
             shorter one", .0.display())]
    TooLong(PathBuf),
    /// The system refused.
    #[error("cannot make the admin socket {}: {why}", .0.display(), why = .1)]
    Io(PathBuf, io::Error),
}

impl AdminSocket {
    /// Makes the socket, in place of one that a dead server left. Needs a running `tokio`.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io = |error| SocketError::Io(path.into(), error);
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(SocketError::TooLong(path.into()));
        }
        match std::fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::NotASocket(path.into())),
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(SocketError::InUse(path.into()));
            }
            _ => {}
        }
        // Made under another name and moved into place: it is never there with a wider mode, nor gone for a moment.
        let new = with_suffix(path, ".new");
        if std::fs::symlink_metadata(&new).is_ok_and(|meta| meta.file_type().is_socket()) {
            std::fs::remove_file(&new).map_err(io)?;
        }
        let listener = UnixListener::bind(&new).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SocketError::NoFolder(path.into()),
            _ => io(error),
        })?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o660)).map_err(io)?;
        std::fs::rename(&new, path).map_err(io)?;
        let file = SocketFile::of(path).map_err(io)?;
        Ok(Self { listener, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Answers commands until it is dropped.
    pub async fn serve(self, aliases: Aliases) -> Infallible {
        let mut commands = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    // Beyond the bound a connection is closed at once, which the command reports.
                    Ok((stream, _)) if commands.len() < MOST_COMMANDS => {
                        commands.spawn(converse(stream, aliases.clone()));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection on the admin socket");
                        sleep(PAUSE).await;
                    }
                },
                Some(_) = commands.join_next() => {}
            }
        }
    }
}

/// One connection: a line in, a line out, until it closes, falls silent or sends a line without an end.
async fn converse(stream: UnixStream, aliases: Aliases) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        timeout(IDLE, (&mut read).take(LONGEST_LINE).read_until(b'\n', &mut line)).await??;
        if !line.ends_with(b"\n") {
            return Ok(());
        }
        let reply = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => {
                tracing::info!(command = request.name(), "admin socket");
                answer(&aliases, request).await
            }
            Err(error) => Reply::Failed {
                error: format!(
                    "the server does not understand this command; is it of another version? ({error})"
                ),
            },
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        timeout(IDLE, write.write_all(&line)).await??;
    }
}

/// Removes the socket's file when dropped, if it is still ours.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _best_effort = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}
