//! What happened, counted: so that a reader sees that the faults were real, and two machines can compare.

use super::random::mix;

macro_rules! seen {
    ($($(#[$doc:meta])* $name:ident => $text:literal;)*) => {
        /// Something worth counting.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Seen {
            $($(#[$doc])* $name,)*
        }

        impl Seen {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// In words.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

seen! {
    /// Senders' messages.
    Messages => "messages that senders wanted delivered";
    /// Sessions opened.
    Sessions => "sessions";
    /// Messages told 250, for one recipient.
    Told250 => "recipients for whom a sender read 250";
    /// Told 5xx.
    Bounced => "recipients for whom a sender read 5xx";
    /// Queue lifetime over.
    GaveUp => "recipients that a sender gave up on after five days";
    /// The same, after at least three times 451 because recipients differ.
    Starved => "of these, after being told again and again that recipients differ";
    /// Never came back.
    NeverCameBack => "recipients whose sender never came back";
    /// Acceptances at a next hop.
    Accepted => "messages accepted by a next hop, for one recipient";
    /// *Granted*.
    Granted => "claims answered Granted";
    /// *Again*.
    Again => "claims answered Again";
    /// *Again*, the attempt before was another node's.
    TakenOver => "of these, taken over from another node";
    /// *Already*.
    Already => "claims answered Already";
    /// *Busy*.
    Busy => "claims answered Busy";
    /// *Over*.
    Over => "claims answered Over";
    /// *Uncounted*.
    Uncounted => "claims answered Uncounted";
    /// A dead owner's claim.
    DeadOwner => "claims not made because the node's lease was over";
    /// A claim that came when nobody waited for it any more.
    Overdue => "claims that came after their deadline";
    /// A claim that came after its settlement.
    LateClaims => "claims that arrived after their attempt was settled";
    /// Settled as delivered.
    SettledDelivered => "claims settled as delivered";
    /// Given back.
    GivenBack => "uses given back";
    /// In doubt.
    InDoubt => "claims left in doubt";
    /// Refused after doubt.
    SpentByRefusal => "uses spent by a refusal after doubt";
    /// Forgotten on purpose.
    Acknowledged => "claims forgotten because the sender read 250";
    /// Forgotten after five days.
    Expired => "claims forgotten after five days";
    /// Held uses freed.
    Freed => "uses freed by an owner";
    /// A settlement for which the store was away for long.
    SettledLate => "settlements that waited ten minutes or longer for the store";
    /// 451 because recipients differ.
    Disagreements => "451 because recipients differ";
    /// Some of several recipients got it, others had it.
    Partial => "messages sent to some recipients while others had them already";
    /// RCPT answered 250 without dialling.
    Expected => "recipients taken because their retry was expected";
    /// kill -9.
    Crashes => "nodes killed";
    /// kill -9 between claim and settlement.
    CrashesPastDot => "mails past their dot when their node was killed";
    /// SIGSTOP.
    Pauses => "nodes paused";
    /// Cut off from the store.
    Partitions => "nodes cut off from the store";
    /// A lease that ended while its node lived.
    LeasesLost => "leases lost by a living node";
    /// The same, with a mail past its claim.
    LeasesLostPastClaim => "mails past their claim when their node lost its lease";
    /// The fence held a dot back.
    Fenced => "dots held back because the lease might be over";
    /// The store was down.
    StoreOutages => "store outages";
    /// Power loss.
    PowerLosses => "power losses of the store";
    /// The master died, and a replica took over.
    Failovers => "failovers of the store";
    /// What the replica had not.
    WritesLost => "settlements and acknowledgements lost by a failover";
    /// Uses that the replica did not know of.
    UsesLost => "uses whose grant a failover lost, where claims are not waited for";
    /// More messages than uses, for that.
    OverLimit => "messages beyond an alias's limit, each for a claim that a failover lost";
    /// Leases that the replica did not have, or not so long.
    LeasesCut => "leases that a failover lost or cut short";
    /// A node that met another server.
    NamesLaidDown => "nodes that took another name after a failover";
    /// Renewed under a former name.
    FormerKept => "former names that were kept, for what was under way";
    /// And let go.
    FormerEnded => "former names that ended with what was under way";
    /// The clock stepped.
    ClockSteps => "steps of the store's clock";
    /// A request lost.
    CallsLost => "store calls lost or failed";
    /// An answer lost.
    AnswersLost => "store answers lost";
    /// A call executed twice.
    CallsTwice => "store calls carried out twice";
    /// Timed out.
    CallsTimedOut => "store calls that timed out";
    /// Connection of a sender cut.
    SenderCuts => "senders' connections cut";
    /// Gave up waiting for our reply to its dot.
    SenderImpatient => "senders that gave up waiting";
    /// Next hop's connection lost.
    HopCuts => "next hops' connections lost";
    /// The verdict never came.
    VerdictsLost => "verdicts of a next hop lost after it had accepted";
    /// 4xx and 5xx of the next hop.
    HopRefusals => "refusals of a next hop";
    /// A session's task died.
    Panics => "sessions that died on their own";
    /// An acknowledgement by something sent before our 250 was read.
    Crossings => "commands that crossed our 250 and passed for its receipt";
    /// Excused duplicate.
    DuplicateVerdictLost => "duplicates: the next hop's answer was lost";
    /// Excused duplicate.
    DuplicateReaderDied => "duplicates: its reader died before it was settled";
    /// Excused duplicate.
    DuplicateUnsettled => "duplicates: a failover lost that it was settled";
    /// Excused duplicate.
    DuplicateClaimLost => "duplicates: a failover lost its claim";
    /// Excused duplicate.
    DuplicateLeaseLost => "duplicates: a failover lost the lease of a living node";
    /// Excused duplicate.
    DuplicateUnidentified => "duplicates: no Message-ID, and our 250 was not read";
    /// Excused duplicate.
    DuplicateUncounted => "duplicates: an uncounted alias, and our 250 was not read";
    /// Excused duplicate.
    DuplicateCrossed => "duplicates: a command crossed our 250";
    /// Excused duplicate.
    DuplicateLate => "duplicates: the retry came after five days";
    /// Excused duplicate.
    DuplicateAbandoned => "duplicates: an attempt that its sender had given up came after its retry";
    /// Excused duplicate.
    DuplicateOvertaken => "duplicates: the store's clock jumped, and a living node passed for dead";
    /// Not a duplicate at all.
    SentOnPurpose => "the same message sent twice on purpose, and delivered twice";
    /// Excused use that the next hop was never given.
    HeldForNobody => "uses held for an attempt that its sender had given up before it was claimed for";
    /// Excused use that the next hop was never given.
    HeldAfterLoss => "uses held although given back, because a failover lost that and the claim after it";
    /// Excused use that the next hop was never given.
    ForgottenByJump => "uses in doubt that the clock's jump made forgotten before their retry";
    /// Excused break of the fence.
    ClockExcuses => "dots sent although taken over, because the store's clock jumped";
    /// Excused break of the fence.
    FailoverExcuses => "dots sent although taken over, because a failover lost the claim or its node's lease";
    /// Runs.
    Events => "events";
}

/// Counters, and a hash over everything that was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    counts: Vec<u64>,
    digest: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: vec![0; Seen::ALL.len()], digest: 0 }
    }
}

impl Tally {
    pub(super) fn add(&mut self, what: Seen, times: u64) {
        self.counts[what as usize] += times;
    }

    /// How often it happened.
    pub fn count(&self, what: Seen) -> u64 {
        self.counts[what as usize]
    }

    /// Closes a run: `outcome` is what it ended with.
    pub(super) fn seal(&mut self, seed: u64, outcome: u64) {
        let counted = self.counts.iter().fold(mix(seed), |hash, count| mix(hash.wrapping_add(*count)));
        self.digest = mix(counted ^ outcome);
    }

    /// Takes another run in. The order in which runs are taken in does not matter.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.digest = self.digest.wrapping_add(other.digest);
    }

    /// A hash over the outcomes of all runs taken in.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}
