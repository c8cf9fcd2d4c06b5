//! Senders: mail servers with a queue, as they are in the world. Some pipeline, some are impatient, some vanish
//! anywhere, some never come back; some send the same message twice, some send one message to several aliases.

use bytes::Bytes;

use super::fixture::CONTENTS;
use super::plan::{DAY, HOUR, MINUTE, SECOND};
use super::queue::Time;
use super::tally::Seen;
use super::world::{Happening, World};

/// Of a thousand queues, how many are tried just after an outage of the store.
const FLUSHES: u64 = 900;
/// RFC 5321 §4.5.4.1: at least four to five days.
const LIFETIME: Time = 5 * DAY;

#[derive(Debug)]
pub(super) struct Sender {
    pub(super) mail_from: Bytes,
    pub(super) pipelines: bool,
    /// How long it waits for the answer to its dot.
    pub(super) patience: Time,
    first_pause: Time,
    /// Of a thousand failures, after how many it never comes back.
    forgets: u64,
    pub(super) parting: Parting,
}

/// What a sender says when it has nothing more to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parting {
    /// QUIT, once it has read our answer.
    Quit,
    /// Nothing: it closes.
    Silence,
    /// QUIT, in one write with the dot.
    Pipelined,
    /// QUIT, right behind the dot, but it may arrive later.
    Straggling,
}

/// A message in a sender's queue.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sender: usize,
    pub(super) content: usize,
    pub(super) rcpts: Vec<Rcpt>,
    pub(super) born: Time,
    pub(super) tries: u32,
    /// The plan that counts.
    pub(super) number: u32,
    pub(super) busy: bool,
    /// How often it heard 451 because its recipients differ.
    pub(super) differed: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Rcpt {
    pub(super) row: usize,
    pub(super) fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Waiting,
    Delivered,
    Bounced,
    GaveUp,
    NeverCameBack,
}

impl World {
    pub(super) fn add_senders(&mut self) {
        for sender in 0..self.plan.senders {
            let mail_from = match self.random.below(6) {
                0 => "MAIL FROM:<>\r\n".to_owned(),
                1 => "MAIL FROM:<a@shared.test>\r\n".to_owned(),
                _ => format!("MAIL FROM:<a@s{sender}.test>\r\n"),
            };
            let it = Sender {
                mail_from: mail_from.into(),
                pipelines: self.random.permille(500),
                patience: self.random.pick([10 * MINUTE, 10 * MINUTE, 30 * SECOND, 3 * SECOND]),
                first_pause: self.random.pick([2 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE]),
                forgets: self.random.pick([0, 0, 0, 100, 500]),
                parting: self.random.pick([
                    Parting::Quit,
                    Parting::Quit,
                    Parting::Quit,
                    Parting::Silence,
                    Parting::Pipelined,
                    Parting::Straggling,
                ]),
            };
            self.senders.push(it);
        }
        for entry in 0..self.random.pick([1usize, 1, 2, 2, 2, 3, 3, 4, 5, 6]) {
            self.add_entry(entry);
        }
    }

    fn add_entry(&mut self, entry: usize) {
        let rows = self.store.rows.len();
        let mut chosen = vec![self.random.index(rows)];
        for row in 0..rows {
            if !chosen.contains(&row) && self.random.permille(350) {
                chosen.push(row);
            }
        }
        // Mostly another message; sometimes the one before once more, from the same sender.
        let again = entry > 0 && self.random.permille(120);
        let (sender, content) = if again {
            (self.entries[entry - 1].sender, self.entries[entry - 1].content)
        } else {
            (self.random.index(self.senders.len()), self.other_content(entry))
        };
        let late =
            self.random.pick([SECOND, SECOND, SECOND, 30 * SECOND, 20 * MINUTE, HOUR, 2 * DAY, 11 * DAY]);
        let born = self.random.below(late);
        let rcpts = chosen.into_iter().map(|row| Rcpt { row, fate: Fate::Waiting }).collect();
        self.entries.push(Entry {
            sender,
            content,
            rcpts,
            born,
            tries: 0,
            number: 0,
            busy: false,
            differed: 0,
        });
        self.saw(Seen::Messages);
        self.queue.plan(born, Happening::Try { entry, number: 0 });
    }

    /// The last contents have no Message-ID.
    fn other_content(&mut self, entry: usize) -> usize {
        let used = |content| self.entries.iter().any(|entry| entry.content == content);
        let nameless = CONTENTS - 2 + entry % 2;
        if self.random.permille(100) && !used(nameless) { nameless } else { entry }
    }

    // === The queue.

    /// Senders may try again whenever they like: here just as the store is back.
    pub(super) fn flushes_queues(&mut self) {
        for entry in 0..self.entries.len() {
            let it = &self.entries[entry];
            let number = it.number;
            if it.tries > 0 && !it.busy && it.waiting().next().is_some() && self.weather.permille(FLUSHES) {
                let soon = self.weather.between(0, 3 * SECOND / 2);
                self.plan_in(soon, Happening::Try { entry, number });
            }
        }
    }

    pub(super) fn ends(&mut self, entry: usize, at: usize, fate: Fate) {
        self.entries[entry].rcpts[at].fate = fate;
        self.saw(match fate {
            Fate::Waiting => return,
            Fate::Delivered => Seen::Told250,
            Fate::Bounced => Seen::Bounced,
            Fate::GaveUp => Seen::GaveUp,
            Fate::NeverCameBack => Seen::NeverCameBack,
        });
    }

    /// An attempt is over; whoever still waits is tried again later, or never.
    pub(super) fn fails(&mut self, entry: usize) {
        let it = &mut self.entries[entry];
        it.busy = false;
        it.tries += 1;
        it.number += 1;
        let (tries, number, sender) = (it.tries, it.number, it.sender);
        let waiting: Vec<usize> = it.waiting().map(|(at, _)| at).collect();
        if waiting.is_empty() {
            return;
        }
        let Sender { first_pause, forgets, .. } = self.senders[sender];
        let pause = (first_pause << tries.min(16)).min(16 * HOUR);
        let pause = self.random.between(pause / 2, pause);
        let fate = if self.random.permille(forgets) {
            Fate::NeverCameBack
        } else if self.now + pause > self.entries[entry].born + LIFETIME {
            Fate::GaveUp
        } else {
            self.plan_in(pause, Happening::Try { entry, number });
            return;
        };
        self.note(|_| format!("entry {entry}: {fate:?}"));
        if fate == Fate::GaveUp && self.entries[entry].differed > 2 {
            self.tally.add(Seen::Starved, waiting.len() as u64);
        }
        for at in waiting {
            self.ends(entry, at, fate);
        }
    }
}

impl Entry {
    /// Which recipients still wait, by place, and their aliases.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let waiting = self.rcpts.iter().enumerate().filter(|(_, rcpt)| rcpt.fate == Fate::Waiting);
        waiting.map(|(at, rcpt)| (at, rcpt.row))
    }
}
