//! Calls to the store, on their way there and back, and settling in the background.
//!
//! Stands for `store/src/embedded/mod.rs` (one queue in order; what nobody waits for any longer is skipped, but for
//! settlements), for a client of a shared store (calls and answers get lost, late, doubled, in any order), and for
//! `mail/src/claims.rs` and `backlog.rs` (settling goes on until the store has heard, with growing pauses, for as long as
//! the node lives).

use std::time::Duration;

use tempalias_alias::{
    Answer, Attempt, ClaimRequest, Fingerprint, Outcome, Owner, RowKey, Settled, UnixTime,
};
use tempalias_relay::{Claimed, Event, Found};

use super::link::Answered;
use super::plan::SECOND;
use super::queue::Time;
use super::sabotage::Sabotage;
use super::tally::Seen;
use super::world::{Happening, World};

/// `store::CALL_TIMEOUT`.
const CALL_TIMEOUT: Time = 2 * SECOND;
/// `DEADLINE` of `store/src/redis/claims.rs`.
const CLAIM_DEADLINE: Duration = Duration::from_millis(2500);
/// Between tries to settle, doubled from the first to the longest, as in `mail/src/backlog.rs`. All are woken
/// by a new connection besides (`comes_back`).
const FIRST_PAUSE: Time = 100;
const LONGEST_PAUSE: Time = SECOND;
/// A settlement that took longer is counted.
/// An ordinary call takes no longer.
pub(super) const QUICK: Time = 5;
const LONG: Time = 600 * SECOND;

pub(super) type Settlements = Vec<(RowKey, Attempt, Outcome)>;

#[derive(Debug)]
pub(super) struct Call {
    pub(super) node: usize,
    start: u32,
    from: Caller,
    what: Asked,
    answer: Option<Said>,
    /// Answered or timed out: nobody waits any more.
    over: bool,
    deadline: Time,
    /// When a claim comes too late to be made, by the store's clock as its node knew it (decisions/024).
    late_after: UnixTime,
}

#[derive(Debug, Clone, Copy)]
enum Caller {
    Session {
        link: usize,
        ask: u32,
    },
    Task(usize),
    /// Nobody waits for the answer.
    Nobody,
}

#[derive(Debug, Clone)]
pub(super) enum Asked {
    Find(usize),
    Claim(Vec<ClaimRequest>),
    Settle(Settlements),
    Acknowledge(Vec<(RowKey, Fingerprint)>),
}

#[derive(Debug)]
enum Said {
    Found(Box<Found>),
    Claimed(Vec<Claimed>),
    Settled,
    Failed,
}

/// Settling that goes on without its session.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) node: usize,
    start: u32,
    pub(super) settlements: Settlements,
    since: Time,
    pause: Time,
    /// A call of it got lost or took long although nothing else stood between its node and the store.
    pub(super) hindered: bool,
    /// The session that waits for it.
    pub(super) waiter: Option<(usize, u32)>,
    pub(super) done: bool,
}

impl World {
    // === There.

    pub(super) fn asks_store(&mut self, link: usize, ask: u32, what: Asked) {
        let node = self.links[link].node;
        self.call(node, Caller::Session { link, ask }, what);
    }

    pub(super) fn acknowledges(&mut self, node: usize, delivered: Vec<(RowKey, Fingerprint)>) {
        self.call(node, Caller::Nobody, Asked::Acknowledge(delivered));
    }

    fn call(&mut self, node: usize, from: Caller, what: Asked) {
        let (start, deadline) = (self.nodes[node].start, self.now + CALL_TIMEOUT);
        let call = self.calls.len();
        let late_after = self.store.time(self.now).plus(CLAIM_DEADLINE);
        let dead = matches!(&what, Asked::Claim(requests) if requests.iter().any(|request| {
            !self.may_send(node, request.attempt.owner)
        }));
        self.calls.push(Call { node, start, from, what, answer: None, over: false, deadline, late_after });
        let cut_off = self.store.is_shared() && self.nodes[node].names.is_cut_off(self.now);
        if dead || cut_off {
            self.saw(if dead { Seen::DeadOwner } else { Seen::CallsLost });
            self.calls[call].answer = Some(Said::Failed);
            self.plan_in(0, Happening::Answered { call });
            return;
        }
        let delay = self.call_delay();
        if !self.store.is_shared() {
            // In order. The store is on the same machine: no call is lost.
            self.store_busy = self.store_busy.max(self.now + delay);
            if self.store_busy > deadline {
                self.queue.plan(deadline, Happening::TimedOut { call });
            }
            self.queue.plan(self.store_busy, Happening::Executes { call });
            return;
        }
        let lost = self.nodes[node].parted || self.random.permille(self.plan.lose_call);
        if let Caller::Task(task) = from {
            self.tasks[task].hindered |= lost || delay > QUICK;
        }
        if lost {
            self.saw(Seen::CallsLost);
        } else {
            self.plan_in(delay, Happening::Executes { call });
        }
        if self.random.permille(self.plan.twice) && !lost {
            self.saw(Seen::CallsTwice);
            let late = self.random.pick([0, 100, 5 * SECOND, 90 * SECOND]);
            self.plan_in(delay + late, Happening::Executes { call });
        }
        if lost || self.now + delay > deadline {
            self.queue.plan(deadline, Happening::TimedOut { call });
        }
    }

