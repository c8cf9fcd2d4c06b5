//! The command's end of the socket.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::wire::{Reply, Request};

/// How long to wait for an answer. The server answers within seconds, or says why not.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the running server.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

/// Why the server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No server runs, or not here.
    #[error("nothing answers on the admin socket {}", .0.display())]
    NotRunning(PathBuf),
    /// One runs, and this user may not ask it.
    #[error(
        "you may not use the admin socket {}: run the command as root or as the server's user, or join the group \
         that owns the socket", .0.display()
    )]
    Forbidden(PathBuf),
    /// It was asked, and no answer came.
    #[error("the server on {} did not answer ({why}): what was asked may have been done", .0.display(), why = .1)]
    NoAnswer(PathBuf, io::Error),
    /// Something else answered, or another version.
    #[error("the answer on {} cannot be read ({why}): is the running server of another version?", .0.display(), why = .1)]
    Garbled(PathBuf, serde_json::Error),
}

impl Connection {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`CallError::NotRunning`] or [`CallError::Forbidden`].
    pub fn open(path: &Path) -> Result<Self, CallError> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => CallError::Forbidden(path.into()),
            _ => CallError::NotRunning(path.into()),
        })?;
        let limits = stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)));
        limits.map_err(|error| CallError::NoAnswer(path.into(), error))?;
        Ok(Self { stream: BufReader::new(stream), path: path.into() })
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`CallError`] when there is none.
    pub fn call(&mut self, request: &Request) -> Result<Reply, CallError> {
        let garbled = |error| CallError::Garbled(self.path.clone(), error);
        let silent = |error| CallError::NoAnswer(self.path.clone(), error);
        let mut line = serde_json::to_vec(request).map_err(garbled)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(silent)?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer).map_err(silent)? == 0 {
            return Err(silent(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_str(&answer).map_err(garbled)
    }
}
