//! Cuts everywhere: plays a dialogue up to each of its events, lets something go wrong just there, and sees that
//! whatever was begun ends as promised.
//!
//! After a cut nobody follows the dialogue any longer: the sender finishes or is gone, the next hop accepts
//! everything or is gone. Then the sender comes again and says all that it had said, and everything works. What must
//! hold is in `machine::contract`, and at the end the store must tell the truth.

use std::time::Instant;

use tempalias_relay::{Awaits, ConnectError, Effect};

use crate::dialogue::{DEFAULT_OFFERS, Dialogue, Fault, Lane, Memory};
use crate::machine::{Failed, Stop, World, play_until};

/// Positions tried in one dialogue; a longer one is cut at evenly spaced events.
const MOST_POSITIONS: usize = 100;
/// Steps after which a session should have ended.
const MOST_STEPS: usize = 2_000;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The sender's connection breaks.
    SenderGone,
    /// The same, and the driver sees it while the session waits for an answer.
    SenderSeenGone,
    /// The next hop's connection breaks, or cannot be had; another one can.
    HopLost,
    /// The next hop is gone for good.
    HopGone,
    /// A write that held an octet of the final dot fails.
    HopLostAtDot,
    /// The next hop refuses everything from here on, for now.
    HopDefers,
    /// The next hop refuses everything from here on, for good.
    HopRefuses,
    /// The deadline comes.
    Deadline,
    /// The store fails until the session is over.
    StoreDown,
    /// The store does what it is told and does not answer.
    StoreMute,
    /// We die, and start again.
    Crash,
}

/// All that can go wrong.
pub const CUTS: [Cut; 11] = [
    Cut::SenderGone,
    Cut::SenderSeenGone,
    Cut::HopLost,
    Cut::HopGone,
    Cut::HopLostAtDot,
    Cut::HopDefers,
    Cut::HopRefuses,
    Cut::Deadline,
    Cut::StoreDown,
    Cut::StoreMute,
    Cut::Crash,
];

/// Cuts a dialogue at every event in every way; says how many cuts were made.
///
/// # Errors
/// The first that breaks a promise, with all that happened.
pub fn everywhere(dialogue: &Dialogue) -> Result<usize, Failed> {
    let base = Instant::now();
    let events = play_until(dialogue, None, base)?.0.events;
    let mut cuts = 0;
    for at in (0..events).step_by(events.div_ceil(MOST_POSITIONS).max(1)) {
        for cut in CUTS {
            let (mut world, lane) = play_until(dialogue, Some(at), base)?;
            let Some(lane) = lane else { continue };
            let done = world.cut(lane, cut);
            if let Err(stop) = done {
                let why = match stop {
                    Stop::Failed(why) => why,
                    Stop::Cut(_) => "cut twice".into(),
                };
                let why = format!("{cut:?} before event {at}: {why}");
                return Err(Failed {
                    dialogue: dialogue.name.clone(),
                    line: 1,
                    why,
                    transcript: world.transcript,
                });
            }
            cuts += usize::from(done.unwrap_or(false));
        }
    }
    Ok(cuts)
}

/// How the next hop behaves after the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HopThen {
    Accepts,
    Gone,
    Says(&'static str),
}

impl World {
    /// Whether the cut means anything here.
    fn cut(&mut self, lane: Lane, cut: Cut) -> Result<bool, Stop> {
        self.cut_at = None;
        self.memory = Memory::Free;
        if cut != Cut::StoreDown && cut != Cut::StoreMute {
            self.store.fault = Fault::Up;
        }
        self.transcript.push(format!("=== {cut:?}"));
        let then = match cut {
            Cut::HopGone => HopThen::Gone,
            Cut::HopDefers => HopThen::Says("450 4.2.0 not now"),
            Cut::HopRefuses => HopThen::Says("550 5.7.1 no"),
            _ => HopThen::Accepts,
        };
        let writes = self.side(lane).writes.clone();
        let applies = self.apply(lane, cut)?;
        self.finish(then)?;
        self.store.fault = Fault::Up;
        self.store.flush(self.unix());
        self.truth.check(&self.store, self.unix())?;
        if applies {
            self.retry(lane, writes)?;
        }
        Ok(applies)
    }

    /// The sender comes again, and nothing stands in its way.
    fn retry(&mut self, lane: Lane, writes: Vec<Vec<u8>>) -> Result<(), Stop> {
        self.transcript.push("=== retry".into());
        self.open(lane, b"")?;
        for write in writes {
            self.write(lane, &write);
            self.rest(HopThen::Accepts)?;
        }
        self.finish(HopThen::Accepts)?;
        Ok(self.truth.check(&self.store, self.unix())?)
    }

