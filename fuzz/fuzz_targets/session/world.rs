//! Everything around the session: a store with the real claim rules, a next hop and a clock, all of which do what
//! the script says.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempalias_alias::{
    AliasId, Attempt, Keys, Ledger, Limits, ManageHash, NONCE_BYTES, Outcome, Owner, Private, RowKey, Sealed,
    ServerKey, Settled, State, UnixTime,
};
use tempalias_relay::{
    Awaits, BodyFailed, Claimed, ConnectError, Connected, DeliveryPolicy, Effect, Event, Found, Heard,
    LineFault, Moment, Peer, Policy, Session, StoreDown,
};
use tempalias_smtp::client::Capabilities;
use tempalias_smtp::line::{Scan, scan};
use tempalias_smtp::reply::{NextHopReply, Nonsense};

use crate::oracle::Oracle;
use crate::script::Script;

/// Steps of one session: enough for several mails, and an end to every input.
const STEPS: usize = 400;
/// The aliases: name, target, messages.
pub(crate) const ALIASES: [(&str, &str, u32); 4] = [
    ("once", "hidden@target.example", 1),
    ("twice", "covert@target.example", 2),
    ("free", "secret@target.example", 0),
    ("elsewhere", "veiled@faraway.example", 1),
];
pub(crate) const OPERATOR: &str = "operator@real.example";

static KEYS: LazyLock<Arc<Keys>> =
    LazyLock::new(|| Arc::new(Keys::new(ServerKey::new([7; 32]), vec![ServerKey::new([8; 32])])));
static ROWS: LazyLock<Vec<(RowKey, Ledger, Sealed)>> = LazyLock::new(rows);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn rows() -> Vec<(RowKey, Ledger, Sealed)> {
    let row = |(name, target, max): &(&str, &str, u32)| {
        let id: AliasId = name.parse().expect("an alias");
        let key = if *max == 2 { KEYS.all().last().expect("a key") } else { KEYS.first() };
        let limits = Limits {
            valid_from: None,
            valid_until: Some(UnixTime::from_secs(10_000_000)),
            max_usage: NonZeroU32::new(*max),
        };
        let private = Private {
            target: target.parse().expect("an address"),
            domain: "alias.example".parse().expect("a domain"),
            manage: ManageHash([0; 16]),
        };
        let ledger = Ledger { limits, state: State::Active, used: 0, kept: vec![] };
        (key.row_key(&id), ledger, key.seal(&id, &private, [0; NONCE_BYTES]))
    };
    ALIASES.iter().map(row).collect()
}

pub(crate) struct World {
    policy: Arc<Policy>,
    store: HashMap<RowKey, (Ledger, Sealed)>,
    millis: u64,
}

impl World {
    pub(crate) fn new(choice: u8) -> Self {
        let delivery = if choice & 1 == 0 { DeliveryPolicy::Mx } else { DeliveryPolicy::Smarthost };
        let limits = tempalias_relay::Limits { max_message_size: 4096, max_mails: 20, ..Default::default() };
        let policy = Policy {
            hostname: "mx.alias.example".parse().expect("a domain"),
            domains: vec!["alias.example".parse().expect("a domain")],
            operator: OPERATOR.parse().expect("an address"),
            delivery,
            public_url: "https://alias.example".into(),
            keys: Arc::clone(&KEYS),
            limits,
        };
        let store =
            ROWS.iter().map(|(row, ledger, sealed)| (*row, (ledger.clone(), sealed.clone()))).collect();
        Self { policy: Arc::new(policy), store, millis: 0 }
    }

    fn now(&self) -> UnixTime {
        UnixTime::from_millis(1_000_000 + self.millis)
    }

    fn at(&self) -> Moment {
        Moment {
            instant: *START + Duration::from_millis(self.millis),
            unix: self.now(),
            owner: Owner { node: 1, boot: 2 },
        }
    }

