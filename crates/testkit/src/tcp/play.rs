//! Walks through a dialogue with real sockets.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::wire::{Id, Wire};
use super::{Factory, PATIENCE, Setup, Subject};
use crate::dialogue::{
    Action, Count, Dialogue, Fault, HopConnects, HopFailure, HopLeft, Lane, SENDER, Step, ehlo_reply,
};
use crate::machine::Failed;
use crate::text::{matches, message_of, prefix_fault, show};

/// Between two pieces of one write, so that they travel apart.
const BETWEEN_PIECES: Duration = Duration::from_millis(2);
/// How often the store is asked again while a settling may be on its way.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What became of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Played {
    /// It went as written.
    Done,
    /// It cannot be played here, for this reason.
    Skipped(String),
}

struct Player<S> {
    subject: S,
    wire: Wire,
    sides: [Side; 2],
    targets: Vec<String>,
    heard: String,
    transcript: Vec<String>,
}

#[derive(Default)]
struct Side {
    sender: Option<Id>,
    hop: Option<Id>,
    /// What the sender wrote since the last 354.
    message: Vec<u8>,
}

/// Plays a dialogue on a server of its own.
///
/// # Errors
/// [`Failed`] at the first step that does not hold.
pub async fn play<F: Factory>(dialogue: &Dialogue, factory: &F) -> Result<Played, Failed> {
    if let Some(reason) = &dialogue.machine_only {
        return Ok(Played::Skipped(reason.clone()));
    }
    let failed = |line, why, transcript| Failed { dialogue: dialogue.name.clone(), line, why, transcript };
    let listening = Wire::listen().await;
    let (wire, next_hop) = listening.map_err(|error| failed(1, error.to_string(), vec![]))?;
    let setup = Setup { name: dialogue.name.clone(), config: dialogue.config.clone(), next_hop };
    let subject = factory.start(setup).await;
    if let Some(fault) = fault_beyond(dialogue, subject.faults()) {
        subject.stop().await;
        return Ok(Played::Skipped(format!("the store cannot be made to fail so: {fault:?}")));
    }
    let mut player = Player {
        subject,
        wire,
        sides: Default::default(),
        targets: vec![],
        heard: String::new(),
        transcript: vec![],
    };
    let mut done = Ok(());
    for step in &dialogue.steps {
        done = player.step(step).await.map_err(|why| (step.line, why));
        if done.is_err() {
            break;
        }
    }
    let last = dialogue.steps.last().map_or(1, |step| step.line);
    let done = done.and_then(|()| player.end(dialogue).map_err(|why| (last, why)));
    player.subject.stop().await;
    let transcript = player.transcript;
    done.map(|()| Played::Done).map_err(|(line, why)| failed(line, why, transcript))
}

fn fault_beyond(dialogue: &Dialogue, can: &[Fault]) -> Option<Fault> {
    dialogue.steps.iter().find_map(|step| match step.action {
        Action::Store(fault) if fault != Fault::Up && !can.contains(&fault) => Some(fault),
        _ => None,
    })
}

impl<S: Subject> Player<S> {
    async fn step(&mut self, step: &Step) -> Result<(), String> {
        self.transcript.push(format!("{:>4} {:?}", step.line, step.action).chars().take(200).collect());
        match &step.action {
            Action::Connect(lane, early) => {
                self.connect(*lane).await?;
                self.write(*lane, early).await
            }
            Action::Greet(lane) => self.greet(*lane).await,
            Action::Close(lane) => {
                if let Some(id) = self.side(*lane).sender.take() {
                    self.wire.close(id).await;
                }
                Ok(())
            }
            Action::Write(lane, pieces) => {
                for piece in pieces {
                    self.write(*lane, piece).await?;
                    if pieces.len() > 1 {
                        sleep(BETWEEN_PIECES).await;
                    }
                }
                Ok(())
            }
            Action::Hears(lane, pattern) => self.hears(*lane, pattern).await,
            Action::Closed(lane) => self.closed(*lane).await,
            Action::Wait(time) => {
                sleep(*time).await;
                Ok(())
            }
            Action::Seed(seed) => {
                self.targets.push(seed.target.clone());
                self.subject.seed(seed).await;
                Ok(())
            }
            Action::Change(alias, change) => {
                self.subject.change(alias, *change).await;
                Ok(())
            }
            Action::Look(alias, counts) => self.look(alias, counts).await,
            Action::Store(fault) => {
                self.subject.store(*fault).await;
                Ok(())
            }
            Action::Crash => {
                self.subject.crash().await;
                Ok(())
            }
            next_hop => self.next_hop(next_hop).await,
        }
    }

