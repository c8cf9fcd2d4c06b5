//! The threads that read: each with a connection of its own that cannot write, and that no writer makes wait.

use std::sync::{Arc, Mutex, PoisonError};

use tempalias_alias::Owner;
use tokio::sync::mpsc::Receiver;

use super::damage::Damage;
use super::link::Link;
use super::schema::is_suspicious;
use super::work::{Context, FaultLog, Work, control, failed};
use crate::Clock;

/// The most calls that share one snapshot: enough to spare wake-ups under load, few enough to leave work for
/// the other reader.
const GROUP: usize = 16;

/// The queue that all readers take from.
pub(super) type Queue = Arc<Mutex<Receiver<Box<dyn Work>>>>;

/// Everything that a reader thread owns.
pub(super) struct Reader {
    pub(super) link: Link,
    pub(super) owner: Owner,
    pub(super) clock: Clock,
    pub(super) damage: Arc<Damage>,
}

impl Reader {
    /// Works until every sender is gone.
    pub(super) fn serve(mut self, queue: &Queue) {
        let mut calls = Vec::with_capacity(GROUP);
        let mut log = FaultLog::new("reads");
        loop {
            let count = {
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.blocking_recv_many(&mut calls, GROUP)
            };
            if count == 0 {
                return;
            }
            calls.retain(|work| work.is_wanted());
            let outcome = self.answer_all(&mut calls);
            log.note(outcome);
        }
    }

    /// One snapshot for all: each call was made before it is taken, so none sees less than it may expect.
    fn answer_all(&mut self, calls: &mut Vec<Box<dyn Work>>) -> rusqlite::Result<()> {
        let mut fault = None;
        match self.link.connection().and_then(|connection| {
            control(connection, "BEGIN")?;
            Ok(connection)
        }) {
            Ok(connection) => {
                let (now, owner) = ((self.clock)(), self.owner);
                let at = Context { connection, now, owner, damage: &self.damage };
                for mut work in calls.drain(..) {
                    let outcome = work.run(&at);
                    work.answer(outcome.as_ref().map_err(failed).copied());
                    if let Err(error) = outcome {
                        self.damage.note(&error);
                        fault = Some(error);
                    }
                }
                // A snapshot that cannot be let go of would keep the log from ever being folded in.
                fault = control(connection, "COMMIT").err().or(fault);
            }
            Err(error) => {
                calls.drain(..).for_each(|work| work.answer(Err(failed(&error))));
                self.damage.note(&error);
                fault = Some(error);
            }
        }
        let Some(error) = fault else { return Ok(()) };
        if is_suspicious(&error) {
            self.link.reset();
        }
        Err(error)
    }
}
