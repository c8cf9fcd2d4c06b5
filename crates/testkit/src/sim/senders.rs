//! Senders: mail servers with a queue, as they are in the world. Some pipeline, some are impatient, some vanish
//! anywhere, some never come back; some send the same message twice, some send one message to several aliases.

use std::collections::VecDeque;

use bytes::Bytes;

use super::fixture::CONTENTS;
use super::link::{CLOSED, Link};
use super::plan::{DAY, HOUR, MINUTE, SECOND};
use super::queue::Time;
use super::tally::Seen;
use super::world::{Happening, World};

/// RFC 5321 §4.5.4.1: at least four to five days.
const LIFETIME: Time = 5 * DAY;

#[derive(Debug)]
pub(super) struct Sender {
    mail_from: Bytes,
    pipelines: bool,
    /// How long it waits for the answer to its dot.
    patience: Time,
    first_pause: Time,
    /// Of a thousand failures, after how many it never comes back.
    forgets: u64,
    parting: Parting,
}

/// What a sender says when it has nothing more to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parting {
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
    born: Time,
    tries: u32,
    /// The plan that counts.
    number: u32,
    busy: bool,
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

/// The sender's end of a connection.
#[derive(Debug)]
pub(super) struct Client {
    sender: usize,
    pub(super) entry: usize,
    expects: VecDeque<Expect>,
    step: u32,
    /// Recipients of this transaction that were taken: indices into the entry's.
    taken: Vec<usize>,
    said_quit: bool,
    gone: bool,
    carried: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Banner,
    Hello,
    Mail,
    Rcpt(usize),
    Data,
    Dot,
    Bye,
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

    // === An attempt.

    pub(super) fn tries(&mut self, entry: usize, number: u32) {
        let it = &self.entries[entry];
        if it.busy || it.number != number || it.waiting().next().is_none() {
            return;
        }
        let (sender, node) = (it.sender, self.random.index(self.nodes.len()));
        self.entries[entry].busy = true;
        if !self.nodes[node].up {
            self.fails(entry);
            return;
        }
        let link = self.links.len();
        self.note(|world| {
            let content = world.entries[entry].content;
            format!("entry {entry} (message {content}) by connection {link} to node {node}")
        });
        let client = Client {
            sender,
            entry,
            expects: VecDeque::from([Expect::Banner]),
            step: 0,
            taken: vec![],
            said_quit: false,
            gone: false,
            carried: 1,
        };
        let cut = self.random.permille(self.plan.cut);
        let cut_after = cut.then(|| self.random.between(1, 22));
        self.links.push(Link::new(node, self.nodes[node].start, client, cut_after));
        let time = self.network_time();
        self.plan_in(time, Happening::Arrives { link });
        self.waits(link);
    }

    fn network_time(&mut self) -> Time {
        self.random.between(1, 40)
    }

    fn waits(&mut self, link: usize) {
        let client = &mut self.links[link].client;
        client.step += 1;
        let step = client.step;
        let at_dot = client.expects.front() == Some(&Expect::Dot);
        let patience = self.senders[client.sender].patience;
        self.plan_in(if at_dot { patience } else { 5 * MINUTE }, Happening::Tired { link, step });
    }

    pub(super) fn tired(&mut self, link: usize, step: u32) {
        let client = &self.links[link].client;
        if client.gone || client.step != step {
            return;
        }
        self.saw(Seen::SenderImpatient);
        self.note(|_| format!("  {link} the sender waits no longer"));
        self.hangs_up(link);
    }

    /// The sender's end is closed: nothing more is read, and the node finds out.
    fn hangs_up(&mut self, link: usize) {
        let client = &mut self.links[link].client;
        if client.gone {
            return;
        }
        client.gone = true;
        let entry = client.entry;
        let done = client.expects.iter().all(|expect| *expect == Expect::Bye);
        let time = self.network_time();
        // Behind what is on its way.
        let at = self.links[link].up.back().map_or(0, |(at, _)| *at).max(self.now + time);
        self.queue.plan(at, Happening::Gone { link });
        if !done {
            self.fails(entry);
        }
    }

