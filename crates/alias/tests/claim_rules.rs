//! The claim rules under random interleavings: one alias, N uses, one or two nodes, crashes, lost verdicts, lost
//! replies, refusals. After each run, with every sender's queue drained, the promises P1 to P3 must hold; and
//! each of them must break when the rule behind it is broken on purpose.

use std::collections::HashMap;

use tempalias_alias::{
    Answer, Attempt, ClaimRequest, Fingerprint, Kept, KeptState, Ledger, Limits, Outcome, Owner, RowKey,
    SenderTag, Settled, State, UnixTime,
};

const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

/// A rule broken on purpose, to see that the model notices.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Sabotage {
    None,
    NoLimit,
    InFlightIsAgain,
    RcptHidesAlready,
    FreedAfterDoubt,
}

/// A split-mix generator: enough for choosing steps, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn percent(&mut self, p: u64) -> bool {
        self.next() % 100 < p
    }
}

/// Where one attempt stands between two steps.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Rcpt,
    Claim,
    Dot,
    Verdict { accepted: bool },
    Reply,
    Acknowledge,
}

#[derive(Clone, Copy)]
struct Task {
    message: u8,
    attempt: Attempt,
    step: Step,
    /// Its sender gave up waiting after the dot; what becomes of it, nobody hears.
    abandoned: bool,
}

struct World {
    random: Random,
    ledger: Ledger,
    boots: [u64; 2],
    accepted: HashMap<u8, u32>,
    excused_duplicates: HashMap<u8, u32>,
    told: HashMap<u8, u16>,
    lost_uses: u32,
    /// Refused for good after doubt while the sender had gone: whatever it hears later is a refusal too.
    refused_unheard: Vec<u8>,
    loss: u64,
    refuse: u64,
    attempts: u64,
    sabotage: Sabotage,
}

fn fingerprint(message: u8) -> Fingerprint {
    Fingerprint([message; 16])
}

impl World {
    fn new(seed: u64, sabotage: Sabotage) -> Self {
        let mut random = Random(seed);
        let uses = [1, 1, 2, 3][random.below(4)];
        let limits =
            Limits { valid_from: None, valid_until: None, max_usage: std::num::NonZeroU32::new(uses) };
        Self {
            ledger: Ledger { limits, state: State::Active, used: 0, kept: vec![] },
            boots: [0, 0],
            accepted: HashMap::new(),
            excused_duplicates: HashMap::new(),
            told: HashMap::new(),
            lost_uses: 0,
            refused_unheard: vec![],
            loss: [0, 10, 30][random.below(3)],
            refuse: [0, 15][random.below(2)],
            attempts: 0,
            sabotage,
            random,
        }
    }

    fn uses(&self) -> u32 {
        self.ledger.limits.max_usage.unwrap().get()
    }

    fn is_dead(&self, attempt: Attempt) -> bool {
        self.boots[attempt.owner.node as usize] != attempt.owner.boot
    }

    fn claim(&mut self, task: &Task) -> Answer {
        let boots = self.boots;
        let sabotage = self.sabotage;
        let request = ClaimRequest {
            row: RowKey([0; 16]),
            fingerprint: fingerprint(task.message),
            was_counted: true,
            identified: true,
            sender: SenderTag([task.message; 8]),
            attempt: task.attempt,
        };
        let alive = |o: Owner| boots[o.node as usize] == o.boot && sabotage != Sabotage::InFlightIsAgain;
        let mut ledger = self.ledger.clone();
        if sabotage == Sabotage::NoLimit {
            ledger.limits.max_usage = std::num::NonZeroU32::new(1000);
        }
        let verdict = ledger.claim(&request, NOW, alive);
        self.ledger.used = verdict.used;
        if let Some(kept) = verdict.write {
            self.ledger.kept.retain(|k| k.fingerprint != kept.fingerprint);
            self.ledger.kept.push(kept);
        }
        verdict.answer
    }

    fn settle(&mut self, task: &Task, outcome: Outcome) {
        let Some(at) = self.ledger.kept.iter().position(|k| k.fingerprint == fingerprint(task.message))
        else {
            return;
        };
        let mut kept: Kept = self.ledger.kept[at];
        if self.sabotage == Sabotage::FreedAfterDoubt {
            kept.clean = true;
        }
        match kept.settle(task.attempt, outcome) {
            Settled::Stale => {}
            Settled::Keep(new) => self.ledger.kept[at] = new,
            Settled::Spend => {
                self.ledger.kept.remove(at);
                if task.abandoned {
                    self.refused_unheard.push(task.message);
                }
                // A sender that never heard the refusal comes again, and its message then takes a new use.
                if task.abandoned || !self.accepted.contains_key(&task.message) {
                    self.lost_uses += 1;
                }
            }
            Settled::GiveBack => {
                self.ledger.kept.remove(at);
                self.ledger.used -= 1;
            }
        }
    }