    fn side(&mut self, lane: Lane) -> &mut Side {
        &mut self.sides[lane as usize]
    }

    // === The sender.

    async fn connect(&mut self, lane: Lane) -> Result<(), String> {
        if let Some(id) = self.side(lane).sender.take() {
            self.wire.close(id).await;
        }
        let id = self.wire.connect(self.subject.smtp_addr()).await;
        self.side(lane).sender = Some(id.map_err(|error| format!("the server does not answer: {error}"))?);
        Ok(())
    }

    async fn greet(&mut self, lane: Lane) -> Result<(), String> {
        self.connect(lane).await?;
        self.hears(lane, "220 mx.alias.test *").await?;
        self.write(lane, format!("EHLO {SENDER}\r\n").as_bytes()).await?;
        while !self.reply_line(lane).await?.starts_with("250 ") {}
        Ok(())
    }

    async fn write(&mut self, lane: Lane, octets: &[u8]) -> Result<(), String> {
        let id = self.side(lane).sender.ok_or("the sender is not connected")?;
        self.side(lane).message.extend_from_slice(octets);
        self.wire.write(id, octets).await;
        Ok(())
    }

    async fn reply_line(&mut self, lane: Lane) -> Result<String, String> {
        let id = self.side(lane).sender.ok_or("the sender is not connected")?;
        loop {
            let connection = self.wire.connections.get_mut(&id).ok_or("the sender is not connected")?;
            if let Some(line) = connection.line() {
                self.transcript.push(format!("       < {line}"));
                self.heard.push_str(&line);
                self.heard.push('\n');
                if line.starts_with("354") {
                    self.side(lane).message.clear();
                }
                return Ok(line);
            }
            if connection.ended {
                return Err("the server closed the connection".into());
            }
            if !self.wire.wait().await {
                return Err(format!("no reply in {PATIENCE:?}"));
            }
        }
    }

    async fn hears(&mut self, lane: Lane, pattern: &str) -> Result<(), String> {
        let line = self.reply_line(lane).await.map_err(|why| format!("{why}; expected {pattern:?}"))?;
        if matches(pattern, &line) {
            Ok(())
        } else {
            Err(format!("the sender hears {line:?}, not {pattern:?}"))
        }
    }

    async fn closed(&mut self, lane: Lane) -> Result<(), String> {
        let id = self.side(lane).sender.ok_or("the sender is not connected")?;
        loop {
            let connection = self.wire.connections.get(&id).ok_or("the sender is not connected")?;
            if !connection.inbox.is_empty() {
                return Err(format!("a reply before the end: {}", show(&connection.inbox)));
            }
            if connection.ended {
                return Ok(());
            }
            if !self.wire.wait().await {
                return Err("the connection stays open".into());
            }
        }
    }

    // === The store.

