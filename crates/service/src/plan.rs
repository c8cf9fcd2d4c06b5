//! From what somebody asked for to what is granted, with every fault at once.

use tempalias_address::{Domain, Mailbox, MailboxError};
use tempalias_alias::{Limits, LimitsError, UnixTime, Wanted};

use crate::Policy;

/// What somebody asked for, as far as it could be read.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// The real address.
    pub target: Option<Mailbox>,
    /// The domain of ours to make the alias under; none: the default.
    pub domain: Option<Domain>,
    /// Days, messages, dates.
    pub wanted: Wanted,
    /// Fields that were given but could not be read. They are reported together with what is found wrong here.
    pub unread: Vec<FieldError>,
}

/// What a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The real address.
    Target,
    /// The alias's domain.
    Domain,
    /// Days of life.
    Days,
    /// Number of messages.
    MaxUsage,
    /// The first moment.
    ValidFrom,
    /// The last moment.
    ValidUntil,
    /// Whether it is paused.
    Paused,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is needed.
    Missing,
    /// It must be a text.
    NotText,
    /// It must be an e-mail address.
    NotAnAddress(MailboxError),
    /// It must be a whole number, not below zero.
    NotANumber,
    /// It must be a date.
    NotADate,
    /// It must be true or false.
    NotABoolean,
    /// It stays as it was made.
    Unchangeable,
    /// The target is an address of this instance: an alias of an alias.
    TargetIsOurs,
    /// The operator allows no aliases for this target.
    TargetNotAllowed,
    /// No domain of this instance.
    UnknownDomain,
    /// The limits contradict each other or the clock.
    Limits(LimitsError),
}

/// One fault of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub field: Field,
    /// What.
    pub fault: Fault,
}

impl FieldError {
    /// Says that `field` has `fault`.
    pub fn new(field: Field, fault: Fault) -> Self {
        Self { field, fault }
    }
}

/// What will be made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: Mailbox,
    pub(crate) domain: Domain,
    pub(crate) limits: Limits,
    /// Days granted, if days were asked for.
    pub(crate) days: Option<u32>,
}

impl Policy {
    /// What of `draft` is granted.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of [`Field`].
    pub(crate) fn plan(&self, draft: &Draft, now: UnixTime) -> Result<Plan, Vec<FieldError>> {
        let mut faults = draft.unread.clone();
        let is_read = |field| !draft.unread.iter().any(|fault| fault.field == field);
        let target = match self.check_target(draft.target.as_ref()) {
            Ok(target) => Some(target.clone()),
            Err(fault) => {
                faults.extend(is_read(Field::Target).then_some(FieldError::new(Field::Target, fault)));
                None
            }
        };
        if draft.domain.as_ref().is_some_and(|domain| !self.is_ours(domain)) {
            faults.push(FieldError::new(Field::Domain, Fault::UnknownDomain));
        }
        // A limit that could not be read may have been the only one: what is said of the others would mislead.
        let limits_are_read =
            [Field::Days, Field::MaxUsage, Field::ValidFrom, Field::ValidUntil].into_iter().all(is_read);
        let limits = Limits::grant(&draft.wanted, self.caps, now);
        if let (Err(error), true) = (limits, limits_are_read) {
            faults.push(FieldError::new(field_of(error), Fault::Limits(error)));
        }
        match (target, limits) {
            (Some(target), Ok(limits)) if faults.is_empty() => Ok(Plan {
                target,
                domain: draft.domain.clone().unwrap_or_else(|| self.default_domain.clone()),
                limits,
                days: self.granted_days(&draft.wanted),
            }),
            _ => {
                faults.sort_by_key(|fault| fault.field);
                Err(faults)
            }
        }
    }

    fn check_target<'a>(&self, target: Option<&'a Mailbox>) -> Result<&'a Mailbox, Fault> {
        let target = target.ok_or(Fault::Missing)?;
        if self.is_ours(target.domain()) {
            Err(Fault::TargetIsOurs)
        } else if self.allows(target) {
            Ok(target)
        } else {
            Err(Fault::TargetNotAllowed)
        }
    }

    fn granted_days(&self, wanted: &Wanted) -> Option<u32> {
        wanted.days.map(|days| days.get().min(self.caps.max_days))
    }
}

fn field_of(error: LimitsError) -> Field {
    match error {
        LimitsError::NoLimit => Field::Days,
        LimitsError::EndsBeforeStart | LimitsError::EndsInThePast => Field::ValidUntil,
        LimitsError::StartsTooLate => Field::ValidFrom,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use tempalias_alias::{Caps, Rate};

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_000_000);

    fn policy(allow: &[&str]) -> Policy {
        Policy {
            default_domain: "alias.example".parse().unwrap(),
            more_domains: vec!["other.example".parse().unwrap()],
            caps: Caps { max_days: 60, max_usage: 100 },
            allow_domains: allow.iter().map(|domain| domain.parse().unwrap()).collect(),
            public_url: "https://alias.example".parse().unwrap(),
            create_rate: Rate { burst: 5, every: Duration::from_secs(30) },
        }
    }

    fn draft(target: &str, days: u32) -> Draft {
        let wanted = Wanted { days: NonZeroU32::new(days), ..Wanted::default() };
        Draft { target: target.parse().ok(), wanted, ..Draft::default() }
    }

    fn faults(policy: &Policy, draft: &Draft) -> Vec<(Field, Fault)> {
        let faults = policy.plan(draft, NOW).unwrap_err();
        faults.into_iter().map(|fault| (fault.field, fault.fault)).collect()
    }

    #[test]
    fn days_are_lowered_and_told() {
        let plan = policy(&[]).plan(&draft("t@example.com", 1000), NOW).unwrap();
        assert_eq!(plan.days, Some(60));
        assert_eq!(plan.domain.as_str(), "alias.example");
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let draft = Draft { domain: Some("elsewhere.example".parse().unwrap()), ..Draft::default() };
        assert_eq!(
            faults(&policy(&[]), &draft),
            [
                (Field::Target, Fault::Missing),
                (Field::Domain, Fault::UnknownDomain),
                (Field::Days, Fault::Limits(LimitsError::NoLimit)),
            ]
        );
    }

    #[test]
    fn an_unread_field_is_told_once_and_as_such() {
        let mut draft = draft("t@example.com", 0);
        draft.target = None;
        draft.unread = vec![
            FieldError::new(Field::MaxUsage, Fault::NotANumber),
            FieldError::new(Field::Target, Fault::NotText),
        ];
        assert_eq!(
            faults(&policy(&[]), &draft),
            [(Field::Target, Fault::NotText), (Field::MaxUsage, Fault::NotANumber)]
        );
    }

    #[test]
    fn targets_of_ours_and_targets_not_allowed_are_refused() {
        for ours in ["x@alias.example", "x@OTHER.example"] {
            assert_eq!(faults(&policy(&[]), &draft(ours, 1)), [(Field::Target, Fault::TargetIsOurs)]);
        }
        let closed = policy(&["corp.example"]);
        assert!(closed.plan(&draft("t@corp.example", 1), NOW).is_ok());
        for elsewhere in ["t@example.com", "t@sub.corp.example"] {
            assert_eq!(faults(&closed, &draft(elsewhere, 1)), [(Field::Target, Fault::TargetNotAllowed)]);
        }
    }
}
