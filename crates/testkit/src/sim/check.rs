//! What must hold once a run has come to rest and every sender's queue is drained: nobody comes back any more, and of
//! whoever is dead the lease has run out. (The last event may be sooner than that, and nothing happens in between.)

use tempalias_alias::{KeptState, Owner};

use super::leases::LEASE;
use super::names::Names;
use super::senders::Fate;
use super::store::{End, Row};
use super::tally::Seen;
use super::world::World;

impl World {
    pub(super) fn check(&mut self) {
        if self.broken.is_some() {
            return;
        }
        match self.check_queues().and_then(|()| self.check_rows()) {
            Ok(excuses) => excuses.into_iter().for_each(|excuse| self.saw(excuse)),
            Err(broken) => self.breaks(broken),
        }
    }

    fn check_queues(&self) -> Result<(), String> {
        let waits = self.entries.iter().position(|entry| entry.waiting().next().is_some());
        waits.map_or(Ok(()), |entry| Err(format!("entry {entry} still waits in its sender's queue")))
    }

    /// With the excuses for uses that the next hop was never given a message for.
    fn check_rows(&self) -> Result<Vec<Seen>, String> {
        let mut excuses = vec![];
        for (at, row) in self.store.rows.iter().enumerate().filter(|(_, row)| row.most > 0) {
            excuses.extend(self.check_limit(at, row)?);
            check_counter(at, row)?;
            for grant in 0..row.grants.len() {
                excuses.extend(self.check_grant(at, row, grant)?);
            }
        }
        Ok(excuses)
    }

    /// P2: never more than N, and where claims are not waited for, one more for each claim that a failover lost. An owner
    /// who frees held uses may get more, as the page says.
    fn check_limit(&self, at: usize, row: &Row) -> Result<Vec<Seen>, String> {
        if row.grants.iter().any(|grant| grant.end == End::Freed) {
            return Ok(vec![]);
        }
        let accepted = self.truth.parts.iter().filter(|part| part.accepted && part.row == at);
        let mut messages: Vec<(usize, Option<usize>)> =
            accepted.map(|part| (part.content, part.grant)).collect();
        messages.sort_unstable();
        messages.dedup();
        let (many, most) = (messages.len(), row.most as usize);
        let lost = self.truth.claims_lost.iter().filter(|lost| lost.1 == at).count();
        if many > most + lost {
            return Err(format!("P2: alias {at}: {many} messages for {most} uses"));
        }
        Ok(vec![Seen::OverLimit; many.saturating_sub(most)])
    }

    /// Whether a node goes on under this name, or keeps it for what is under way.
    fn lives(&self, owner: Owner) -> bool {
        let lives =
            |names: &Names| names.current == owner || (names.has(owner) && names.is_busy(owner, self.now));
        self.nodes.iter().any(|node| node.up && lives(&node.names))
    }

    /// Whether the store takes an owner for alive, and always will, whose name no node has. (A clock set back makes leases
    /// of the dead longer.)
    fn haunts(&self, owner: Owner) -> bool {
        !self.truth.clock_jumped
            && self.store.is_alive(owner, self.now + 2 * LEASE)
            && !self.nodes.iter().any(|node| node.names.has(owner))
    }

    /// P3: what the next hop was never given is counted only while it is in doubt, and only if its sender did not
    /// come back for it or was refused; and, once its five days are over, for good.
    fn check_grant(&self, at: usize, row: &Row, number: usize) -> Result<Option<Seen>, String> {
        let grant = &row.grants[number];
        let given = self.truth.parts.iter().any(|part| part.row == at && part.grant == Some(number));
        let kept = row.ledger.kept.iter().find(|kept| kept.fingerprint == grant.message);
        if let Some(kept) = kept.filter(|_| grant.end == End::Open)
            && kept.state == KeptState::InFlight
            && (self.lives(kept.attempt.owner) || self.haunts(kept.attempt.owner))
            && !self.truth.was_settled_in_vain(kept.attempt)
        {
            return Err(format!("P3: alias {at}: a use is in flight for ever"));
        }
        match grant.end {
            End::Acknowledged if !given => {
                return Err(format!("alias {at}: acknowledged what was never sent"));
            }
            End::Open | End::Expired if !given => {}
            _ => return Ok(None),
        }
        let content = self.truth.content(at, grant.message);
        let entries = self.entries.iter().filter(|entry| Some(entry.content) == content);
        let mut fates = entries.flat_map(|entry| &entry.rcpts).filter(|rcpt| rcpt.row == at);
        if !fates.all(|rcpt| rcpt.fate == Fate::Delivered) {
            return Ok(None);
        }
        if self.truth.is_belated(at, number) {
            // Of an attempt that came after its retry: its sender has what it wanted and does not come for this one.
            return Ok(Some(Seen::HeldForNobody));
        }
        if self.truth.was_delivered_unclaimed(at, grant.message) {
            // It was given back, and then its sender served under another claim; a failover lost both.
            return Ok(Some(Seen::HeldAfterLoss));
        }
        if grant.end == End::Expired && self.truth.clock_jumped {
            // Its retry came, but the clock had jumped over its five days: it counted as another message.
            return Ok(Some(Seen::ForgottenByJump));
        }
        Err(format!("P3: alias {at}: a use was burnt although its sender came back"))
    }
}

/// The counter is what was granted and not given back.
fn check_counter(at: usize, row: &Row) -> Result<(), String> {
    let back = [End::GivenBack, End::Freed, End::Lost];
    let stands = row.grants.iter().filter(|grant| !back.contains(&grant.end)).count();
    let used = row.ledger.used as usize;
    if used == stands { Ok(()) } else { Err(format!("alias {at}: {used} uses counted, {stands} granted")) }
}
