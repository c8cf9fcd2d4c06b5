//! The names that a node claims under, and what it knows of the store: `store/src/redis/{lease,supervise,link}.rs`.
//!
//! A node that finds its lease over goes on under a new name. So does one that meets another server, or the same with
//! another history; then it keeps the lease of its former name for as long as an attempt is under way under it. Nobody
//! is taken for dead by a node that has just come back from a long outage, nor by the node itself while something is
//! under way under that name (`Core::is_dead`).

use tempalias_alias::{Answer, Attempt, ClaimRequest, Owner};
use tempalias_relay::Claimed;

use super::leases::RENEW;
use super::nodes::Node;
use super::plan::{MINUTE, SECOND};
use super::queue::Time;
use super::sabotage::Sabotage;
use super::tally::Seen;
use super::world::{Happening, World};

/// `LONGEST_ATTEMPT` of `lease.rs`.
const LONGEST_ATTEMPT: Time = 15 * MINUTE;
/// `LONG_OUTAGE` and `COME_BACK` of `link.rs`.
const LONG_OUTAGE: Time = 10 * SECOND;
pub(super) const COME_BACK: Time = 3 * SECOND;
/// Until a node knows that its store is gone: the next renewal, and the time-outs of that and of a new connection.
const NOTICES: Time = 2200;
/// Until a node has a new connection to a store that can be reached again: the last pause between tries, and the time
/// that the try may take.
pub(super) const CONNECTS: Time = 1200;
/// The backlog is told of a new connection, and tries at once (`backlog.rs`).
const WOKEN: Time = 100;

/// What a node knows.
#[derive(Debug)]
pub(super) struct Names {
    /// Under whom claims are made.
    pub(super) current: Owner,
    /// Under whom they were made before the server changed.
    pub(super) former: Vec<Owner>,
    /// Those whose leases were over when it wanted to renew them.
    pub(super) lost: Vec<Owner>,
    /// Attempts that were granted a use and are not settled yet, and since when.
    under_way: Vec<(Attempt, Time)>,
    /// Since when it has known that it has no store.
    outage: Option<Time>,
    /// When it came back from its last long outage.
    pub(super) back: Option<Time>,
    /// Since when nothing has stood between it and its store.
    pub(super) in_touch: Time,
    /// The store's server that it knows.
    server: u32,
}

impl Names {
    pub(super) fn new(current: Owner, server: u32) -> Self {
        Self {
            current,
            former: vec![],
            lost: vec![],
            under_way: vec![],
            outage: None,
            back: None,
            in_touch: 0,
            server,
        }
    }

    /// Whether this is a name that it still claims or sends under.
    pub(super) fn has(&self, owner: Owner) -> bool {
        self.current == owner || self.former.contains(&owner)
    }

    pub(super) fn all(&self) -> Vec<Owner> {
        self.former.iter().copied().chain([self.current]).collect()
    }

    pub(super) fn is_under_way(&self, attempt: Attempt, now: Time) -> bool {
        self.under_way.iter().any(|(other, since)| *other == attempt && now < since + LONGEST_ATTEMPT)
    }

    /// Whether it knows that there is no store; then calls fail at once.
    pub(super) fn is_cut_off(&self, now: Time) -> bool {
        self.outage.is_some_and(|since| since <= now)
    }

    pub(super) fn is_busy(&self, owner: Owner, now: Time) -> bool {
        self.under_way.iter().any(|(attempt, since)| attempt.owner == owner && now < since + LONGEST_ATTEMPT)
    }

    /// Whether this node takes nobody, or at least not `owner`, for dead, whatever the store says.
    pub(super) fn spares(&self, owner: Owner, now: Time, sabotage: Option<Sabotage>) -> bool {
        let is_busy = self.is_busy(owner, now) && sabotage != Some(Sabotage::OwnIsDead);
        let is_fresh = self.back.is_some_and(|back| now < back + COME_BACK);
        self.current == owner || is_busy || (is_fresh && sabotage != Some(Sabotage::NoGrace))
    }
}

impl World {
    /// Whether a message that `owner` claimed may be given its dot now, as its node knows.
    pub(super) fn may_send(&self, node: usize, owner: Owner) -> bool {
        let holds = self.nodes[node].names.has(owner) && self.store.may_send(owner, self.now);
        holds || self.sabotage == Some(Sabotage::NoFence)
    }

    /// Whether nothing stands between a node and its store, but perhaps the making of a new connection.
    pub(super) fn can_reach_store(&self, node: usize) -> bool {
        let it = &self.nodes[node];
        it.up && !it.parted && it.asleep_until <= self.now && !self.store.down
    }

    /// No lease of this node is renewed any more.
    pub(super) fn stops_renewing(&mut self, node: usize) {
        for owner in self.nodes[node].names.all() {
            self.store.stops_renewing(owner, self.now);
        }
    }

