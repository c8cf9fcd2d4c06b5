//! Why a message was delivered once more, or taken over while its attempt was in hand: what `docs/proof.md` says of each
//! excuse, and nothing beyond it.

use tempalias_alias::{Attempt, Fingerprint, Kept, KeptState};

use super::calls::{QUICK, Task, node_of};
use super::fixture::is_identified;
use super::hop::Dot;
use super::names::{COME_BACK, CONNECTS};
use super::queue::Time;
use super::store::End;
use super::tally::Seen;
use super::truth::Part;
use super::world::World;

/// What a node needs to tell how a mail ended, with a connection and unless its call is lost: it is woken, and asks.
const TELLS: Time = 100 + 2 * QUICK;

impl World {
    /// An attempt takes over a message that was in flight under another one.
    pub(super) fn taken_over(&mut self, from: &Kept, by: Attempt, taker: usize) {
        if from.state != KeptState::InFlight || from.attempt == by {
            return;
        }
        for part in 0..self.truth.parts.len() {
            let it = &self.truth.parts[part];
            if it.attempt == Some(from.attempt) && !it.settled && !self.is_rightful(it, from.attempt, taker) {
                self.truth.parts[part].wronged = true;
            }
        }
    }

    /// Whether a message whose dot had left may be taken from its attempt by the node `taker`: the attempt's process or
    /// task is dead, or its lease is over because it could not reach the store, and it could not tell what it knew before
    /// the other asked.
    fn is_rightful(&self, part: &Part, attempt: Attempt, taker: usize) -> bool {
        let owner = attempt.owner;
        let Some(node) = self.nodes.iter().position(|node| node_of(owner) == node.names.current.node) else {
            return true;
        };
        let names = &self.nodes[node].names;
        if part.orphan || !self.nodes[node].up || !names.is_under_way(attempt, self.now) {
            return true;
        }
        let tells = |task: &&Task| task.settlements.iter().any(|one| one.1 == attempt);
        let mut telling = self.tasks.iter().filter(tells);
        if part.heard.is_none() && telling.next().is_some() {
            // Its verdict never came, and nobody waits for it any more.
            return true;
        }
        if node == taker {
            return false;
        }
        if !self.can_reach_store(node) || self.store.was_cut(owner, self.now) {
            return true;
        }
        if !names.lost.contains(&owner) && !names.is_cut_off(self.now) {
            return false;
        }
        let Some(heard) = part.heard else { return true };
        let hindered = telling.any(|task| task.hindered);
        let connected = if names.is_cut_off(self.now) { self.now + CONNECTS } else { names.in_touch };
        // After an outage that both had, the other may ask no sooner than this.
        let grace = self.nodes[taker].names.back.map_or(0, |back| back + COME_BACK);
        hindered || heard.max(connected) + TELLS > grace.max(self.now)
    }

    /// No dot leaves once another attempt has taken the message over: unless the clock jumped, over its node's lease, and
    /// another owner's attempt took over before this one could know, or over the retention of its claim.
    pub(super) fn is_overtaken(&mut self, row: usize, message: Fingerprint, attempt: Attempt) -> bool {
        let by = self.store.kept(row, message, self.now).map(|kept| kept.attempt);
        let Some(by) = by.filter(|by| *by != attempt) else { return false };
        let grant = self.truth.grant_of(attempt, row).map(|grant| self.store.rows[row].grants[grant].end);
        if self.truth.is_claim_lost(attempt)
            || self.store.was_cut(attempt.owner, self.now) && !self.truth.clock_jumped
        {
            self.saw(Seen::FailoverExcuses);
            return true;
        }
        let jumped_over = by.owner != attempt.owner || grant == Some(End::Expired);
        if self.truth.clock_jumped && jumped_over {
            self.saw(Seen::ClockExcuses);
        } else {
            self.breaks("P3: a dot left although another attempt had taken the message over");
        }
        true
    }

    /// The dot of an earlier attempt arrives behind that of a later one: nobody may wait for its verdict any more,
    /// unless the store's clock has jumped, over the retention of a claim in flight or the lease of a node that lives.
    pub(super) fn came_late(&mut self, part: usize, later: usize) {
        let Part { row, message, attempt, .. } = self.truth.parts[part];
        let kept = message.and_then(|message| self.store.kept(row, message, self.now));
        let waits =
            kept.is_some_and(|kept| Some(kept.attempt) == attempt && kept.state == KeptState::InFlight);
        let excuse = if !waits {
            Seen::DuplicateVerdictLost
        } else if self.was_forgotten(&self.truth.parts[part]) || self.was_forgotten(&self.truth.parts[later])
        {
            Seen::DuplicateLate
        } else if self.truth.parts[later].attempt.is_some_and(|attempt| self.truth.is_claim_lost(attempt)) {
            // The claim that had taken the message over: the store knows the earlier one again.
            Seen::DuplicateClaimLost
        } else if self.truth.parts[later].overtaken {
            if self.truth.clock_jumped { Seen::DuplicateOvertaken } else { Seen::DuplicateLeaseLost }
        } else {
            return self.breaks("P3: two attempts at one message at the same time");
        };
        self.note(|_| format!("a duplicate, the dot came late: {}", excuse.text()));
        self.saw(excuse);
    }

    /// A message is delivered once more: why was the first delivery not known?
    pub(super) fn is_excused(&mut self, first: usize, again: usize, dot: &Dot) {
        let part = &self.truth.parts[first];
        let dead = |attempt: Attempt| part.orphan || !self.store.is_alive(attempt.owner, self.now);
        let unread = part.read_by.is_none();
        let excuse = match part.attempt {
            Some(_) if part.wronged => {
                return self.breaks("P3: delivered again although its node had it in hand");
            }
            _ if part.heard.is_none() => Seen::DuplicateVerdictLost,
            _ if part.read_by.is_some_and(|by| by != dot.entry) => Seen::SentOnPurpose,
            // Nothing is claimed for it: a sender that gives up waiting and comes again is served again.
            None if unread || self.links[dot.link].client.is_gone() => Seen::DuplicateUncounted,
            // Its sender hung up, came again, was served, showed that it knew; then the attempt that it had given up
            // asked for a use, as a new message does.
            _ if !unread && self.links[dot.link].client.is_gone() => Seen::DuplicateAbandoned,
            _ if !unread => return self.breaks("P3: delivered again although its sender had read 250"),
            Some(attempt) if part.unsettled && dead(attempt) => Seen::DuplicateUnsettled,
            Some(attempt) if !part.settled && dead(attempt) => Seen::DuplicateReaderDied,
            _ if !is_identified(part.content) => Seen::DuplicateUnidentified,
            _ if part.crossed => Seen::DuplicateCrossed,
            _ if self.was_forgotten(part) => Seen::DuplicateLate,
            Some(attempt) if self.truth.is_claim_lost(attempt) => Seen::DuplicateClaimLost,
            _ if self.truth.parts[again].overtaken && !self.truth.clock_jumped => Seen::DuplicateLeaseLost,
            _ if self.truth.parts[again].overtaken => Seen::DuplicateOvertaken,
            _ => return self.breaks("P3: delivered twice, and nothing excuses it"),
        };
        self.note(|_| format!("a duplicate: {}", excuse.text()));
        self.saw(excuse);
    }

    /// Its claim's retention was over when the next one was asked for.
    fn was_forgotten(&self, part: &Part) -> bool {
        let grant = part.grant.and_then(|grant| self.store.rows[part.row].grants.get(grant));
        grant.is_some_and(|grant| grant.end == End::Expired)
    }
}
