//! What the log is told of refusals: each kind, but not with every call that meets it.

use std::time::{Duration, Instant};

use crate::StoreError;

/// Between two log lines about the same refusal.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);
/// Kinds of refusal told of within that time. There are fewer, unless their words differ each time: the log is not
/// filled then either.
const MOST_KINDS: usize = 16;

/// What the log was told lately, and when.
#[derive(Debug, Default)]
pub(super) struct Complaints(Vec<(StoreError, Instant)>);

impl Complaints {
    /// Tells the log what the server refuses, if it was not told lately.
    pub(super) fn tell(&mut self, error: &StoreError) {
        if self.is_due(error, Instant::now()) {
            tracing::error!(%error, "the store refuses: mail is deferred");
        }
    }

    /// Whether this is to be told now; notes that it was.
    fn is_due(&mut self, error: &StoreError, now: Instant) -> bool {
        self.0.retain(|(_, told)| now.saturating_duration_since(*told) < COMPLAIN_EVERY);
        let is_due = self.0.len() < MOST_KINDS && self.0.iter().all(|(known, _)| known != error);
        if is_due {
            self.0.push((error.clone(), now));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(number: usize) -> StoreError {
        StoreError::Failed(format!("refusal {number}"))
    }

    /// How many lines there are for so many rounds, ten a second, of calls that meet these refusals in turn.
    fn told(complaints: &mut Complaints, begin: Instant, rounds: u32, refusals: &[StoreError]) -> usize {
        let at = (0..rounds).map(|round| begin + Duration::from_millis(100) * round);
        at.map(|now| refusals.iter().filter(|error| complaints.is_due(error, now)).count()).sum()
    }

    #[test]
    fn refusals_in_turn_are_told_once_a_minute_each() {
        let (mut complaints, begin) = (Complaints::default(), Instant::now());
        let all = [refusal(1), refusal(2), StoreError::Timeout];
        assert_eq!(told(&mut complaints, begin, 1, &all), 3);
        assert_eq!(told(&mut complaints, begin, 600, &all), 0);
        assert_eq!(told(&mut complaints, begin + COMPLAIN_EVERY, 600, &all), 3);
    }

    #[test]
    fn words_that_always_differ_fill_neither_log_nor_memory() {
        let (mut complaints, begin) = (Complaints::default(), Instant::now());
        let all: Vec<_> = (0..1000).map(refusal).collect();
        assert_eq!(told(&mut complaints, begin, 100, &all), MOST_KINDS);
        assert_eq!(complaints.0.len(), MOST_KINDS);
        assert!(complaints.is_due(&refusal(2000), begin + COMPLAIN_EVERY), "what comes later is told later");
    }
}