    /// A node that runs has lost its store, and notices.
    pub(super) fn loses_store(&mut self, node: usize) {
        self.stops_renewing(node);
        let it = &self.nodes[node];
        if it.up && it.asleep_until <= self.now && it.names.outage.is_none() {
            let noticed = self.now + self.weather.between(0, NOTICES);
            self.nodes[node].names.outage = Some(noticed);
        }
    }

    /// What stood between a node and its store is gone; the node finds out with its next try to connect.
    pub(super) fn connects_to_store(&mut self, node: usize) {
        let soon = if self.store.is_shared() { self.weather.between(0, CONNECTS) } else { 0 };
        self.plan_in(soon, Happening::ConnectsToStore { node });
    }

    /// Nothing stands between the node and its leases any more: are they still there, and the server that it knows?
    pub(super) fn comes_back(&mut self, node: usize) {
        if !self.can_reach_store(node) {
            // Stopped until now, say, and the store is down.
            self.loses_store(node);
            return;
        }
        let now = self.now;
        let names = &mut self.nodes[node].names;
        names.in_touch = now;
        if let Some(since) = names.outage.take() {
            if now >= since + LONG_OUTAGE {
                names.back = Some(now);
            }
            for task in 0..self.tasks.len() {
                if self.tasks[task].node == node && !self.tasks[task].done {
                    self.tasks[task].hindered = false;
                    let pause = self.weather.between(WOKEN / 2, WOKEN);
                    self.plan_in(pause, Happening::Retries { task });
                }
            }
        }
        self.renews(node);
    }

    /// Renews what must be renewed.
    pub(super) fn renews(&mut self, node: usize) {
        if !self.can_reach_store(node) || self.nodes[node].names.outage.is_some() {
            return;
        }
        let server = self.store.server;
        let names = &mut self.nodes[node].names;
        let before = names.current;
        let is_known = std::mem::replace(&mut names.server, server) == server;
        if !self.store.has_seen(before) {
            // How long others were away nobody can tell who was not there.
            names.back.get_or_insert(self.now);
            self.store.opened_by(before, self.now);
        } else if !self.store.renews(before, self.now) {
            self.nodes[node].names.lost.push(before);
            self.saw(Seen::LeasesLost);
            self.takes_name(node, "has lost its lease");
        } else if !is_known && self.sabotage != Some(Sabotage::NameKept) {
            self.nodes[node].names.former.push(before);
            self.saw(Seen::NamesLaidDown);
            self.takes_name(node, "meets another server");
        }
        self.renews_former(node);
    }

    fn takes_name(&mut self, node: usize, why: &str) {
        let past = self.store.in_flight(self.nodes[node].names.current);
        let owner = self.next_owner(node);
        self.tally.add(Seen::LeasesLostPastClaim, past);
        self.note(|_| format!("node {node} {why}, and is boot {} now", owner.boot));
        self.nodes[node].names.current = owner;
        self.store.opened_by(owner, self.now);
    }

    /// Former names live as long as something is under way under them, and may send until their lease ends.
    fn renews_former(&mut self, node: usize) {
        for owner in std::mem::take(&mut self.nodes[node].names.former) {
            let is_busy = self.nodes[node].names.is_busy(owner, self.now);
            if !is_busy || self.sabotage == Some(Sabotage::FormerDropped) {
                self.store.stops_renewing(owner, self.now);
            } else if self.store.renews(owner, self.now) {
                self.saw(Seen::FormerKept);
            } else {
                self.note(|_| format!("node {node} has lost its lease as boot {}", owner.boot));
                self.nodes[node].names.lost.push(owner);
                continue;
            }
            if is_busy || self.store.may_send(owner, self.now) {
                self.nodes[node].names.former.push(owner);
            }
        }
    }

    /// A node hears what became of its claims.
    pub(super) fn begins(&mut self, node: usize, requests: &[ClaimRequest], claimed: &[Claimed]) {
        for (request, claimed) in requests.iter().zip(claimed) {
            let attempt = request.attempt;
            if !matches!(claimed.answer, Answer::Granted | Answer::Again) || !self.store.is_shared() {
                continue;
            }
            let names = &mut self.nodes[node].names;
            names.under_way.push((attempt, self.now));
            if names.former.contains(&attempt.owner) {
                let next = self.weather.between(0, RENEW);
                self.plan_in(next, Happening::Renews { node });
            }
        }
    }

    /// A node knows that how this attempt ended is in the store.
    pub(super) fn is_over(&mut self, node: usize, attempt: Attempt) {
        let Node { names, .. } = &mut self.nodes[node];
        names.under_way.retain(|(other, _)| *other != attempt);
        if names.former.contains(&attempt.owner) && !names.is_busy(attempt.owner, self.now) {
            self.saw(Seen::FormerEnded);
            self.store.stops_renewing(attempt.owner, self.now);
        }
    }
}