    /// One session from its opening to its end.
    pub(crate) fn play(&mut self, number: u64, script: &mut Script<'_>) {
        let peer =
            Peer { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), session: number, smarthost_size: None };
        let mut session = Session::new(Arc::clone(&self.policy), peer, self.at());
        let mut oracle = Oracle::default();
        let mut input: Vec<u8> = vec![];
        let mut asked: Option<Effect> = None;
        let mut opened = false;
        for _ in 0..STEPS {
            self.millis += u64::from(script.next() & 15);
            let mut out = vec![];
            let awaits = session.awaits();
            session = if !opened {
                opened = true;
                session.handle(Event::Opened { early: false }, self.at(), &mut out)
            } else {
                let step = Step { world: self, script, input: &mut input, oracle: &mut oracle };
                match step.run(session, awaits, asked.take(), &mut out) {
                    Some(session) => session,
                    None => return,
                }
            };
            oracle.check(&out, session.awaits());
            for effect in out {
                asked = self.perform(effect, &mut input, &mut oracle).or(asked);
            }
        }
    }

    /// Does what can be done at once; hands back what is to be answered.
    fn perform(&mut self, effect: Effect, input: &mut Vec<u8>, oracle: &mut Oracle) -> Option<Effect> {
        match effect {
            Effect::Unread(rest) => {
                oracle.unread(&rest);
                input.splice(0..0, rest);
                None
            }
            Effect::SettleLater(settlements) => {
                self.settle(&settlements);
                None
            }
            Effect::Acknowledge(read) => {
                for (row, message) in read {
                    if let Some((ledger, _)) = self.store.get_mut(&row) {
                        ledger.kept.retain(|kept| !kept.is_acknowledged_by(message));
                    }
                }
                None
            }
            effect => is_question(&effect).then_some(effect),
        }
    }

    fn settle(&mut self, settlements: &[(RowKey, Attempt, Outcome)]) {
        for (row, attempt, outcome) in settlements {
            let Some((ledger, _)) = self.store.get_mut(row) else { continue };
            let Some(at) = ledger.kept.iter().position(|kept| kept.attempt == *attempt) else { continue };
            match ledger.kept[at].settle(*attempt, *outcome) {
                Settled::Stale => {}
                Settled::Keep(kept) => ledger.kept[at] = kept,
                Settled::Spend => drop(ledger.kept.swap_remove(at)),
                Settled::GiveBack => {
                    ledger.kept.swap_remove(at);
                    ledger.used -= 1;
                }
            }
        }
    }
}

/// Whether the effect asks for an event.
pub(crate) fn is_question(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Find(_)
            | Effect::Quota(_)
            | Effect::Connect(..)
            | Effect::Hear
            | Effect::Reserve
            | Effect::Claim(_)
            | Effect::SendBody(_)
            | Effect::Settle(_)
    )
}

/// One event for a session, as the script wants it.
struct Step<'a, 'b> {
    world: &'a mut World,
    script: &'a mut Script<'b>,
    input: &'a mut Vec<u8>,
    oracle: &'a mut Oracle,
}

impl Step<'_, '_> {
    /// None: nothing more can happen.
    fn run(
        self,
        session: Session,
        awaits: Awaits,
        asked: Option<Effect>,
        out: &mut Vec<Effect>,
    ) -> Option<Session> {
        match awaits {
            Awaits::Nothing => {
                // What still happens to a closed connection changes nothing: the oracle sees that.
                let _closed = session.handle(Event::PeerGone, self.world.at(), out);
                assert!(out.is_empty(), "{out:?} after the end");
                None
            }
            Awaits::Line => self.line(session, out),
            Awaits::Body => self.body(session, out),
            Awaits::Answer => Some(self.answer(session, asked.expect("waits for no question"), out)),
        }
    }

