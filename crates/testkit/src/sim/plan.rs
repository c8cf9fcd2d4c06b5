//! What a seed draws before its run begins: who takes part, and how bad the weather is.

use super::queue::Time;
use super::random::Random;

pub(super) const SECOND: Time = 1000;
pub(super) const MINUTE: Time = 60 * SECOND;
pub(super) const HOUR: Time = 60 * MINUTE;
pub(super) const DAY: Time = 24 * HOUR;

/// How likely each fault is, in a thousand, and how long things take.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// One node with a file, or several that share a store.
    pub(super) shared: bool,
    pub(super) nodes: usize,
    pub(super) senders: usize,
    /// Each connection of a sender is cut at some write.
    pub(super) cut: u64,
    /// The next hop refuses a command, or a message.
    pub(super) refuse: u64,
    /// The next hop's connection breaks at a command, a message or a verdict.
    pub(super) hop_cut: u64,
    /// The next hop answers late, maybe too late.
    pub(super) slow: u64,
    /// The next hop talks nonsense.
    pub(super) nonsense: u64,
    pub(super) pipelines: bool,
    /// A call to the store gets lost on its way, or its answer does.
    pub(super) lose_call: u64,
    pub(super) lose_answer: u64,
    /// A call is carried out twice.
    pub(super) twice: u64,
    /// A call or an answer takes seconds.
    pub(super) delay: u64,
    /// A session's task dies on its own, at each of its steps.
    pub(super) panic: u64,
    pub(super) crashes: u64,
    pub(super) pauses: u64,
    pub(super) partitions: u64,
    pub(super) outages: u64,
    pub(super) power_losses: u64,
    pub(super) clock_steps: u64,
    pub(super) owner_acts: u64,
    /// Steps of a node after which it is killed or paused.
    pub(super) fuse: u64,
}

impl Plan {
    pub(super) fn draw(random: &mut Random) -> Self {
        let shared = random.permille(600);
        let calm = random.permille(150);
        let mut rate = |choices: [u64; 4]| if calm { 0 } else { random.pick(choices) };
        let mut plan = Self {
            shared,
            nodes: 1,
            senders: 1,
            cut: rate([0, 100, 300, 600]),
            refuse: rate([0, 0, 30, 150]),
            hop_cut: rate([0, 20, 60, 150]),
            slow: rate([0, 0, 20, 100]),
            nonsense: rate([0, 0, 0, 20]),
            pipelines: true,
            lose_call: rate([0, 0, 20, 150]),
            lose_answer: rate([0, 0, 20, 150]),
            twice: rate([0, 0, 50, 200]),
            delay: rate([0, 0, 30, 150]),
            panic: rate([0, 0, 0, 5]),
            crashes: rate([0, 1, 1, 3]),
            pauses: rate([0, 0, 1, 2]),
            partitions: rate([0, 0, 1, 2]),
            outages: rate([0, 0, 0, 1]),
            power_losses: rate([0, 0, 1, 1]),
            clock_steps: rate([0, 0, 0, 1]),
            owner_acts: rate([0, 0, 0, 2]),
            fuse: rate([20, 60, 120, 250]).max(10),
        };
        plan.pipelines = random.permille(700);
        plan.senders = usize::try_from(random.pick([1u64, 1, 2, 3])).unwrap_or(1);
        if shared {
            plan.nodes = usize::try_from(random.pick([1u64, 2, 2, 3])).unwrap_or(1);
        }
        plan
    }
}