    /// One step of one attempt; the sender's answer once there is one (0: the connection broke).
    fn step(&mut self, task: &mut Task) -> Option<u16> {
        let sender = SenderTag([task.message; 8]);
        if self.is_dead(task.attempt) {
            if let Step::Verdict { accepted: true } | Step::Reply = task.step {
                *self.excused_duplicates.entry(task.message).or_default() += 1;
            }
            return Some(0);
        }
        match task.step {
            Step::Rcpt => {
                use tempalias_alias::Admission::{Alive, Held, Over};
                let expected =
                    self.ledger.expects(sender, NOW) && self.sabotage != Sabotage::RcptHidesAlready;
                match self.ledger.admit(NOW) {
                    Alive => {}
                    _ if expected => {}
                    _ if self.sabotage == Sabotage::NoLimit => {}
                    Held => return Some(450),
                    Over => return Some(550),
                }
                task.step = Step::Claim;
            }
            Step::Claim => match self.claim(task) {
                Answer::Over => return Some(550),
                Answer::Busy => return Some(450),
                Answer::Already => task.step = Step::Reply,
                _ => task.step = Step::Dot,
            },
            Step::Dot => {
                let accepted = !self.random.percent(self.refuse);
                if accepted {
                    *self.accepted.entry(task.message).or_default() += 1;
                }
                task.step = Step::Verdict { accepted };
            }
            Step::Verdict { accepted } => {
                if self.random.percent(self.loss) {
                    if accepted {
                        *self.excused_duplicates.entry(task.message).or_default() += 1;
                    }
                    self.settle(task, Outcome::Lost);
                    return Some(451);
                }
                if !accepted {
                    let (outcome, code) = if self.random.percent(50) {
                        (Outcome::Refused, 554)
                    } else {
                        (Outcome::Deferred, 452)
                    };
                    self.settle(task, outcome);
                    return Some(code);
                }
                self.settle(task, Outcome::Delivered);
                task.step = Step::Reply;
            }
            Step::Reply => {
                if task.abandoned || self.random.percent(self.loss) {
                    return Some(0);
                }
                self.told.insert(task.message, 250);
                task.step = Step::Acknowledge;
            }
            Step::Acknowledge => {
                if self.random.percent(80) {
                    self.ledger.kept.retain(|k| !k.is_acknowledged_by(fingerprint(task.message)));
                }
                return Some(250);
            }
        }
        None
    }

    /// Plays until every sender has its final answer, then names what broke.
    fn run(mut self) -> Result<(), String> {
        let messages = [1, 2, 3, 5][self.random.below(4)];
        let nodes = 1 + self.random.below(2);
        let mut crashes = [0, 1, 3, 6][self.random.below(4)];
        let mut waiting: Vec<u8> = (0..messages).collect();
        let mut tasks: Vec<Task> = vec![];
        let mut done = HashMap::new();
        for _ in 0..6000 {
            if waiting.is_empty() && tasks.is_empty() {
                return self.check(&done);
            }
            if crashes > 0 && self.random.percent(3) {
                let node = self.random.below(nodes);
                self.boots[node] += 1;
                crashes -= 1;
            }
            if !waiting.is_empty() && (tasks.is_empty() || self.random.percent(40)) {
                let message = waiting.swap_remove(self.random.below(waiting.len()));
                let node = self.random.below(nodes);
                self.attempts += 1;
                let owner = Owner { node: node as u64, boot: self.boots[node] };
                let attempt = Attempt { owner, number: self.attempts };
                tasks.push(Task { message, attempt, step: Step::Rcpt, abandoned: false });
                continue;
            }
            let at = self.random.below(tasks.len());
            let past_dot = !matches!(tasks[at].step, Step::Rcpt | Step::Claim | Step::Acknowledge);
            if past_dot && !tasks[at].abandoned && self.random.percent(10) {
                tasks[at].abandoned = true;
                waiting.push(tasks[at].message);
            }
            if let Some(code) = self.step(&mut tasks[at]) {
                let task = tasks.swap_remove(at);
                match code {
                    _ if task.abandoned => {}
                    250 | 550 | 554 => drop(done.insert(task.message, code)),
                    _ => waiting.push(task.message),
                }
            }
        }
        Err(format!("stuck: {:?}", self.ledger))
    }

    fn check(&self, done: &HashMap<u8, u16>) -> Result<(), String> {
        if self.accepted.len() as u32 > self.uses() {
            return Err(format!("{} messages through {} uses", self.accepted.len(), self.uses()));
        }
        for message in self.told.keys() {
            if !self.accepted.contains_key(message) {
                return Err("250 without a delivery".into());
            }
        }
        for (message, times) in &self.accepted {
            if times - 1 > self.excused_duplicates.get(message).copied().unwrap_or(0) {
                return Err("a duplicate without a cause".into());
            }
            if done.get(message) == Some(&550) && !self.refused_unheard.contains(message) {
                return Err("delivered, but its sender was told 550".into());
            }
        }
        let doubtful = self.ledger.kept.iter().filter(|k| k.state != KeptState::Delivered).count() as u32;
        if self.ledger.used > self.accepted.len() as u32 + doubtful + self.lost_uses {
            return Err(format!("a use was lost: {:?}", self.ledger));
        }
        Ok(())
    }
}

#[test]
fn the_promises_hold_in_any_order_of_events() {
    for seed in 0..60_000 {
        if let Err(broken) = World::new(seed, Sabotage::None).run() {
            panic!("seed {seed}: {broken}");
        }
    }
}

#[test]
fn each_rule_is_needed() {
    for sabotage in
        [Sabotage::NoLimit, Sabotage::InFlightIsAgain, Sabotage::RcptHidesAlready, Sabotage::FreedAfterDoubt]
    {
        let broken = (0..15_000).any(|seed| World::new(seed, sabotage).run().is_err());
        assert!(broken, "{sabotage:?} went unnoticed");
    }
}