    fn line(self, session: Session, out: &mut Vec<Effect>) -> Option<Session> {
        if self.input.is_empty() || matches!(scan(self.input), Scan::Incomplete) {
            let said = self.script.said();
            self.input.extend(said);
        }
        let found = scan(self.input);
        let event = match (self.script.next(), found) {
            (250..=251, _) => return Some(self.deadline(session, out)),
            (252, _) => Event::Drain,
            (253..=255, _) => Event::PeerGone,
            (_, Scan::Incomplete) if self.script.is_over() => Event::PeerGone,
            (_, Scan::Incomplete) => return Some(session),
            (_, Scan::TooLong) => Event::BadLine(LineFault::TooLong),
            (_, Scan::BareLineFeed) => Event::BadLine(LineFault::BareLineFeed),
            (choice, Scan::Line { text }) => {
                let line: Vec<u8> = self.input.drain(..text + 2).collect();
                self.oracle.command();
                // Usually a sender waits; sometimes it has pipelined.
                let more = choice > 200 && !self.input.is_empty();
                let event = Event::Line { text: &line[..text], more, fresh: choice & 1 == 0 };
                return Some(session.handle(event, self.world.at(), out));
            }
        };
        self.oracle.no_command();
        Some(session.handle(event, self.world.at(), out))
    }

    fn body(self, session: Session, out: &mut Vec<Effect>) -> Option<Session> {
        if self.input.is_empty() {
            let said = self.script.said();
            self.input.extend(said);
        }
        let choice = self.script.next();
        if choice >= 252 || (self.input.is_empty() && self.script.is_over()) {
            self.oracle.dropped();
            return Some(session.handle(Event::PeerGone, self.world.at(), out));
        }
        if choice >= 248 {
            return Some(self.deadline(session, out));
        }
        let length = if choice & 1 == 0 {
            self.input.len()
        } else {
            self.input.len().min(usize::from(choice) / 8 + 1)
        };
        if length == 0 {
            return Some(session);
        }
        let chunk: Vec<u8> = self.input.drain(..length).collect();
        self.oracle.body(&chunk);
        Some(session.handle(
            Event::Body { chunk: Bytes::from(chunk), held: choice < 244 },
            self.world.at(),
            out,
        ))
    }

    fn deadline(self, session: Session, out: &mut Vec<Effect>) -> Session {
        let due = session.deadline().expect("a state that waits for the sender has a deadline");
        let wait = due.saturating_duration_since(self.world.at().instant);
        self.world.millis += u64::try_from(wait.as_millis()).expect("a short wait") + 1;
        self.oracle.no_command();
        session.handle(Event::Deadline, self.world.at(), out)
    }

    fn answer(self, session: Session, asked: Effect, out: &mut Vec<Effect>) -> Session {
        let choice = self.script.next();
        if choice == 255 && session.deadline().is_some() {
            return self.late(session, asked, out);
        }
        // Past the dot nobody asks whether the sender is still there.
        if choice >= 253 && !self.oracle.past_dot() {
            self.oracle.dropped();
            return session.handle(Event::PeerGone, self.world.at(), out);
        }
        let at = self.world.at();
        let event = self.event(asked, choice);
        session.handle(event, at, out)
    }

    /// The deadline comes before the answer; what was asked may have been done all the same.
    fn late(self, session: Session, asked: Effect, out: &mut Vec<Effect>) -> Session {
        match &asked {
            Effect::Claim(_) if self.script.next() & 1 == 0 => drop(self.world.claim(&asked, self.oracle)),
            Effect::Settle(settlements) => self.world.settle(settlements),
            _ => {}
        }
        self.deadline(session, out)
    }

    fn event(self, asked: Effect, choice: u8) -> Event<'static> {
        let down = choice == 252;
        match asked {
            Effect::Find(_) | Effect::Quota(_) | Effect::Claim(_) if down => match asked {
                Effect::Find(_) => Event::Found(Err(StoreDown)),
                Effect::Quota(_) => Event::Quota(Err(StoreDown)),
                _ => Event::Claimed(Err(StoreDown)),
            },
            Effect::Find(keys) => Event::Found(Ok(self.world.find(&keys))),
            Effect::Quota(_) => Event::Quota(Ok(choice < 200)),
            Effect::Connect(..) => Event::Connected(connected(choice)),
            Effect::Hear => {
                let heard = heard(choice);
                self.oracle.heard(&heard);
                Event::Heard(heard)
            }
            Effect::Reserve => Event::Reserved { granted: choice < 230, early: choice == 229 },
            Effect::Claim(_) => Event::Claimed(Ok(self.world.claim(&asked, self.oracle))),
            Effect::SendBody(outgoing) => {
                self.oracle.send(&outgoing);
                let sent = sent(choice, self.script);
                self.oracle.sent(&sent);
                Event::BodySent(sent)
            }
            Effect::Settle(settlements) => {
                self.world.settle(&settlements);
                Event::Settled
            }
            other => panic!("{other:?} asks nothing"),
        }
    }
}