    /// Writes octets; a write may be the last thing that happens on a connection.
    fn writes(&mut self, link: usize, octets: Bytes, later: Time) {
        if self.is_cut(link) {
            return;
        }
        let time = self.network_time();
        let it = &mut self.links[link];
        let at = it.up.back().map_or(0, |(at, _)| *at).max(self.now + time + later);
        it.up.push_back((at, octets));
        self.queue.plan(at, Happening::Arrives { link });
    }

    fn is_cut(&mut self, link: usize) -> bool {
        if self.links[link].client.gone {
            return true;
        }
        let Some(after) = &mut self.links[link].cut_after else { return false };
        *after -= 1;
        if *after > 0 {
            return false;
        }
        self.saw(Seen::SenderCuts);
        self.note(|_| format!("  {link} the connection is cut"));
        self.links[link].cut_after = None;
        self.hangs_up(link);
        true
    }

    /// The node writes a reply.
    pub(super) fn say_down(&mut self, link: usize, code: u16) {
        if code != CLOSED && self.is_cut(link) {
            return;
        }
        let time = self.network_time();
        let it = &mut self.links[link];
        let at = it.down.back().map_or(0, |(at, _)| *at).max(self.now + time);
        it.down.push_back((at, code));
        self.queue.plan(at, Happening::Replies { link });
    }

    // === What the sender reads.