    /// Settling comes with the store's next commit: looks until the numbers are right, or patience ends.
    async fn look(&mut self, alias: &str, counts: &[(Count, u32)]) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut wrong = None;
            for (what, expected) in counts {
                let found = self.subject.count(alias, *what).await;
                if found != Some(*expected) {
                    wrong = Some(format!("{what:?} is {found:?}, not {expected}"));
                }
            }
            match wrong {
                None => return Ok(()),
                Some(why) if Instant::now() >= until => return Err(why),
                Some(_) => sleep(LOOK_AGAIN).await,
            }
        }
    }

    // === The next hop.

    async fn next_hop(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::HopConnects(lane, how) => self.hop_connects(*lane, how).await,
            Action::HopFails(_, HopFailure::NoConnection) => {
                let id = self.unbound(|greeted, _| !greeted).await?;
                self.wire.close(id).await;
                Ok(())
            }
            Action::HopHears(lane, pattern) => self.hop_hears(*lane, pattern).await,
            Action::HopHearsMessage(lane) => self.hop_hears_message(*lane).await,
            Action::HopSays(lane, octets) => {
                let id = self.hop(*lane)?;
                self.wire.write(id, octets).await;
                Ok(())
            }
            Action::HopCloses(lane) => {
                let id = self.hop(*lane)?;
                self.side(*lane).hop = None;
                self.wire.close(id).await;
                Ok(())
            }
            Action::HopLeft(lane, HopLeft::Released) => {
                self.hop(*lane)?;
                // From now on it answers the pool's RSET by itself.
                self.side(*lane).hop = None;
                self.attend().await;
                Ok(())
            }
            Action::HopLeft(lane, HopLeft::Dropped) => self.hop_dropped(*lane).await,
            Action::HopQuiet(lane) => self.hop_quiet(*lane),
            other => Err(format!("this step is for the machine: {other:?}")),
        }
    }

    fn hop(&mut self, lane: Lane) -> Result<Id, String> {
        self.side(lane).hop.ok_or("the next hop is not connected".into())
    }

    /// A connection that no lane has: a new one, or a pooled one on which a mail begins.
    async fn unbound(&mut self, wanted: impl Fn(bool, bool) -> bool) -> Result<Id, String> {
        loop {
            self.wire.take_all();
            self.attend().await;
            let bound = [self.sides[0].hop, self.sides[1].hop];
            let found = self.wire.connections.iter().find(|(id, connection)| {
                let begins = connection.inbox.starts_with(b"MAIL");
                let open = connection.accepted && !connection.ended && !bound.contains(&Some(**id));
                open && wanted(connection.greeted, begins)
            });
            if let Some((id, _)) = found {
                return Ok(*id);
            }
            if !self.wire.wait().await {
                return Err("no connection comes to the next hop".into());
            }
        }
    }

    async fn hop_connects(&mut self, lane: Lane, how: &HopConnects) -> Result<(), String> {
        self.side(lane).hop = None;
        let id = self.unbound(|greeted, begins| !greeted || (begins && !how.anew)).await?;
        self.side(lane).hop = Some(id);
        if self.wire.connections.get(&id).is_some_and(|connection| connection.greeted) {
            return Ok(());
        }
        self.wire.write(id, b"220 hop.test ESMTP\r\n").await;
        let hello = self.hop_line(lane).await?;
        if !hello.starts_with("EHLO ") {
            return Err(format!("the next hop hears {hello:?}, not EHLO"));
        }
        self.wire.write(id, ehlo_reply(&how.offers).as_bytes()).await;
        self.wire.connections.entry(id).and_modify(|connection| connection.greeted = true);
        Ok(())
    }

    /// Connections that no lane has answer what a pool says to them.
    async fn attend(&mut self) {
        let bound = [self.sides[0].hop, self.sides[1].hop];
        let idle = self.wire.connections.iter_mut().filter(|(id, connection)| {
            connection.accepted && connection.greeted && !bound.contains(&Some(**id))
        });
        let mut answers = vec![];
        for (id, connection) in idle {
            while connection.inbox.starts_with(b"RSET\r\n") || connection.inbox.starts_with(b"NOOP\r\n") {
                connection.inbox.drain(..6);
                answers.push(*id);
            }
        }
        for id in answers {
            self.wire.write(id, b"250 ok\r\n").await;
        }
    }

    async fn hop_line(&mut self, lane: Lane) -> Result<String, String> {
        let id = self.hop(lane)?;
        loop {
            let connection = self.wire.connections.get_mut(&id).ok_or("the next hop is not connected")?;
            if let Some(line) = connection.line() {
                self.transcript.push(format!("       > {line}"));
                return Ok(line);
            }
            if connection.ended {
                return Err("the server left the next hop".into());
            }
            if !self.wire.wait().await {
                return Err("the next hop hears nothing".into());
            }
        }
    }

    async fn hop_hears(&mut self, lane: Lane, pattern: &str) -> Result<(), String> {
        let line = self.hop_line(lane).await.map_err(|why| format!("{why}; expected {pattern:?}"))?;
        if let Some(to) = line.strip_prefix("RCPT TO:<").and_then(|to| to.strip_suffix('>')) {
            let stored = to == crate::dialogue::OPERATOR || self.targets.iter().any(|target| target == to);
            if !stored {
                return Err(format!("the next hop is told {to}, whom nobody stored"));
            }
        }
        if matches(pattern, &line) {
            Ok(())
        } else {
            Err(format!("the next hop hears {line:?}, not {pattern:?}"))
        }
    }

    async fn hop_hears_message(&mut self, lane: Lane) -> Result<(), String> {
        let id = self.hop(lane)?;
        let sent = self.side(lane).message.clone();
        let message = message_of(&sent).ok_or("the sender wrote no whole message")?;
        loop {
            let connection = self.wire.connections.get_mut(&id).ok_or("the next hop is not connected")?;
            if let Some(all) = message_of(&connection.inbox).map(<[u8]>::to_vec) {
                connection.inbox.drain(..all.len());
                let Some(prefix) = all.strip_suffix(message) else {
                    return Err(format!(
                        "the next hop hears {}, which does not end as {}",
                        show(&all),
                        show(message)
                    ));
                };
                return prefix_fault(prefix).map_or(Ok(()), Err);
            }
            if connection.ended || !self.wire.wait().await {
                return Err("the next hop hears no whole message".into());
            }
        }
    }

    async fn hop_dropped(&mut self, lane: Lane) -> Result<(), String> {
        // A connection that the next hop itself closed is gone anyway.
        let Some(id) = self.side(lane).hop.take() else { return Ok(()) };
        while !self.wire.connections.get(&id).is_none_or(|connection| connection.ended) {
            if !self.wire.wait().await {
                return Err("the next hop's connection stays open".into());
            }
        }
        let said =
            self.wire.connections.get(&id).map(|connection| connection.inbox.clone()).unwrap_or_default();
        if said.ends_with(b".\r\n") {
            return Err(format!("the connection was closed with a dot: {}", show(&said)));
        }
        Ok(())
    }

    fn hop_quiet(&mut self, lane: Lane) -> Result<(), String> {
        self.wire.take_all();
        if self.wire.connections.values().any(|connection| connection.accepted && !connection.greeted) {
            return Err("a connection was opened to the next hop".into());
        }
        let hop = self.side(lane).hop.and_then(|id| self.wire.connections.get(&id));
        match hop.map(|connection| connection.inbox.as_slice()) {
            None | Some(b"" | b"RSET\r\n" | b"QUIT\r\n") => Ok(()),
            Some(heard) => Err(format!("the next hop hears {}", show(heard))),
        }
    }

    // === The end.

    fn end(&mut self, dialogue: &Dialogue) -> Result<(), String> {
        self.wire.take_all();
        for lane in [Lane::First, Lane::Second] {
            let sender = self.side(lane).sender.and_then(|id| self.wire.connections.get(&id));
            if let Some(connection) = sender.filter(|connection| !connection.inbox.is_empty()) {
                return Err(format!("replies that nobody expected: {}", show(&connection.inbox)));
            }
        }
        for target in &self.targets {
            let domain = target.split_once('@').map_or(target.as_str(), |(_, domain)| domain);
            if domain != crate::dialogue::DOMAINS[1] && self.heard.contains(domain) {
                return Err(format!("a sender has read {domain}"));
            }
        }
        match dialogue.never.iter().find(|never| self.heard.contains(never.as_str())) {
            Some(never) => Err(format!("a sender has read {never:?}")),
            None => Ok(()),
        }
    }
}