impl World {
    fn find(&self, keys: &[RowKey]) -> Option<Found> {
        let row = *keys.iter().find(|key| self.store.contains_key(*key))?;
        let (ledger, sealed) = self.store.get(&row)?;
        Some(Found { row, ledger: ledger.clone(), sealed: sealed.clone(), now: self.now() })
    }

    fn claim(&mut self, asked: &Effect, oracle: &mut Oracle) -> Vec<Claimed> {
        let Effect::Claim(requests) = asked else { panic!("{asked:?} is no claim") };
        let now = self.now();
        let mut answers = vec![];
        for request in requests {
            let (ledger, _) = self.store.get_mut(&request.row).expect("a row that was found");
            let verdict = ledger.claim(request, now, |_| true);
            ledger.used = verdict.used;
            if let Some(kept) = verdict.write {
                ledger.kept.retain(|old| old.fingerprint != kept.fingerprint);
                ledger.kept.push(kept);
            }
            assert!(ledger.limits.max_usage.is_none_or(|max| ledger.used <= max.get()), "more uses than N");
            answers.push(Claimed { answer: verdict.answer, limits: ledger.limits, used: ledger.used });
        }
        oracle.claimed(requests, &answers);
        answers
    }
}

fn connected(choice: u8) -> Result<Connected, ConnectError> {
    match choice {
        0..=239 => Ok(Connected {
            offered: Capabilities {
                pipelining: choice & 1 == 0,
                eight_bit: choice & 2 == 0,
                smtputf8: choice & 4 == 0,
                size: (choice & 8 == 0).then_some(u64::from(choice) * 16),
                rcpt_max: (choice & 16 != 0).then_some(1),
            },
            reused: choice & 32 == 0,
        }),
        240..=242 => Err(ConnectError::NoSuchDomain),
        243..=244 => Err(ConnectError::NullMx),
        245..=246 => Err(ConnectError::BadRoute),
        247..=248 => Err(ConnectError::NoDnsAnswer),
        _ => Err(ConnectError::NoConnection),
    }
}

/// Mostly what fits; the rest is what next hops have been seen to say.
fn heard(choice: u8) -> Heard {
    let text: &[u8] = match choice {
        0..=119 => b"250 2.0.0 hidden@target.example taken\r\n",
        120..=189 => b"354 go on\r\n",
        190..=204 => b"550 5.1.1 hidden@target.example unknown\r\n",
        205..=219 => b"451-4.7.1 covert@target.example\r\n451 4.7.1 later\r\n",
        220..=224 => b"421 4.3.2 going down\r\n",
        225..=229 => b"252 2.5.0 perhaps\r\n",
        230..=234 => b"334 what\r\n",
        235..=239 => b"599 9.9\r\n",
        240..=244 => return Heard::Nonsense(Nonsense::MixedCodes),
        _ => return Heard::Lost,
    };
    let (reply, _) = NextHopReply::parse(text).expect("a reply").expect("a whole one");
    Heard::Reply(reply)
}

fn sent(choice: u8, script: &mut Script<'_>) -> Result<(), BodyFailed> {
    match choice {
        0..=199 => Ok(()),
        _ => {
            let pending = (choice & 2 == 0).then(|| heard(script.next()));
            Err(BodyFailed { dot_may_have_left: choice & 1 == 0, pending })
        }
    }
}
