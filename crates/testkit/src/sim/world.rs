//! Everything that takes part in a run, and the one loop.

use tempalias_alias::{Ledger, Limits, Owner, State};

use super::calls::{Call, Task};
use super::failover;
use super::fixture::{ALIASES, Fixture};
use super::hop::Hop;
use super::link::Link;
use super::nodes::Node;
use super::plan::{DAY, HOUR, MINUTE, Plan, SECOND};
use super::queue::{Queue, Time};
use super::random::Random;
use super::sabotage::Sabotage;
use super::senders::{Entry, Sender};
use super::store::{Act, Row, Store};
use super::tally::{Seen, Tally};
use super::truth::Truth;
use crate::machine::contract;

/// Events after which a run is taken for endless.
const MANY: u64 = 200_000;

/// Something that is going to happen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Happening {
    /// A sender tries an entry of its queue. Old plans carry an old number.
    Try {
        entry: usize,
        number: u32,
    },
    /// A sender's octets arrive.
    Arrives {
        link: usize,
    },
    /// The node sees that the sender's connection is gone.
    Gone {
        link: usize,
    },
    /// Our replies arrive.
    Replies {
        link: usize,
    },
    /// A sender has waited long enough for a reply; it waits for the next one by now if `step` differs.
    Tired {
        link: usize,
        step: u32,
    },
    /// A session's deadline.
    Timer {
        link: usize,
    },
    /// The answer to `ask` is ready.
    Ready {
        link: usize,
        ask: u32,
    },
    /// A call reaches the store.
    Executes {
        call: usize,
    },
    /// Its answer reaches the node.
    Answered {
        call: usize,
    },
    /// The node waits no longer.
    TimedOut {
        call: usize,
    },
    /// A settlement is tried again.
    Retries {
        task: usize,
    },
    /// A dot reaches the next hop.
    Dot {
        hop: usize,
    },
    /// What a next hop said reaches us.
    Says {
        hop: usize,
    },
    Starts {
        node: usize,
    },
    Pauses {
        node: usize,
    },
    Wakes {
        node: usize,
    },
    Parts {
        node: usize,
    },
    Rejoins {
        node: usize,
    },
    ConnectsToStore {
        node: usize,
    },
    /// A renewal is due that finds something new.
    Renews {
        node: usize,
    },
    FailsOver,
    StoreDown,
    StoreUp,
    PowerLoss,
    ClockSteps,
    Owner {
        row: usize,
        act: Act,
    },
    Sweeps,
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) random: Random,
    /// For what came later, so that older seeds go on as they were where nothing new happens.
    pub(super) weather: Random,
    pub(super) queue: Queue<Happening>,
    pub(super) fixture: &'static Fixture,
    pub(super) plan: Plan,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) store: Store,
    pub(super) nodes: Vec<Node>,
    pub(super) links: Vec<Link>,
    pub(super) hops: Vec<Hop>,
    pub(super) calls: Vec<Call>,
    pub(super) tasks: Vec<Task>,
    pub(super) senders: Vec<Sender>,
    pub(super) entries: Vec<Entry>,
    pub(super) truth: Truth,
    pub(super) contract: contract::Truth,
    pub(super) tally: Tally,
    pub(super) trace: Option<Vec<String>>,
    pub(super) broken: Option<String>,
    /// When the embedded store has done what was asked of it so far.
    pub(super) store_busy: Time,
    boots: u64,
    /// Failovers that are still to come.
    pub(super) failovers: u64,
}

impl World {
    pub(super) fn new(seed: u64, sabotage: Option<Sabotage>, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let fixture = Fixture::get();
        let plan = Plan::draw(&mut random);
        let rows = rows(&mut random, fixture);
        let mut world = Self {
            now: 0,
            store: Store::new(plan.shared, failover::draw_waits(seed), rows, sabotage),
            queue: Queue::new(),
            fixture,
            sabotage,
            nodes: vec![],
            links: Vec::with_capacity(16),
            hops: Vec::with_capacity(16),
            calls: Vec::with_capacity(64),
            tasks: vec![],
            senders: vec![],
            entries: vec![],
            truth: Truth::default(),
            contract: contract::Truth::default(),
            tally: Tally::default(),
            trace: traced.then(Vec::new),
            broken: None,
            store_busy: 0,
            boots: 0,
            weather: Random::new(seed.rotate_left(32) ^ !seed),
            failovers: if plan.shared { failover::draw(seed) } else { 0 },
            plan,
            random,
        };
        world.note(|world| format!("{:?}", world.plan));
        for node in 0..world.plan.nodes {
            world.add_node(node);
        }
        world.add_senders();
        world.plan_faults();
        world
    }