    fn call_delay(&mut self) -> Time {
        if self.random.permille(self.plan.delay) {
            return self.random.pick([500, 1900, 2100, 4100, 30 * SECOND]);
        }
        self.random.between(1, QUICK)
    }

    /// The store does what it was asked to.
    pub(super) fn executes(&mut self, call: usize) {
        let Call { node, start, deadline, over, .. } = self.calls[call];
        let shared = self.store.is_shared();
        let settles = matches!(self.calls[call].what, Asked::Settle(_) | Asked::Acknowledge(_));
        let is_dead = !self.nodes[node].up || self.nodes[node].start != start;
        if !shared && (is_dead || (over && !settles)) {
            return;
        }
        if self.store.down {
            self.saw(Seen::CallsLost);
            // Down may mean: refuses at once.
            if self.random.permille(500) && !over {
                self.calls[call].answer.get_or_insert(Said::Failed);
                self.plan_in(1, Happening::Answered { call });
            } else {
                self.queue.plan(deadline.max(self.now), Happening::TimedOut { call });
            }
            return;
        }
        let what = self.calls[call].what.clone();
        let answer = match what {
            Asked::Find(row) => self.finds(call, row),
            Asked::Claim(requests) => self.claims(call, &requests),
            Asked::Settle(settlements) => {
                for settlement in settlements {
                    self.settles_one(settlement);
                }
                Said::Settled
            }
            Asked::Acknowledge(delivered) => {
                // As for claims: later, it might be about the same message's next delivery.
                if !shared || self.store.time(self.now) <= self.calls[call].late_after {
                    for (row, message) in delivered {
                        self.forgets(row, message);
                    }
                }
                Said::Settled
            }
        };
        if over || self.calls[call].answer.is_some() {
            return;
        }
        self.calls[call].answer = Some(answer);
        let delay = if shared { self.call_delay() } else { 0 };
        let lost = shared && (self.nodes[node].parted || self.random.permille(self.plan.lose_answer));
        if lost {
            self.saw(Seen::AnswersLost);
        } else {
            self.plan_in(delay, Happening::Answered { call });
        }
        if lost || self.now + delay > deadline {
            self.queue.plan(deadline.max(self.now), Happening::TimedOut { call });
        }
    }

    /// The connection whose session made this call, whether or not it still waits.
    fn came_from(&self, call: usize) -> Option<usize> {
        match self.calls[call].from {
            Caller::Session { link, .. } => Some(link),
            _ => None,
        }
    }

    /// The connection that still waits for this call.
    fn asker(&self, call: usize) -> Option<usize> {
        match self.calls[call].from {
            Caller::Session { link, ask } if self.links[link].awaits(ask) => Some(link),
            _ => None,
        }
    }

    fn finds(&mut self, call: usize, row: usize) -> Said {
        let now = self.store.time(self.now);
        let mut ledger = self.store.rows[row].ledger.clone();
        if let Some(link) = self.asker(call) {
            self.looks(link, row);
        }
        if self.sabotage == Some(Sabotage::RcptHidesAlready) {
            // What is held stays held; only whom it is held for is not known.
            ledger.kept.iter_mut().for_each(|kept| kept.sender.0 = [0xff; 8]);
        }
        let alias = &self.fixture.aliases[row];
        Said::Found(Box::new(Found { row: alias.row, ledger, sealed: alias.sealed.clone(), now }))
    }

    fn claims(&mut self, call: usize, requests: &[ClaimRequest]) -> Said {
        if self.store.is_shared() && self.store.time(self.now) > self.calls[call].late_after {
            self.saw(Seen::Overdue);
            return Said::Failed;
        }
        let mut answers = vec![];
        for request in requests {
            let luck = self.random.next();
            let (node, now, sabotage) = (self.calls[call].node, self.now, self.sabotage);
            let names = &self.nodes[node].names;
            let judged = self.store.claim(request, now, luck, |owner| names.spares(owner, now, sabotage));
            self.claimed(request, &judged, node, self.came_from(call));
            if let Some(link) = self.asker(call) {
                self.sees_claim(link, request);
            }
            answers.push(Claimed { answer: judged.answer, limits: judged.limits, used: judged.used });
        }
        Said::Claimed(answers)
    }

