//! Next hops: each accepts, refuses, dawdles, talks nonsense, or breaks the connection, before or after it has the
//! message. What it accepted is counted when it accepts it, whoever hears of it.
//!
//! Stands for `outside/src/connection.rs` and `connection/body.rs` too: the dot is the last write, it leaves only if
//! nothing was said before and `Store::may_send` allows it, and a failure before it is known to be one.

use std::collections::VecDeque;

use tempalias_relay::{BodyFailed, ConnectError, Connected, Heard, Outgoing};
use tempalias_smtp::reply::{NextHopReply, Nonsense};

use super::link::Ask;
use super::plan::{MINUTE, SECOND};
use super::queue::Time;
use super::tally::Seen;
use super::world::{Happening, World};

#[derive(Debug)]
pub(super) struct Hop {
    pub(super) link: usize,
    /// The aliases whose targets it accepted.
    named: Vec<usize>,
    /// On its way to us.
    says: VecDeque<(Time, Said)>,
    /// Said, and not heard yet.
    inbox: VecDeque<Said>,
    broken: bool,
    dot: Option<Dot>,
}

#[derive(Debug, Clone)]
struct Said {
    heard: Heard,
    /// It is the answer to the dot.
    verdict: bool,
}

/// A message whose dot has left us.
#[derive(Debug, Clone)]
pub(super) struct Dot {
    pub(super) link: usize,
    pub(super) entry: usize,
    /// For each recipient, its alias and the number of what is known of it in `truth`.
    pub(super) parts: Vec<usize>,
    accepted: bool,
}

impl World {
    /// How long a next hop takes.
    pub(super) fn hop_time(&mut self) -> Time {
        if self.random.permille(self.plan.slow) {
            return self.random.pick([SECOND, 6 * SECOND, 90 * SECOND, 3 * MINUTE, 11 * MINUTE]);
        }
        self.random.between(5, 50)
    }

    pub(super) fn connects(&mut self, link: usize) -> Result<Connected, ConnectError> {
        if self.random.permille(self.plan.hop_cut / 2) {
            return Err(self.random.pick([ConnectError::NoConnection, ConnectError::NoDnsAnswer]));
        }
        if self.random.permille(self.plan.refuse / 8) {
            return Err(ConnectError::NoSuchDomain);
        }
        let offered = self.fixture.offers[usize::from(self.plan.pipelines)];
        self.hops.push(Hop {
            link,
            named: vec![],
            says: VecDeque::new(),
            inbox: VecDeque::new(),
            broken: false,
            dot: None,
        });
        self.links[link].hop = Some(self.hops.len() - 1);
        Ok(Connected { offered, reused: false })
    }