    /// Plays until nothing more is going to happen.
    pub(super) fn run(&mut self) {
        let mut events = 0;
        while self.broken.is_none() {
            let Some((at, what)) = self.queue.next() else { break };
            self.now = at;
            events += 1;
            if events > MANY {
                self.breaks("the run does not come to rest");
            }
            if let Some(wakes) = self.asleep(what) {
                self.queue.plan(wakes, what);
            } else {
                self.happens(what);
            }
        }
        self.tally.add(Seen::Events, events);
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Try { entry, number } => self.tries(entry, number),
            Happening::Arrives { link } => self.arrives(link),
            Happening::Gone { link } => self.gone(link),
            Happening::Replies { link } => self.replies_arrive(link),
            Happening::Tired { link, step } => self.tired(link, step),
            Happening::Timer { link } => self.timer(link),
            Happening::Ready { link, ask } => self.ready(link, ask),
            Happening::Executes { call } => self.executes(call),
            Happening::Answered { call } => self.answered(call),
            Happening::TimedOut { call } => self.timed_out(call),
            Happening::Retries { task } => self.settles(task),
            Happening::Dot { hop } => self.dot_arrives(hop),
            Happening::Says { hop } => self.hop_says(hop),
            Happening::Starts { node } => self.starts(node),
            Happening::Pauses { node } => self.pauses(node),
            Happening::Wakes { node } => self.wakes(node),
            Happening::Parts { node } => self.parts(node),
            Happening::Rejoins { node } => self.rejoins(node),
            Happening::ConnectsToStore { node } => self.comes_back(node),
            Happening::Renews { node } => self.renews(node),
            Happening::FailsOver => self.fails_over(),
            Happening::StoreDown => self.store_goes(true),
            Happening::StoreUp => self.store_goes(false),
            Happening::PowerLoss => self.power_loss(),
            Happening::ClockSteps => self.clock_steps(),
            Happening::Owner { row, act } => self.owner_acts(row, act),
            Happening::Sweeps => self.sweeps(),
        }
    }

    /// A process that is stopped does nothing; what is meant for it waits.
    fn asleep(&self, what: Happening) -> Option<Time> {
        let node = match what {
            Happening::Arrives { link }
            | Happening::Gone { link }
            | Happening::Timer { link }
            | Happening::Ready { link, .. } => self.links[link].node,
            Happening::Answered { call } | Happening::TimedOut { call } => self.calls[call].node,
            Happening::Executes { call } if !self.store.is_shared() => self.calls[call].node,
            Happening::Retries { task } => self.tasks[task].node,
            Happening::Says { hop } => self.links[self.hops[hop].link].node,
            _ => return None,
        };
        Some(self.nodes[node].asleep_until).filter(|&until| until > self.now)
    }

    pub(super) fn plan_in(&mut self, time: Time, what: Happening) {
        self.queue.plan(self.now + time, what);
    }

    /// A line of the transcript, if somebody wants one.
    pub(super) fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{} {}", clock(self.now), text(self));
            self.trace.iter_mut().for_each(|trace| trace.push(line.clone()));
        }
    }

    pub(super) fn breaks(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(|_| format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    pub(super) fn saw(&mut self, what: Seen) {
        self.tally.add(what, 1);
    }

    pub(super) fn next_owner(&mut self, node: usize) -> Owner {
        self.boots += 1;
        Owner { node: node as u64, boot: self.boots }
    }

    fn plan_faults(&mut self) {
        let plan = self.plan.clone();
        for _ in 0..plan.pauses {
            let (at, node) = (self.some_time(), self.random.index(plan.nodes));
            self.queue.plan(at, Happening::Pauses { node });
        }
        for _ in 0..if plan.shared { plan.partitions } else { 0 } {
            let (at, node) = (self.some_time(), self.random.index(plan.nodes));
            self.queue.plan(at, Happening::Parts { node });
        }
        for (times, what) in [
            (plan.outages, Happening::StoreDown),
            (plan.power_losses, Happening::PowerLoss),
            (plan.clock_steps, Happening::ClockSteps),
        ] {
            for _ in 0..times {
                let at = self.some_time();
                self.queue.plan(at, what);
            }
        }
        for _ in 0..plan.owner_acts {
            let row = self.random.index(self.store.rows.len());
            let acts = [Act::Pause, Act::Resume, Act::Remove, Act::More, Act::More, Act::End, Act::FreeHeld];
            let (at, act) = (self.some_time(), self.random.pick(acts));
            self.queue.plan(at, Happening::Owner { row, act });
            if matches!(act, Act::Pause) {
                let later = self.random.between(SECOND, DAY);
                self.queue.plan(at + later, Happening::Owner { row, act: Act::Resume });
            }
        }
        for _ in 0..2 {
            let at = self.random.between(DAY, 14 * DAY);
            self.queue.plan(at, Happening::Sweeps);
        }
    }

    /// Mostly when much is going on.
    fn some_time(&mut self) -> Time {
        let high = self.random.pick([SECOND, 5 * SECOND, 30 * SECOND, 10 * MINUTE, 6 * HOUR, 6 * DAY]);
        self.random.between(50, high)
    }
}

fn rows(random: &mut Random, fixture: &Fixture) -> Vec<Row> {
    let many = random.pick([1, 1, 1, 2, 2, ALIASES]);
    let row = |alias: &super::fixture::Alias| {
        let most = random.pick([0, 1, 1, 1, 1, 2, 2, 3]);
        let ends = random.pick([MINUTE, HOUR, 30 * HOUR, 60 * DAY, 60 * DAY, 60 * DAY, 60 * DAY, 60 * DAY]);
        let ends = std::time::Duration::from_millis(ends);
        let limits = Limits {
            valid_from: None,
            valid_until: Some(super::leases::begin().plus(ends)),
            max_usage: std::num::NonZeroU32::new(most),
        };
        let ledger = Ledger { limits, state: State::Active, used: 0, kept: vec![] };
        Row { key: alias.row, ledger, grants: vec![], most }
    };
    fixture.aliases[..many].iter().map(row).collect()
}

/// Days, hours, minutes, seconds.
fn clock(now: Time) -> String {
    let (days, rest) = (now / DAY, now % DAY);
    let (hours, minutes) = (rest / HOUR, rest % HOUR / MINUTE);
    format!("{days}d {hours:02}:{minutes:02}:{:02}.{:03}", rest % MINUTE / SECOND, rest % SECOND)
}
