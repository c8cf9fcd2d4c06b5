//! Rules broken on purpose, to see that the simulation notices.

/// A rule that one run breaks. Where the rule lives in `alias` or `relay`, what goes into the machine or comes out of
/// it is changed so that the effect is the same; `tests/broken` breaks the sources themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sabotage {
    /// The machine is told *Granted* at once, and the store hears of the claim only once the dot is out.
    ClaimAfterDot,
    /// What the store answered is not yet on the disk when the power fails.
    NoFsync,
    /// A settlement that is repeated is carried out again.
    SettleTwice,
    /// Any kept claim of the alias is taken for one of this message.
    FingerprintIgnored,
    /// A refusal gives the use back even if an earlier attempt may have arrived.
    FreedAfterDoubt,
    /// A claim in flight under a live owner is taken over.
    InFlightIsAgain,
    /// RCPT does not know of kept claims: it refuses the retry of a message that was delivered.
    RcptHidesAlready,
    /// One recipient is over, the others get the message, and the sender is told 250.
    PartialIs250,
    /// Forgetting a claim after five days gives its use back.
    ExpiryLowersCounter,
    /// A dot leaves although the store may have taken its owner for dead (`Store::may_send`).
    NoFence,
    /// A shared store carries out a claim although its attempt was settled before.
    LateClaim,
    /// A node goes on under its name on the server that took over from the one it knew.
    NameKept,
    /// After a failover a node lets go of its former name although something is under way under it.
    FormerDropped,
    /// Nodes are taken for dead just after a long outage, before they have told how their mail ended.
    NoGrace,
    /// A failover loses claims that were waited for.
    NotWaited,
    /// A node takes over what it has in hand itself, under a name whose lease is over.
    OwnIsDead,
}

impl Sabotage {
    /// All of them. The first nine break a promise; the others a rule that only a shared store needs.
    pub const ALL: [Self; 16] = [
        Self::ClaimAfterDot,
        Self::NoFsync,
        Self::SettleTwice,
        Self::FingerprintIgnored,
        Self::FreedAfterDoubt,
        Self::InFlightIsAgain,
        Self::RcptHidesAlready,
        Self::PartialIs250,
        Self::ExpiryLowersCounter,
        Self::NoFence,
        Self::LateClaim,
        Self::NameKept,
        Self::FormerDropped,
        Self::NoGrace,
        Self::NotWaited,
        Self::OwnIsDead,
    ];

    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClaimAfterDot => "claim-after-dot",
            Self::NoFsync => "no-fsync",
            Self::SettleTwice => "settle-twice",
            Self::FingerprintIgnored => "fingerprint-ignored",
            Self::FreedAfterDoubt => "freed-after-doubt",
            Self::InFlightIsAgain => "in-flight-is-again",
            Self::RcptHidesAlready => "rcpt-hides-already",
            Self::PartialIs250 => "partial-is-250",
            Self::ExpiryLowersCounter => "expiry-lowers-counter",
            Self::NoFence => "no-fence",
            Self::LateClaim => "late-claim",
            Self::NameKept => "name-kept",
            Self::FormerDropped => "former-dropped",
            Self::NoGrace => "no-grace",
            Self::NotWaited => "not-waited",
            Self::OwnIsDead => "own-is-dead",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sabotage| sabotage.name() == name)
    }
}
