//! Nodes: they are killed, stopped, cut off from the store, and start again; and what befalls the store.
//!
//! A node that cannot renew its lease in time is dead to the others, and knows it: it takes a new name (`names.rs`), and
//! its old sessions can send no dot any more for what they claimed before (`Moment.owner`, `Store::may_send`).

use super::leases::{LEASE, RENEW};
use super::names::Names;
use super::plan::{DAY, HOUR, MINUTE, SECOND};
use super::queue::Time;
use super::store::Act;
use super::tally::Seen;
use super::world::{Happening, World};

#[derive(Debug)]
pub(super) struct Node {
    pub(super) up: bool,
    pub(super) names: Names,
    /// Starts of the process: what an earlier one left behind is nobody's.
    pub(super) start: u32,
    pub(super) asleep_until: Time,
    /// Cut off from the store.
    pub(super) parted: bool,
    /// Steps until something happens to it.
    fuse: Option<u64>,
    crashes: u64,
    pub(super) sessions: u64,
}

impl World {
    pub(super) fn add_node(&mut self, node: usize) {
        let owner = self.next_owner(node);
        let crashes = self.plan.crashes;
        self.nodes.push(Node {
            up: true,
            names: Names::new(owner, 0),
            start: 1,
            asleep_until: 0,
            parted: false,
            fuse: None,
            crashes,
            sessions: 0,
        });
        self.store.opened_by(owner, 0);
        self.light_fuse(node);
    }

    fn light_fuse(&mut self, node: usize) {
        let fuse = self.random.between(1, self.plan.fuse);
        let node = &mut self.nodes[node];
        node.fuse = (node.crashes > 0).then_some(fuse);
        node.crashes = node.crashes.saturating_sub(1);
    }

    /// One step of a node; at one of them it is killed, stopped, or cut off. Whether it lives on.
    pub(super) fn survives(&mut self, node: usize) -> bool {
        let Some(fuse) = &mut self.nodes[node].fuse else { return true };
        *fuse -= 1;
        if *fuse > 0 {
            return true;
        }
        self.nodes[node].fuse = None;
        match self.random.below(8) {
            0..=3 => self.kill(node),
            4 | 5 => {
                self.pauses(node);
                self.light_fuse(node);
            }
            6 if self.store.is_shared() => {
                self.parts(node);
                self.light_fuse(node);
            }
            7 if self.plan.clock_steps > 0 => {
                self.clock_steps();
                self.light_fuse(node);
            }
            _ => self.power_loss(),
        }
        self.nodes[node].up
    }

    fn kill(&mut self, node: usize) {
        self.saw(Seen::Crashes);
        self.note(|_| format!("node {node} is killed"));
        self.stops_renewing(node);
        (self.nodes[node].up, self.nodes[node].fuse) = (false, None);
        for link in 0..self.links.len() {
            if self.links[link].node == node && self.links[link].session.is_some() {
                if self.links[link].watch.is_past_dot() {
                    self.saw(Seen::CrashesPastDot);
                }
                self.link_dies(link);
            }
        }
        self.tasks.iter_mut().filter(|task| task.node == node).for_each(|task| task.done = true);
        let back = self.random.pick([100, SECOND, 5 * SECOND, 30 * SECOND, 10 * MINUTE]);
        self.plan_in(back, Happening::Starts { node });
    }

    pub(super) fn starts(&mut self, node: usize) {
        let owner = self.next_owner(node);
        self.note(|_| format!("node {node} starts, boot {}", owner.boot));
        let it = &mut self.nodes[node];
        (it.up, it.asleep_until, it.sessions) = (true, 0, 0);
        it.names = Names::new(owner, self.store.server);
        it.start += 1;
        self.comes_back(node);
        self.light_fuse(node);
    }

    // === The lease.

    pub(super) fn pauses(&mut self, node: usize) {
        if !self.nodes[node].up || self.nodes[node].asleep_until > self.now {
            return;
        }
        self.saw(Seen::Pauses);
        let time = self.random.pick([500, 5 * SECOND, LEASE, LEASE + SECOND, MINUTE, 15 * MINUTE]);
        self.note(|_| format!("node {node} is stopped for {time} ms"));
        self.stops_renewing(node);
        self.nodes[node].asleep_until = self.now + time;
        self.plan_in(time, Happening::Wakes { node });
    }

    pub(super) fn wakes(&mut self, node: usize) {
        if self.nodes[node].asleep_until > self.now {
            return;
        }
        self.note(|_| format!("node {node} runs on"));
        self.comes_back(node);
    }

    pub(super) fn parts(&mut self, node: usize) {
        self.saw(Seen::Partitions);
        let time = self.random.pick([SECOND, 5 * SECOND, LEASE, LEASE + SECOND, MINUTE, 30 * MINUTE]);
        self.note(|_| format!("node {node} is cut off from the store for {time} ms"));
        self.nodes[node].parted = true;
        self.loses_store(node);
        self.plan_in(time, Happening::Rejoins { node });
    }

    pub(super) fn rejoins(&mut self, node: usize) {
        self.nodes[node].parted = false;
        self.connects_to_store(node);
    }

    // === The store's troubles.

    pub(super) fn store_goes(&mut self, down: bool) {
        self.note(|_| format!("the store is {}", if down { "down" } else { "up" }));
        self.store.down = down;
        for node in 0..self.nodes.len() {
            if down {
                self.loses_store(node);
            } else {
                self.connects_to_store(node);
            }
        }
        if self.store.is_shared() {
            if down { self.cuts_waiting() } else { self.flushes_queues() }
        }
        if down {
            self.saw(Seen::StoreOutages);
            let time = self.random.pick([500, 5 * SECOND, MINUTE, 20 * MINUTE]);
            self.plan_in(time, Happening::StoreUp);
        }
    }

    /// The machine under the store goes down and comes back. An embedded store is on the node's own machine.
    pub(super) fn power_loss(&mut self) {
        self.saw(Seen::PowerLosses);
        self.note(|_| "the power fails under the store".into());
        if self.store.is_shared() {
            self.store.lose_power();
            return;
        }
        if self.nodes[0].up {
            self.kill(0);
        }
        self.store.lose_power();
    }

    pub(super) fn clock_steps(&mut self) {
        self.saw(Seen::ClockSteps);
        let by = self.random.pick([SECOND, LEASE, HOUR, 6 * DAY]);
        let by = i64::try_from(by).unwrap_or(0) * self.random.pick([1, -1]);
        self.note(|_| format!("the store's clock jumps by {by} ms"));
        self.truth.clock_jumped = true;
        self.store.step_clock(by, self.now);
        for node in 0..self.nodes.len() {
            // It finds out with its next renewal.
            let next = self.random.between(0, RENEW);
            self.plan_in(next, Happening::Renews { node });
        }
    }

    pub(super) fn owner_acts(&mut self, row: usize, act: Act) {
        let luck = self.random.next();
        let (names, now) = (&self.nodes[0].names, self.now);
        let freed = self.store.change(row, act, now, luck, |owner| names.spares(owner, now, None));
        self.note(|_| format!("the owner of alias {row}: {act:?}, {freed} freed"));
        self.tally.add(Seen::Freed, freed);
    }

    pub(super) fn sweeps(&mut self) {
        let swept = self.store.sweep(self.now);
        self.tally.add(Seen::Expired, swept);
    }
}