    /// Commands arrive, and are answered.
    pub(super) fn says_to_hop(&mut self, link: usize, commands: &[u8]) {
        let Some(hop) = self.links[link].hop else { return };
        for line in commands.split(|&octet| octet == b'\n').filter(|line| !line.is_empty()) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let time = self.hop_time();
            if self.hops[hop].broken {
                return;
            }
            if self.random.permille(self.plan.hop_cut / 4) {
                self.hop_breaks(hop, time);
                return;
            }
            if let Some(reply) = self.whim() {
                let closes = reply.code() == 421;
                self.hop_answers(hop, time, Heard::Reply(reply), false);
                if closes {
                    self.hop_breaks(hop, time);
                }
                continue;
            }
            if self.random.permille(self.plan.nonsense) {
                self.hop_answers(hop, time, Heard::Nonsense(Nonsense::NoCode), false);
                continue;
            }
            let reply = if line == b"DATA" { &self.fixture.replies.go } else { &self.fixture.replies.ok };
            let heard = Heard::Reply(reply.clone());
            let named = self.fixture.aliases.iter().position(|alias| alias.named == line);
            self.hops[hop].named.extend(named);
            self.hop_answers(hop, time, heard, false);
        }
    }

    /// A refusal, if it feels like one.
    fn whim(&mut self) -> Option<NextHopReply> {
        if !self.random.permille(self.plan.refuse) {
            return None;
        }
        self.saw(Seen::HopRefusals);
        let replies = &self.fixture.replies;
        Some(match self.random.below(8) {
            0..=3 => replies.later.clone(),
            4..=6 => replies.never.clone(),
            _ => replies.closing.clone(),
        })
    }

    fn hop_answers(&mut self, hop: usize, time: Time, heard: Heard, verdict: bool) {
        let it = &mut self.hops[hop];
        // In order.
        let at = it.says.back().map_or(0, |(at, _)| *at).max(self.now + time);
        it.says.push_back((at, Said { heard, verdict }));
        self.queue.plan(at, Happening::Says { hop });
    }

    fn hop_breaks(&mut self, hop: usize, time: Time) {
        self.saw(Seen::HopCuts);
        self.hops[hop].broken = true;
        self.hop_answers(hop, time, Heard::Lost, false);
    }

    /// What a next hop said reaches us.
    pub(super) fn hop_says(&mut self, hop: usize) {
        let now = self.now;
        let it = &mut self.hops[hop];
        while it.says.front().is_some_and(|(at, _)| *at <= now) {
            let said = it.says.pop_front().map(|(_, said)| said);
            it.inbox.extend(said);
        }
        let link = it.link;
        if self.links[link].hop == Some(hop) && matches!(self.links[link].ask, Some(Ask::Hear)) {
            self.drive(link);
        }
    }

    /// The session listens.
    pub(super) fn hears(&mut self, link: usize) -> Option<Heard> {
        let Some(hop) = self.links[link].hop else { return Some(Heard::Lost) };
        let said = self.hops[hop].inbox.pop_front()?;
        if let (true, Heard::Reply(reply)) = (said.verdict, &said.heard) {
            self.links[link].watch.judged(reply.code(), &mut self.contract);
            if reply.is_success() {
                self.verdict_heard(hop);
            }
        }
        Some(said.heard)
    }

    fn verdict_heard(&mut self, hop: usize) {
        let parts = self.hops[hop].dot.as_ref().map(|dot| dot.parts.clone()).unwrap_or_default();
        self.truth.heard(&parts, self.now);
    }

    // === The message.

    /// The message has been written, but for its last write.
    pub(super) fn sends_body(&mut self, link: usize, outgoing: &Outgoing) -> Result<(), BodyFailed> {
        let before_dot = |pending| Err(BodyFailed { dot_may_have_left: false, pending });
        let Some(hop) = self.links[link].hop else { return before_dot(None) };
        if let Some(said) = self.hops[hop].inbox.pop_front() {
            return before_dot(Some(said.heard).filter(|heard| matches!(heard, Heard::Reply(_))));
        }
        if self.random.permille(self.plan.hop_cut / 2) {
            self.saw(Seen::HopCuts);
            self.hops[hop].broken = true;
            let why = self.whim();
            return before_dot(why.map(Heard::Reply));
        }
        let may_send = |owner| self.may_send(self.links[link].node, owner);
        if !outgoing.claimed_by().is_none_or(may_send) {
            self.saw(Seen::Fenced);
            self.note(|_| format!("  {link} the dot is held back: the lease may be over"));
            return before_dot(None);
        }
        self.dot_leaves(link, hop, outgoing);
        if self.random.permille(self.plan.hop_cut / 4) {
            // The write with the dot fails; what it carried may have arrived all the same.
            return Err(BodyFailed { dot_may_have_left: true, pending: None });
        }
        Ok(())
    }

    fn dot_leaves(&mut self, link: usize, hop: usize, outgoing: &Outgoing) {
        self.links[link].watch.dot_may_have_left(&mut self.contract);
        self.is_unchanged(link, outgoing);
        let entry = self.links[link].client.entry;
        let rows = self.hops[hop].named.clone();
        if rows.len() < self.links[link].mail.rows.len() {
            self.saw(Seen::Partial);
        }
        let parts = rows.iter().map(|&row| self.dot_left(link, row)).collect();
        self.tempts_fate();
        self.hops[hop].dot = Some(Dot { link, entry, parts, accepted: false });
        let time = self.hop_time();
        if self.hops[hop].broken || self.random.permille(self.plan.hop_cut / 4) {
            self.note(|_| format!("  {link} the dot gets lost"));
            self.hop_breaks(hop, time);
        } else {
            self.plan_in(time, Happening::Dot { hop });
        }
    }

    /// Not one byte changed: what goes on is what this attempt's sender wrote.
    fn is_unchanged(&mut self, link: usize, outgoing: &Outgoing) {
        let entry = &self.entries[self.links[link].client.entry];
        let message = &self.fixture.messages[entry.content];
        let sent = outgoing.segments().concat();
        if !message.iter().any(|variant| *variant == sent) {
            self.breaks("P4: the message was changed");
        }
    }

    /// The dot arrives. Whatever became of us meanwhile, this next hop now decides.
    pub(super) fn dot_arrives(&mut self, hop: usize) {
        let time = self.hop_time();
        if let Some(reply) = self.whim() {
            let closes = reply.code() == 421;
            self.hop_answers(hop, time, Heard::Reply(reply), true);
            if closes {
                self.hop_breaks(hop, time);
            }
            return;
        }
        if self.random.permille(self.plan.hop_cut / 4) {
            self.hop_breaks(hop, time); // before it took the message
            return;
        }
        let Some(dot) = &mut self.hops[hop].dot else { return };
        dot.accepted = true;
        let dot = dot.clone();
        self.accepts(&dot);
        if self.random.permille(self.plan.hop_cut) {
            self.saw(Seen::VerdictsLost);
            self.hop_breaks(hop, time);
        } else if self.random.permille(self.plan.nonsense) {
            self.hop_answers(hop, time, Heard::Nonsense(Nonsense::NoCode), true);
        } else {
            let ok = self.fixture.replies.ok.clone();
            self.hop_answers(hop, time, Heard::Reply(ok), true);
        }
    }
}
