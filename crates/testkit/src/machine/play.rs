//! Walks through a dialogue, step by step.

use std::fmt;
use std::time::Instant;

use tempalias_relay::{After, Awaits, ConnectError, Effect};

use super::world::{Out, Stop, World};
use crate::dialogue::{Action, Change, Dialogue, HopFailure, HopLeft, Lane, SENDER, Step};
use crate::text::{matches, message_of, prefix_fault, show};

/// A dialogue that did not go as written.
#[derive(Debug)]
pub struct Failed {
    /// The dialogue's name.
    pub dialogue: String,
    /// The line that did not hold.
    pub line: usize,
    /// What was wrong.
    pub why: String,
    /// All that happened until then.
    pub transcript: Vec<String>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tests/dialogues/{}.smtp:{}: {}", self.dialogue, self.line, self.why)?;
        self.transcript.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// Plays a dialogue on the machine.
///
/// # Errors
/// [`Failed`] at the first step that does not hold, or when the contract is broken.
pub fn play(dialogue: &Dialogue) -> Result<(), Failed> {
    play_until(dialogue, None, Instant::now()).map(|_| ())
}

/// What happens in a dialogue, event by event: for people who write one.
pub fn transcript(dialogue: &Dialogue) -> Vec<String> {
    match play_until(dialogue, None, Instant::now()) {
        Ok((world, _)) => world.transcript,
        Err(failed) => failed.transcript,
    }
}

/// Plays until the event before which to cut, and says on which lane it was due; none: it went through.
pub(crate) fn play_until(
    dialogue: &Dialogue,
    cut_at: Option<usize>,
    base: Instant,
) -> Result<(World, Option<Lane>), Failed> {
    let failed = |line, why, transcript| Failed { dialogue: dialogue.name.clone(), line, why, transcript };
    let mut world = World::new(dialogue, base).map_err(|why| failed(1, why, vec![]))?;
    world.cut_at = cut_at;
    for step in &dialogue.steps {
        match world.step(step) {
            Ok(()) => {}
            Err(Stop::Cut(lane)) => return Ok((world, Some(lane))),
            Err(Stop::Failed(why)) => return Err(failed(step.line, why, world.transcript)),
        }
    }
    let last = dialogue.steps.last().map_or(1, |step| step.line);
    match world.end(dialogue) {
        Ok(()) => Ok((world, None)),
        Err(Stop::Cut(lane)) => Ok((world, Some(lane))),
        Err(Stop::Failed(why)) => Err(failed(last, format!("at the end: {why}"), world.transcript)),
    }
}

impl World {
    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match &step.action {
            Action::Connect(lane, early) => self.open(*lane, early)?,
            Action::Greet(lane) => self.greet(*lane)?,
            Action::Close(lane) => {
                let side = self.side(*lane);
                side.out.clear();
                side.eof = true;
            }
            Action::Write(lane, pieces) => {
                for piece in pieces {
                    self.write(*lane, piece);
                    self.pump()?;
                }
            }
            Action::Hears(lane, pattern) => self.hears(*lane, pattern)?,
            Action::Pause(lane, time) => match self.side(*lane).out.pop_front() {
                Some(Out::Pause(paused)) if paused == *time => {}
                other => return Err(format!("a pause of {time:?} was expected, not {other:?}").into()),
            },
            Action::Closed(lane) => self.is_closed(*lane)?,
            Action::Wait(time) => self.wait(*time)?,
            Action::Seed(seed) => self.seed(seed)?,
            Action::Change(alias, change) => self.change(alias, *change)?,
            Action::Look(alias, counts) => {
                let row = self.row(alias)?;
                for (what, expected) in counts {
                    let found = self.store.count(row, *what, self.unix());
                    if found != Some(*expected) {
                        return Err(format!("{what:?} is {found:?}, not {expected}").into());
                    }
                }
            }
            Action::Store(fault) => self.store.fault = *fault,
            Action::Memory(memory) => self.memory = *memory,
            Action::Crash => self.crash(),
            Action::Drain => self.drain()?,
            next_hop => self.next_hop(next_hop)?,
        }
        self.pump()
    }

    fn next_hop(&mut self, action: &Action) -> Result<(), Stop> {
        match action {
            Action::HopConnects(lane, connects) => self.hop_connects(*lane, &connects.offers, connects.anew),
            Action::HopFails(lane, failure) => self.hop_fails(*lane, connect_error(*failure)),
            Action::HopHears(lane, pattern) => self.hop_hears(*lane, pattern),
            Action::HopHearsMessage(lane) => self.hop_hears_message(*lane),
            Action::HopSays(lane, octets) => {
                let hop = self.side(*lane).hop.as_mut().ok_or("the next hop is not connected")?;
                hop.inbox.extend_from_slice(octets);
                Ok(())
            }
            Action::HopCloses(lane) => {
                self.side(*lane).hop.as_mut().ok_or("the next hop is not connected")?.closed = true;
                Ok(())
            }
            Action::HopBreaks(lane, breaks) => {
                if !self.takes_body(*lane) {
                    return Err("no message is going out".into());
                }
                self.tick(*lane)?;
                self.body_broke(*lane, breaks.at_dot, breaks.saying.clone())
            }
            Action::HopLeft(lane, expected) => match (self.side(*lane).left.take(), expected) {
                (Some(After::Unknown), HopLeft::Dropped)
                | (Some(After::FinalReply | After::OpenTransaction), HopLeft::Released) => Ok(()),
                (left, _) => Err(format!("the next hop's connection: {left:?}, not {expected:?}").into()),
            },
            Action::HopQuiet(lane) => {
                let side = self.side(*lane);
                let dials = matches!(side.ask, Some(Effect::Connect(..) | Effect::SendBody(_)));
                if dials || !side.said.is_empty() {
                    return Err(format!("the next hop is wanted: {}", show(&side.said)).into());
                }
                Ok(())
            }
            other => Err(format!("not a next hop's step: {other:?}").into()),
        }
    }

