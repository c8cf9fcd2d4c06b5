//! A sender's end of a connection: what it says, what it makes of our replies, and where it is cut.

use std::collections::VecDeque;

use bytes::Bytes;

use super::link::{CLOSED, Link, Mail};
use super::plan::{MINUTE, SECOND};
use super::queue::Time;
use super::senders::{Fate, Parting, Rcpt};
use super::tally::Seen;
use super::world::{Happening, World};

/// Of a thousand connections that wait for a verdict, how many are cut when the store goes down.
const CUT_WITH_STORE: u64 = 800;

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

impl Client {
    /// Whether nobody reads what is written to it.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }
}

impl World {
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

    /// Some of those who wait for the answer to their dot are cut off together with the store.
    pub(super) fn cuts_waiting(&mut self) {
        for link in 0..self.links.len() {
            let client = &self.links[link].client;
            let waits = !client.gone && client.expects.front() == Some(&Expect::Dot);
            if waits && self.weather.permille(CUT_WITH_STORE) {
                self.saw(Seen::SenderCuts);
                self.note(|_| format!("  {link} the connection is cut"));
                self.hangs_up(link);
            }
        }
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
        self.links[link].mail = Mail::default();
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
}
