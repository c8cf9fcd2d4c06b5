//! What is known of damage to the file: bytes that are not as they were written.

use std::sync::{Mutex, PoisonError};

use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};

/// Whether an error says that the file is damaged. Our statements never change, so one that `SQLite` no longer
/// understands (no such column, say) tells of tables that are not as we made them.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqlInputError { .. } => true,
        error => matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)),
    }
}

/// The first damage that anybody met. It stays noted until all rows have been read without any: a look-up of another
/// row shows nothing.
#[derive(Debug, Default)]
pub(super) struct Damage(Mutex<Option<String>>);

impl Damage {
    /// Notes `error` if it tells of damage, and says it once in the log.
    pub(super) fn note(&self, error: &rusqlite::Error) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_damage(error) && noted.is_none() {
            let why = format!(
                "its file is damaged ({error}): what cannot be read is deferred, never refused. Stop the server, \
                 see that the disk is sound, and put a backup in the file's place"
            );
            tracing::error!("the store: {why}");
            *noted = Some(why);
        }
    }

    /// What was noted, in words for an operator.
    pub(super) fn noted(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All rows were read, and none is damaged.
    pub(super) fn is_over(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        tracing::info!("the store: all rows can be read again");
    }
}
