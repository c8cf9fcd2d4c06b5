//! When an alias ends: what was asked for, what the operator allows, what was granted.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::UnixTime;

const DAY: Duration = Duration::from_hours(24);

/// What the operator allows at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Longest life of an alias in days, from its making or its last extension.
    pub max_days: u32,
    /// Most messages that one alias may pass on.
    pub max_usage: u32,
}

/// What somebody asked for. Everything may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Days of life, counted from `valid_from` or, without it, from now.
    pub days: Option<NonZeroU32>,
    /// Messages.
    pub max_usage: Option<NonZeroU32>,
    /// Nothing is passed on before this.
    pub valid_from: Option<UnixTime>,
    /// Nothing is passed on from this on.
    pub valid_until: Option<UnixTime>,
}

/// The limits of one alias. Whichever is met first ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Not alive before this.
    pub valid_from: Option<UnixTime>,
    /// Not alive from this on.
    pub valid_until: Option<UnixTime>,
    /// The most messages; none: uncounted.
    pub max_usage: Option<NonZeroU32>,
}

/// What an owner wants changed of an alias's limits, granted already. What is not named stays as it is then, so that
/// two changes at the same time both hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitChange {
    /// The new end.
    pub valid_until: Option<UnixTime>,
    /// The new total of messages.
    pub max_usage: Option<NonZeroU32>,
}

impl LimitChange {
    /// What is granted of a wish: `days` counts from now, `max_usage` is the new total, both at most the caps.
    pub fn grant(days: Option<NonZeroU32>, max_usage: Option<NonZeroU32>, caps: Caps, now: UnixTime) -> Self {
        Self {
            valid_until: days.map(|days| now.plus(DAY * days.get().min(caps.max_days))),
            max_usage: max_usage.map(|n| n.min(cap(caps.max_usage))),
        }
    }
}

/// Why limits cannot be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// Neither days, nor a date, nor a number of messages.
    #[error("give at least one limit: days, max-usage or valid-until")]
    NoLimit,
    /// It would end before it begins.
    #[error("valid-until must be after valid-from")]
    EndsBeforeStart,
    /// It would be over already.
    #[error("valid-until must be in the future")]
    EndsInThePast,
    /// The start lies beyond what the operator allows for the end.
    #[error("valid-from is later than this server keeps an alias")]
    StartsTooLate,
}

impl Limits {
    /// What of `wanted` is granted: every number lowered to the cap, and no alias without an end by date.
    ///
    /// An alias limited by messages alone ends with the longest life that the operator allows, so that a server
    /// key can be retired once that time is over (docs/decisions/002).
    ///
    /// # Errors
    /// When nothing was asked for, or the dates contradict each other or the clock.
    pub fn grant(wanted: &Wanted, caps: Caps, now: UnixTime) -> Result<Self, LimitsError> {
        if wanted.days.is_none() && wanted.max_usage.is_none() && wanted.valid_until.is_none() {
            return Err(LimitsError::NoLimit);
        }
        let latest = now.plus(DAY * caps.max_days);
        let valid_from = wanted.valid_from.filter(|&from| from > now);
        let start = valid_from.unwrap_or(now);
        let by_days = wanted.days.map(|days| start.plus(DAY * days.get().min(caps.max_days)));
        let until = [by_days, wanted.valid_until].into_iter().flatten().fold(latest, UnixTime::min);
        if start >= latest {
            return Err(LimitsError::StartsTooLate);
        }
        if until <= now {
            return Err(LimitsError::EndsInThePast);
        }
        if until <= start {
            return Err(LimitsError::EndsBeforeStart);
        }
        Ok(Self {
            valid_from,
            valid_until: Some(until),
            max_usage: wanted.max_usage.map(|n| n.min(cap(caps.max_usage))),
        })
    }

    /// These limits with what `change` names in place of the old.
    #[must_use]
    pub fn changed(self, change: LimitChange) -> Self {
        Self {
            valid_from: self.valid_from,
            valid_until: change.valid_until.or(self.valid_until),
            max_usage: change.max_usage.or(self.max_usage),
        }
    }

    /// Whether `now` lies inside the dates.
    pub fn is_open(&self, now: UnixTime) -> bool {
        self.valid_from.is_none_or(|from| now >= from) && self.valid_until.is_none_or(|until| now < until)
    }
}

/// A cap of zero in a config means one: an alias without a use is no alias.
fn cap(max_usage: u32) -> NonZeroU32 {
    NonZeroU32::new(max_usage).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { max_days: 60, max_usage: 100 };
    const NOW: UnixTime = UnixTime::from_secs(1_000_000);

    fn n(value: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(value)
    }

    #[test]
    fn numbers_above_the_caps_are_lowered() {
        let wanted = Wanted { days: n(1000), max_usage: n(1000), ..Wanted::default() };
        let limits = Limits::grant(&wanted, CAPS, NOW).unwrap();
        assert_eq!(limits.valid_until, Some(NOW.plus(60 * DAY)));
        assert_eq!(limits.max_usage, n(100));
    }

    #[test]
    fn a_count_alone_still_ends_with_the_longest_life() {
        let limits = Limits::grant(&Wanted { max_usage: n(5), ..Wanted::default() }, CAPS, NOW).unwrap();
        assert_eq!(limits.valid_until, Some(NOW.plus(60 * DAY)));
    }

    #[test]
    fn the_earlier_of_two_ends_counts() {
        let soon = NOW.plus(DAY);
        let wanted = Wanted { days: n(3), valid_until: Some(soon), ..Wanted::default() };
        assert_eq!(Limits::grant(&wanted, CAPS, NOW).unwrap().valid_until, Some(soon));
    }

    #[test]
    fn contradictions_are_told_apart() {
        let grant = |wanted: Wanted| Limits::grant(&wanted, CAPS, NOW).unwrap_err();
        assert_eq!(grant(Wanted::default()), LimitsError::NoLimit);
        let past = Wanted { valid_until: Some(UnixTime::from_secs(1)), ..Wanted::default() };
        assert_eq!(grant(past), LimitsError::EndsInThePast);
        let backwards = Wanted {
            valid_from: Some(NOW.plus(2 * DAY)),
            valid_until: Some(NOW.plus(DAY)),
            ..Wanted::default()
        };
        assert_eq!(grant(backwards), LimitsError::EndsBeforeStart);
        let late = Wanted { days: n(1), valid_from: Some(NOW.plus(61 * DAY)), ..Wanted::default() };
        assert_eq!(grant(late), LimitsError::StartsTooLate);
    }

    #[test]
    fn open_is_from_the_first_moment_to_before_the_last() {
        let limits = Limits { valid_from: Some(NOW), valid_until: Some(NOW.plus(DAY)), max_usage: None };
        assert!(!limits.is_open(UnixTime::from_millis(NOW.millis() - 1)));
        assert!(limits.is_open(NOW));
        assert!(!limits.is_open(NOW.plus(DAY)));
    }
}