    fn greet(&mut self, lane: Lane) -> Result<(), Stop> {
        self.open(lane, b"")?;
        self.hears(lane, "220 mx.alias.test *")?;
        self.write(lane, format!("EHLO {SENDER}\r\n").as_bytes());
        self.pump()?;
        while let Some(Out::Line(line)) = self.side(lane).out.pop_front() {
            if line.starts_with("250 ") {
                return Ok(());
            }
        }
        Err("no answer to EHLO".into())
    }

    fn hears(&mut self, lane: Lane, pattern: &str) -> Result<(), Stop> {
        match self.side(lane).out.pop_front() {
            Some(Out::Line(line)) if matches(pattern, &line) => Ok(()),
            Some(Out::Line(line)) => Err(format!("the sender hears {line:?}, not {pattern:?}").into()),
            Some(Out::Pause(time)) => Err(format!("a pause of {time:?}, not {pattern:?}").into()),
            None => {
                let waits = self.side(lane).ask.as_ref().map(|ask| format!("{ask:?}"));
                Err(format!("the sender hears nothing, not {pattern:?}; we wait for {waits:?}").into())
            }
        }
    }

    fn is_closed(&mut self, lane: Lane) -> Result<(), Stop> {
        let side = self.side(lane);
        if !side.out.is_empty() {
            return Err(format!("replies before the end: {:?}", side.out).into());
        }
        match side.session.as_ref().map(tempalias_relay::Session::awaits) {
            None | Some(Awaits::Nothing) => Ok(()),
            Some(other) => Err(format!("the connection is open: {other:?}").into()),
        }
    }

    fn change(&mut self, alias: &str, change: Change) -> Result<(), Stop> {
        let row = self.row(alias)?;
        let now = self.unix();
        if change == Change::FreeHeld {
            self.truth.freed(row);
        }
        self.store.change(row, change, now).then_some(()).ok_or("no such alias".into())
    }

    fn hop_hears(&mut self, lane: Lane, pattern: &str) -> Result<(), Stop> {
        if self.side(lane).said.is_empty() {
            self.body_goes_out(lane)?;
        }
        let said = &mut self.side(lane).said;
        let Some(end) = said.windows(2).position(|pair| pair == b"\r\n") else {
            return Err(format!("the next hop hears nothing more, not {pattern:?}").into());
        };
        let line: Vec<u8> = said.drain(..end + 2).take(end).collect();
        let line = String::from_utf8_lossy(&line);
        if matches(pattern, &line) {
            Ok(())
        } else {
            Err(format!("the next hop hears {line:?}, not {pattern:?}").into())
        }
    }

    fn hop_hears_message(&mut self, lane: Lane) -> Result<(), Stop> {
        self.body_goes_out(lane)?;
        let side = self.side(lane);
        let said = std::mem::take(&mut side.said);
        let message = message_of(&side.message).ok_or("the sender wrote no whole message")?;
        let Some(prefix) = said.strip_suffix(message) else {
            return Err(format!(
                "the next hop hears {}, which does not end as {}",
                show(&said),
                show(message)
            )
            .into());
        };
        prefix_fault(prefix).map_or(Ok(()), |why| Err(why.into()))
    }

    /// Nothing may be left unsaid; and with the senders gone, everything must come to its end.
    fn end(&mut self, dialogue: &Dialogue) -> Result<(), Stop> {
        for lane in [Lane::First, Lane::Second] {
            let side = self.side(lane);
            if !side.out.is_empty() {
                return Err(format!("replies that nobody expected: {:?}", side.out).into());
            }
            if !side.said.is_empty() {
                return Err(format!("the next hop heard more: {}", show(&side.said)).into());
            }
            if let Some(ask) = &side.ask {
                return Err(format!("still waiting: {ask:?}").into());
            }
            side.eof = true;
        }
        self.pump()?;
        for never in &dialogue.never {
            if self.heard.contains(never) {
                return Err(format!("a sender has read {never:?}").into());
            }
        }
        self.store.fault = crate::dialogue::Fault::Up;
        self.store.flush(self.unix());
        Ok(self.truth.check(&self.store, self.unix())?)
    }
}

fn connect_error(failure: HopFailure) -> ConnectError {
    match failure {
        HopFailure::NoConnection => ConnectError::NoConnection,
        HopFailure::NoDnsAnswer => ConnectError::NoDnsAnswer,
        HopFailure::NoSuchDomain => ConnectError::NoSuchDomain,
        HopFailure::NullMx => ConnectError::NullMx,
        HopFailure::BadRoute => ConnectError::BadRoute,
    }
}