    pub(super) fn replies_arrive(&mut self, link: usize) {
        while self.links[link].down.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, code)) = self.links[link].down.pop_front() else { return };
            if self.links[link].client.gone {
                return;
            }
            self.note(|_| format!("  {link} the sender reads {code}"));
            if code == CLOSED || code == 421 {
                self.hangs_up(link);
                return;
            }
            self.reads(link, code);
        }
    }

    fn reads(&mut self, link: usize, code: u16) {
        let client = &mut self.links[link].client;
        let Some(expected) = client.expects.pop_front() else { return };
        let entry = client.entry;
        match expected {
            Expect::Banner => self.commands(link, b"EHLO sender.test\r\n", Expect::Hello),
            Expect::Hello => self.begins_mail(link),
            Expect::Mail if code / 100 != 2 => self.hangs_up_after(link),
            Expect::Mail if self.links[link].client.expects.is_empty() => self.names_next(link, 0),
            Expect::Mail => {}
            Expect::Rcpt(at) => {
                match code / 100 {
                    2 => self.links[link].client.taken.push(at),
                    5 => self.ends(entry, at, Fate::Bounced),
                    _ => {}
                }
                if self.links[link].client.expects.is_empty() {
                    self.names_next(link, at + 1);
                }
            }
            Expect::Data if code == 354 => self.sends_message(link),
            Expect::Data => self.transaction_over(link),
            Expect::Dot => self.dot_answered(link, code),
            Expect::Bye => self.hangs_up(link),
        }
    }

    /// An answer that ends everything.
    fn hangs_up_after(&mut self, link: usize) {
        self.links[link].client.expects.push_front(Expect::Mail);
        self.hangs_up(link);
    }

    fn commands(&mut self, link: usize, text: &'static [u8], expect: Expect) {
        self.links[link].client.expects.push_back(expect);
        self.writes(link, Bytes::from_static(text), 0);
        self.waits(link);
    }

    fn begins_mail(&mut self, link: usize) {
        let client = &mut self.links[link].client;
        client.taken.clear();
        client.expects.push_back(Expect::Mail);
        let (entry, sender) = (client.entry, client.sender);
        self.links[link].mail = super::link::Mail::default();
        let it = &self.senders[sender];
        let mut octets = it.mail_from.to_vec();
        if it.pipelines {
            let waiting: Vec<(usize, usize)> = self.entries[entry].waiting().collect();
            for (at, row) in waiting {
                octets.extend_from_slice(&self.fixture.aliases[row].rcpt);
                self.links[link].client.expects.push_back(Expect::Rcpt(at));
            }
            octets.extend_from_slice(b"DATA\r\n");
            self.links[link].client.expects.push_back(Expect::Data);
        }
        self.writes(link, octets.into(), 0);
        self.waits(link);
    }

    /// The next recipient from `from` on; none: DATA, if anybody was taken.
    fn names_next(&mut self, link: usize, from: usize) {
        let entry = self.links[link].client.entry;
        let next = self.entries[entry].waiting().find(|(at, _)| *at >= from);
        if let Some((at, row)) = next {
            self.links[link].client.expects.push_back(Expect::Rcpt(at));
            let rcpt = self.fixture.aliases[row].rcpt.clone();
            self.writes(link, rcpt, 0);
            self.waits(link);
        } else if self.links[link].client.taken.is_empty() {
            self.transaction_over(link);
        } else {
            self.commands(link, b"DATA\r\n", Expect::Data);
        }
    }

    fn sends_message(&mut self, link: usize) {
        let client = &mut self.links[link].client;
        client.expects.push_back(Expect::Dot);
        let (entry, sender) = (client.entry, client.sender);
        let parting = self.senders[sender].parting;
        let trace = usize::try_from(self.entries[entry].tries % 2).unwrap_or(0);
        let mut message = self.fixture.messages[self.entries[entry].content][trace].clone();
        if parting == Parting::Pipelined {
            message = [&message[..], b"QUIT\r\n"].concat().into();
        }
        if matches!(parting, Parting::Pipelined | Parting::Straggling) {
            self.links[link].client.said_quit = true;
        }
        if self.random.permille(150) {
            // In two writes; if the second takes long, the next hop is let go meanwhile.
            let rest = message.split_off(self.random.index(message.len()));
            self.writes(link, message, 0);
            message = rest;
            let pause = self.random.pick([0, 100, 4 * SECOND, 7 * SECOND]);
            self.writes(link, message, pause);
        } else {
            self.writes(link, message, 0);
        }
        if parting == Parting::Straggling {
            let pause = self.random.pick([0, 50, 500]);
            self.writes(link, Bytes::from_static(b"QUIT\r\n"), pause);
        }
        self.waits(link);
    }

    fn dot_answered(&mut self, link: usize, code: u16) {
        let entry = self.links[link].client.entry;
        let taken = std::mem::take(&mut self.links[link].client.taken);
        if code / 100 == 2 {
            self.links[link].read += 1;
        }
        for at in taken {
            match code / 100 {
                2 => {
                    let Rcpt { row, .. } = self.entries[entry].rcpts[at];
                    self.truth.read(row, self.entries[entry].content, entry);
                    self.ends(entry, at, Fate::Delivered);
                }
                5 => self.ends(entry, at, Fate::Bounced),
                _ => {}
            }
        }
        self.transaction_over(link);
    }

    /// What was not answered for good is tried again; and is there more to send?
    fn transaction_over(&mut self, link: usize) {
        let Client { entry, sender, said_quit, carried, .. } = self.links[link].client;
        self.fails(entry);
        if said_quit {
            self.links[link].client.expects.push_back(Expect::Bye);
            self.waits(link);
            return;
        }
        let more = self.entries.iter().position(|other| {
            other.sender == sender
                && !other.busy
                && other.born <= self.now
                && other.waiting().next().is_some()
        });
        if let Some(next) = more.filter(|next| *next != entry && carried < 3 && self.random.permille(600)) {
            self.entries[next].busy = true;
            (self.links[link].client.entry, self.links[link].client.carried) = (next, carried + 1);
            self.begins_mail(link);
        } else if self.senders[sender].parting == Parting::Silence {
            self.links[link].client.expects.clear();
            self.hangs_up(link);
        } else {
            self.commands(link, b"QUIT\r\n", Expect::Bye);
        }
    }

    // === The queue.

    fn ends(&mut self, entry: usize, at: usize, fate: Fate) {
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
    fn fails(&mut self, entry: usize) {
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

impl Client {
    /// Whether nobody reads what is written to it.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }
}

impl Entry {
    /// Which recipients still wait, by place, and their aliases.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let waiting = self.rcpts.iter().enumerate().filter(|(_, rcpt)| rcpt.fate == Fate::Waiting);
        waiting.map(|(at, rcpt)| (at, rcpt.row))
    }
}
