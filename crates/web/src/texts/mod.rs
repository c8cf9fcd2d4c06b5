//! Every text of the pages, in one place, so that another language is another value of [`Texts`].
//!
//! Failures have their words in `problem`.

use std::time::Duration;

use tempalias_service::{Field, Standing, View};

mod english;

pub(crate) use english::ENGLISH;

/// The texts of one language.
#[derive(Debug)]
pub(crate) struct Texts {
    pub(crate) lang: &'static str,
    pub(crate) skip: &'static str,
    pub(crate) tagline: &'static str,
    pub(crate) footer: &'static str,
    pub(crate) form_title: &'static str,
    pub(crate) form_intro: &'static str,
    pub(crate) target: &'static str,
    pub(crate) target_hint: &'static str,
    pub(crate) valid_for: &'static str,
    pub(crate) valid_hint: &'static str,
    pub(crate) days: &'static str,
    pub(crate) or: &'static str,
    pub(crate) messages: &'static str,
    pub(crate) days_label: &'static str,
    pub(crate) messages_label: &'static str,
    pub(crate) domain: &'static str,
    pub(crate) create: &'static str,
    pub(crate) errors_title: &'static str,
    pub(crate) how_title: &'static str,
    pub(crate) how: [(&'static str, &'static str); 3],
    pub(crate) address_label: &'static str,
    pub(crate) copy: &'static str,
    pub(crate) copied: &'static str,
    pub(crate) goes_to: &'static str,
    pub(crate) left: &'static str,
    pub(crate) starts: &'static str,
    pub(crate) ends: &'static str,
    pub(crate) ended: &'static str,
    pub(crate) no_end: &'static str,
    pub(crate) no_count: &'static str,
    pub(crate) held: &'static str,
    pub(crate) held_why: &'static str,
    pub(crate) free: &'static str,
    pub(crate) change_title: &'static str,
    pub(crate) change_days: &'static str,
    pub(crate) change_usage: &'static str,
    pub(crate) change: &'static str,
    pub(crate) pause: &'static str,
    pub(crate) resume: &'static str,
    pub(crate) delete: &'static str,
    pub(crate) delete_warning: &'static str,
    pub(crate) delete_confirm: &'static str,
    pub(crate) hurts_title: &'static str,
    pub(crate) hurts: [(&'static str, &'static str); 3],
    pub(crate) keep_link: &'static str,
    pub(crate) mail_page: &'static str,
    pub(crate) another: &'static str,
    pub(crate) gone_title: &'static str,
    pub(crate) gone: &'static str,
    pub(crate) home: &'static str,
    /// What a page of one alias is called, by its state.
    pub(crate) title: fn(Standing) -> &'static str,
    /// What becomes of mail now.
    pub(crate) explanation: fn(Standing) -> &'static str,
    /// What was just done.
    pub(crate) done: fn(Done) -> &'static str,
    /// What the operator allows: days, messages.
    pub(crate) at_most: fn(u32, u32) -> String,
    /// `in 2 days`.
    pub(crate) in_time: fn(Duration) -> String,
    /// About the days of a change, with the most that are allowed.
    pub(crate) days_hint: fn(u32) -> String,
    /// About the messages of a change: the most allowed, and how many have come.
    pub(crate) usage_hint: fn(u32, u32) -> String,
    /// `4 of 5 messages`.
    pub(crate) messages_left: fn(u32, u32) -> String,
    /// `2 messages`.
    pub(crate) messages_held: fn(u32) -> String,
}

impl Texts {
    /// What a field is called in a list of faults.
    pub(crate) fn label(&self, field: Field) -> &'static str {
        match field {
            Field::Target => self.target,
            Field::Days => self.days_label,
            Field::MaxUsage => self.messages_label,
            Field::Domain => self.domain,
            Field::ValidFrom => self.starts,
            Field::ValidUntil => self.ends,
            Field::Paused => self.pause,
        }
    }
}

/// What an owner just did, as the page says it after a redirect. Only these words can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Made,
    Paused,
    Resumed,
    Changed,
    Freed,
}

impl Done {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Made, "made"),
        (Self::Paused, "paused"),
        (Self::Resumed, "resumed"),
        (Self::Changed, "changed"),
        (Self::Freed, "freed"),
    ];

    /// Whether it can still be so: an old link may be opened again after the alias has changed.
    pub(crate) fn fits(self, view: &View) -> bool {
        match self {
            Self::Made => matches!(view.standing, Standing::Active | Standing::NotYet),
            Self::Paused => view.paused,
            Self::Resumed => !view.paused,
            Self::Changed | Self::Freed => true,
        }
    }

    /// Its name in a query.
    pub(crate) fn key(self) -> &'static str {
        Self::ALL.iter().find(|(done, _)| *done == self).map_or("", |(_, key)| key)
    }

    /// From a query; anything else is nothing.
    pub(crate) fn from_query(query: &str) -> Option<Self> {
        let key = query.split('&').find_map(|pair| pair.strip_prefix("done="))?;
        Self::ALL.iter().find(|(_, name)| *name == key).map(|(done, _)| *done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_words_can_be_asked_for() {
        assert_eq!(Done::from_query("done=paused"), Some(Done::Paused));
        assert_eq!(Done::from_query("x=1&done=made"), Some(Done::Made));
        assert_eq!(Done::from_query("done=<script>"), None);
        assert!(Done::ALL.iter().all(|(done, key)| done.key() == *key));
    }
}