    fn apply(&mut self, lane: Lane, cut: Cut) -> Result<bool, Stop> {
        match cut {
            Cut::SenderGone => {
                let side = self.side(lane);
                side.input.clear();
                side.eof = true;
                Ok(true)
            }
            Cut::SenderSeenGone => self.seen_gone(lane),
            Cut::HopLost | Cut::HopGone => self.lose_hop(lane),
            Cut::HopLostAtDot => {
                let applies = self.takes_body(lane);
                if applies {
                    self.body_broke(lane, true, vec![])?;
                }
                Ok(applies)
            }
            Cut::HopDefers | Cut::HopRefuses => {
                let side = self.side(lane);
                side.hop.iter_mut().for_each(|hop| hop.inbox.clear());
                Ok(side.hop.is_some())
            }
            Cut::Deadline => {
                let due = self.advance_to_deadline(lane);
                if due {
                    self.deadline(lane)?;
                }
                Ok(due)
            }
            Cut::StoreDown => {
                self.store.fault = Fault::Down;
                Ok(true)
            }
            Cut::StoreMute => {
                self.store.fault = Fault::Mute;
                Ok(true)
            }
            Cut::Crash => {
                self.crash();
                Ok(true)
            }
        }
    }

    fn lose_hop(&mut self, lane: Lane) -> Result<bool, Stop> {
        let side = self.side(lane);
        if let Some(hop) = &mut side.hop {
            hop.inbox.clear();
            hop.closed = true;
        }
        match side.ask {
            Some(Effect::Connect(..)) => self.refuse_connection(lane)?,
            Some(Effect::SendBody(_)) => self.body_broke(lane, false, vec![])?,
            _ => return Ok(side.hop.is_some()),
        }
        Ok(true)
    }

    fn refuse_connection(&mut self, lane: Lane) -> Result<(), Stop> {
        self.answer_connect(lane, Err(ConnectError::NoConnection))
    }

    /// Everybody brings to its end what is begun.
    fn finish(&mut self, then: HopThen) -> Result<(), Stop> {
        for _ in 0..MOST_STEPS {
            self.rest(then)?;
            let mut moved = false;
            for lane in [Lane::First, Lane::Second] {
                moved |= self.say_goodbye(lane);
            }
            if !moved {
                return Ok(());
            }
        }
        Err("the session does not end".into())
    }

    /// Until there is nothing more to be read or answered.
    fn rest(&mut self, then: HopThen) -> Result<(), Stop> {
        for _ in 0..MOST_STEPS {
            let mut moved = false;
            for lane in [Lane::First, Lane::Second] {
                moved |= match self.awaits(lane) {
                    Some(Awaits::Line | Awaits::Body) => self.pump_lane(lane)?,
                    Some(Awaits::Answer) => self.finish_answer(lane, then)?,
                    None | Some(Awaits::Nothing) => false,
                };
            }
            if !moved {
                return Ok(());
            }
        }
        Err("the session does not come to rest".into())
    }

    fn awaits(&mut self, lane: Lane) -> Option<Awaits> {
        self.side(lane).session.as_ref().map(tempalias_relay::Session::awaits)
    }

    /// The sender of an open session ends its message, and the session.
    fn say_goodbye(&mut self, lane: Lane) -> bool {
        match self.awaits(lane) {
            Some(Awaits::Body) => self.write(lane, b"\r\n.\r\n"),
            Some(Awaits::Line) => self.write(lane, b"\r\nQUIT\r\n"),
            _ => return false,
        }
        true
    }

    fn finish_answer(&mut self, lane: Lane, then: HopThen) -> Result<bool, Stop> {
        let Some(ask) = self.side(lane).ask.take() else {
            return Err("asked nothing, awaits an answer".into());
        };
        match ask {
            Effect::Connect(..) => {
                if then == HopThen::Gone {
                    self.refuse_connection(lane)?;
                } else {
                    self.answer_connect(lane, Ok(DEFAULT_OFFERS.map(str::to_owned).to_vec()))?;
                }
            }
            Effect::SendBody(_) => {
                let closed = self.side(lane).hop.as_ref().is_none_or(|hop| hop.closed);
                if closed {
                    self.body_broke(lane, false, vec![])?;
                } else {
                    self.side(lane).ask = Some(ask);
                    self.body_goes_out(lane)?;
                }
            }
            Effect::Hear => {
                self.let_hop_answer(lane, then);
                self.answer(lane, Effect::Hear)?;
            }
            other => {
                if !self.answer(lane, other)? {
                    // Nothing comes: time passes until the session no longer waits.
                    if !self.advance_to_deadline(lane) {
                        return Err("waits for ever".into());
                    }
                    self.deadline(lane)?;
                }
            }
        }
        Ok(true)
    }

    fn let_hop_answer(&mut self, lane: Lane, then: HopThen) {
        let Some(hop) = &mut self.side(lane).hop else { return };
        if hop.closed || !hop.inbox.is_empty() {
            return;
        }
        let answer = match (then, hop.owed.front()) {
            (HopThen::Says(refusal), _) => refusal,
            (_, Some(&"DATA")) => "354 go",
            _ => "250 ok",
        };
        hop.inbox.extend_from_slice(answer.as_bytes());
        hop.inbox.extend_from_slice(b"\r\n");
    }
}
