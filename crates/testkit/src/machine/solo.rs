//! One session with a next hop that answers by itself: for tests that draw what the sender does.

use std::time::Instant;

use tempalias_relay::{Awaits, ConnectError, Effect, Session};

use super::world::{Out, Stop, World};
use crate::dialogue::{Action, DEFAULT_OFFERS, Dialogue, Lane};

const LANE: Lane = Lane::First;
const MANY: usize = 100_000;

/// See the module. Every step is watched; what breaks the contract panics.
pub struct Solo {
    world: World,
    codes: Vec<u16>,
    mails: Vec<Vec<u8>>,
    moody: bool,
    random: u64,
}

/// What became of the first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// 250 to the dot.
    Delivered,
    /// 5xx to the dot.
    Refused,
    /// No end was seen.
    Unfinished,
}

impl Solo {
    /// A session over a store with these aliases, in the notation of dialogues. `seed` draws the next hop's moods.
    pub fn new(seeds: &str, seed: u64) -> Self {
        let dialogue = Dialogue::parse("solo", &format!("# Aliases.\n{seeds}")).expect("seeds can be read");
        let mut world = World::new(&dialogue, Instant::now()).expect("a world");
        for step in &dialogue.steps {
            if let Action::Seed(seed) = &step.action {
                world.seed(seed).expect("an alias");
            }
        }
        let mut solo = Self { world, codes: vec![], mails: vec![], moody: false, random: seed | 1 };
        let opened = solo.world.open(LANE, b"");
        solo.must(opened);
        solo.settle();
        solo
    }

    /// From now on the next hop refuses, talks nonsense and closes as it likes.
    pub fn next_hop_is_moody(&mut self) {
        self.moody = true;
    }

    /// One write, and all that follows from it.
    pub fn writes(&mut self, octets: &[u8]) {
        self.world.write(LANE, octets);
        self.settle();
    }

    /// The same for text.
    pub fn says(&mut self, text: &str) {
        self.writes(text.as_bytes());
    }

    /// Writes of these lengths, over and over.
    pub fn writes_in_pieces(&mut self, octets: &[u8], lengths: &[usize]) {
        let mut rest = octets;
        for length in lengths.iter().cycle() {
            if rest.is_empty() {
                return;
            }
            let (piece, behind) = rest.split_at((*length).clamp(1, rest.len()));
            rest = behind;
            self.writes(piece);
        }
    }

    /// The sender is gone; everything ends, and the store tells the truth.
    pub fn hangs_up(&mut self) {
        self.world.side(LANE).eof = true;
        self.settle();
        let ended = self.world.side(LANE).session.as_ref().map(Session::awaits);
        assert_eq!(ended, Some(Awaits::Nothing), "{}", self.world.transcript.join("\n"));
        let told = self.world.truth.check(&self.world.store, self.world.unix());
        self.must(told.map_err(Stop::Failed));
    }

    /// The code of the last reply.
    pub fn last_code(&self) -> u16 {
        self.codes.last().copied().unwrap_or(0)
    }

    /// What the next hop got after its 354s.
    pub fn mails(&self) -> &[Vec<u8>] {
        &self.mails
    }

    /// The reply behind the first 354.
    pub fn verdict(&self) -> Verdict {
        let mut codes = self.codes.iter().skip_while(|code| **code != 354);
        match codes.nth(1) {
            None => Verdict::Unfinished,
            Some(code) if code / 100 == 2 => Verdict::Delivered,
            Some(_) => Verdict::Refused,
        }
    }

    fn must(&self, done: Result<(), Stop>) {
        if let Err(stop) = done {
            panic!("{stop:?}\n{}", self.world.transcript.join("\n"));
        }
    }

    fn settle(&mut self) {
        for _ in 0..MANY {
            let pumped = self.world.pump();
            self.must(pumped);
            while let Some(out) = self.world.side(LANE).out.pop_front() {
                let Out::Line(line) = out else { continue };
                if line.as_bytes().get(3) == Some(&b' ') {
                    self.codes.extend(line.get(..3).and_then(|code| code.parse::<u16>().ok()));
                }
            }
            let answered = match self.world.side(LANE).ask {
                Some(Effect::Connect(..)) => self.connects(),
                Some(Effect::SendBody(_)) => self.takes_message(),
                Some(Effect::Hear) => {
                    self.answers();
                    Ok(())
                }
                _ => return,
            };
            self.must(answered);
        }
        panic!("the session does not come to rest");
    }

    /// One of 1 to `of`, where 1 is a mood.
    fn mood(&mut self, of: u64) -> u64 {
        // xorshift: enough to draw moods from.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if self.moody { self.random % of } else { of }
    }

    fn connects(&mut self) -> Result<(), Stop> {
        match self.mood(6) {
            0 => self.world.answer_connect(LANE, Err(ConnectError::NoConnection)),
            1 => self.world.answer_connect(LANE, Ok(vec![])),
            _ => self.world.answer_connect(LANE, Ok(DEFAULT_OFFERS.map(str::to_owned).to_vec())),
        }
    }

    fn takes_message(&mut self) -> Result<(), Stop> {
        match self.mood(6) {
            0 => self.world.body_broke(LANE, false, vec![]),
            1 => self.world.body_broke(LANE, true, vec![]),
            2 => self.world.body_broke(LANE, false, b"552 5.3.4 no\r\n".to_vec()),
            _ => {
                self.world.side(LANE).said.clear();
                self.world.body_goes_out(LANE)?;
                let mail = std::mem::take(&mut self.world.side(LANE).said);
                self.mails.push(mail);
                Ok(())
            }
        }
    }

    fn answers(&mut self) {
        let mood = self.mood(12);
        let Some(hop) = &mut self.world.side(LANE).hop else { return };
        let answer: &[u8] = match (mood, hop.owed.front()) {
            (0, _) => b"450 4.2.1 not now\r\n",
            (1, _) => b"550 5.1.1 no\r\n",
            (2, _) => b"421 4.3.2 closing\r\n",
            (3, _) => b"nonsense\r\n",
            (4, _) => {
                hop.closed = true;
                b""
            }
            (_, Some(&"DATA")) => b"354 go\r\n",
            _ => b"250 ok\r\n",
        };
        hop.inbox.extend_from_slice(answer);
    }
}