    fn settles_one(&mut self, (row, attempt, outcome): (RowKey, Attempt, Outcome)) {
        let luck = self.random.next();
        if self.store.is_past_retention(row, attempt, self.now) {
            self.truth.settled_in_vain(attempt);
        }
        let settled = self.store.settle(row, attempt, outcome, self.now, luck);
        let seen = match (outcome, settled) {
            (_, None | Some(Settled::Stale)) => return,
            (Outcome::Delivered, _) => Seen::SettledDelivered,
            (_, Some(Settled::Keep(_))) => Seen::InDoubt,
            (_, Some(Settled::Spend)) => Seen::SpentByRefusal,
            (_, Some(Settled::GiveBack)) => Seen::GivenBack,
        };
        self.note(|_| format!("store: attempt {:x} is {outcome:?}: {}", attempt.number, seen.text()));
        self.saw(seen);
        if outcome == Outcome::Delivered {
            self.truth.settled(attempt);
        }
        self.tempts_fate();
    }

    fn forgets(&mut self, row: RowKey, message: Fingerprint) {
        if self.store.acknowledge(row, message, self.now) {
            self.saw(Seen::Acknowledged);
            self.tempts_fate();
            self.note(|_| format!("store: message {:02x} is acknowledged", message.0[0]));
        }
    }

    // === And back.

    pub(super) fn answered(&mut self, call: usize) {
        if !self.is_awaited(call) {
            return;
        }
        let Some(answer) = self.calls[call].answer.take() else { return };
        if let (Said::Claimed(claimed), Asked::Claim(requests)) = (&answer, &self.calls[call].what)
            && self.asker(call).is_some()
        {
            let requests = requests.clone();
            self.begins(self.calls[call].node, &requests, claimed);
        }
        match (self.calls[call].from, answer) {
            (Caller::Task(task), Said::Settled) => self.is_settled(task),
            (Caller::Task(task), _) => self.settles_later(task),
            (Caller::Session { link, ask }, answer) => {
                let answered = match answer {
                    Said::Found(found) => Answered::Event(Event::Found(Ok(Some(*found)))),
                    Said::Claimed(claimed) => Answered::Claimed(claimed),
                    Said::Settled | Said::Failed => Answered::StoreDown,
                };
                self.answers(link, ask, answered);
            }
            (Caller::Nobody, _) => {}
        }
    }

    pub(super) fn timed_out(&mut self, call: usize) {
        if !self.is_awaited(call) {
            return;
        }
        self.saw(Seen::CallsTimedOut);
        match self.calls[call].from {
            Caller::Task(task) => self.settles_later(task),
            Caller::Session { link, ask } => self.answers(link, ask, Answered::StoreDown),
            Caller::Nobody => {}
        }
    }

    /// Whether anybody still waits for this call; from now on nobody does.
    fn is_awaited(&mut self, call: usize) -> bool {
        let it = &mut self.calls[call];
        let node = &self.nodes[it.node];
        let awaited = !it.over && node.up && node.start == it.start;
        it.over = true;
        awaited
    }

    // === Settling.

    /// Settles in the background; the number of the task.
    pub(super) fn settle(&mut self, node: usize, settlements: Settlements) -> usize {
        let start = self.nodes[node].start;
        let task = self.tasks.len();
        let it = Task {
            node,
            start,
            settlements,
            since: self.now,
            pause: FIRST_PAUSE,
            hindered: false,
            waiter: None,
            done: false,
        };
        self.tasks.push(it);
        self.settles(task);
        task
    }

    pub(super) fn settles(&mut self, task: usize) {
        let Task { node, start, done, .. } = self.tasks[task];
        if done || self.nodes[node].start != start {
            return;
        }
        let settlements = self.tasks[task].settlements.clone();
        self.call(node, Caller::Task(task), Asked::Settle(settlements));
    }

    fn settles_later(&mut self, task: usize) {
        let it = &mut self.tasks[task];
        let pause = it.pause;
        it.pause = (pause * 2).min(LONGEST_PAUSE);
        self.plan_in(pause, Happening::Retries { task });
    }

    fn is_settled(&mut self, task: usize) {
        self.tasks[task].done = true;
        let (node, settlements) = (self.tasks[task].node, self.tasks[task].settlements.clone());
        for (_, attempt, _) in settlements {
            self.is_over(node, attempt);
        }
        if self.now - self.tasks[task].since >= LONG {
            self.saw(Seen::SettledLate);
        }
        if let Some((link, ask)) = self.tasks[task].waiter {
            self.answers(link, ask, Answered::Event(Event::Settled));
        }
    }
}

/// Which of the store's answers this is, in the tally.
pub(super) fn seen(answer: Answer) -> Seen {
    match answer {
        Answer::Already => Seen::Already,
        Answer::Busy => Seen::Busy,
        Answer::Over => Seen::Over,
        Answer::Again => Seen::Again,
        Answer::Granted => Seen::Granted,
        Answer::Uncounted => Seen::Uncounted,
    }
}

/// Which node an owner is.
pub(super) fn node_of(owner: Owner) -> u64 {
    owner.node
}
