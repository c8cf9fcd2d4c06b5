//! What really happened, seen from outside: who accepted what, who read which answer; and the promises that are
//! checked at every step.

use tempalias_alias::{Answer, Attempt, ClaimRequest, Fingerprint, KeptState, RowKey};
use tempalias_relay::Summary;
use tempalias_smtp::Status;

use super::calls::{node_of, seen};
use super::fixture::is_identified;
use super::hop::Dot;
use super::queue::Time;
use super::store::{End, Judged, Store};
use super::tally::Seen;
use super::world::World;

#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) parts: Vec<Part>,
    /// Which grant an attempt was made under: attempt, alias, grant.
    attempts: Vec<(Attempt, usize, usize)>,
    /// What the store calls a message: alias, message, its name.
    names: Vec<(usize, usize, Fingerprint)>,
    /// Uses granted to an attempt that its sender had given up, for a message that had been delivered and forgotten
    /// meanwhile: alias, grant.
    belated: Vec<(usize, usize)>,
    /// Attempts that were settled while the clock, which had jumped, had their claims past their retention.
    outlived: Vec<Attempt>,
    /// Claims for an alias that a failover lost, where they are not waited for.
    pub(super) claims_lost: Vec<(Attempt, usize)>,
    pub(super) clock_jumped: bool,
}

/// A message for one alias whose dot has left us.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one message, not a state")]
pub(super) struct Part {
    pub(super) row: usize,
    pub(super) content: usize,
    pub(super) key: RowKey,
    /// None: the alias is not counted, and nothing was claimed.
    pub(super) attempt: Option<Attempt>,
    pub(super) message: Option<Fingerprint>,
    pub(super) grant: Option<usize>,
    pub(super) accepted: bool,
    /// When its verdict was heard, if it was 250.
    pub(super) heard: Option<Time>,
    pub(super) settled: bool,
    /// The entry of a sender that read a 250 for it.
    pub(super) read_by: Option<usize>,
    pub(super) crossed: bool,
    /// The task that would have heard the verdict, or was about to pass it on, is dead.
    pub(super) orphan: bool,
    /// Its dot left although another node's attempt had taken the message over, because the store's clock jumped.
    pub(super) overtaken: bool,
    /// A failover lost that it was settled.
    pub(super) unsettled: bool,
    /// Another attempt took the message over while its node had it in hand and could be told from a dead one.
    pub(super) wronged: bool,
}

impl Truth {
    /// The task that had these attempts in hand has died.
    pub(super) fn orphaned(&mut self, claims: &[ClaimRequest]) {
        for part in self.parts.iter_mut().filter(|part| !part.settled) {
            part.orphan |= claims.iter().any(|claim| part.attempt == Some(claim.attempt));
        }
    }

    /// The next hop's 250 for these was heard.
    pub(super) fn heard(&mut self, parts: &[usize], now: Time) {
        for &part in parts {
            self.parts[part].heard = Some(now);
        }
    }

    pub(super) fn settled(&mut self, attempt: Attempt) {
        let parts = self.parts.iter_mut().filter(|part| part.attempt == Some(attempt));
        parts.for_each(|part| (part.settled, part.unsettled) = (true, false));
    }

    /// A failover lost what this attempt's claim had become: it is in flight again, or not acknowledged.
    pub(super) fn settlement_lost(&mut self, attempt: Attempt, store: &Store) {
        let in_flight = |part: &Part| {
            let mut kept = store.rows[part.row].ledger.kept.iter();
            kept.any(|kept| kept.attempt == attempt && kept.state == KeptState::InFlight)
        };
        let parts = self.parts.iter_mut().filter(|part| part.attempt == Some(attempt) && part.settled);
        for part in parts.filter(|part| in_flight(part)) {
            (part.settled, part.unsettled) = (false, true);
        }
    }

    /// A sender read a 250 for this entry.
    pub(super) fn read(&mut self, row: usize, content: usize, entry: usize) {
        let mut parts = self.parts.iter_mut().rev().filter(|part| part.accepted);
        if let Some(part) = parts.find(|part| part.row == row && part.content == content) {
            part.read_by = Some(entry);
        }
    }

    /// These are about to be forgotten by something sent before our 250 was read.
    pub(super) fn crossed(&mut self, messages: &[(RowKey, Fingerprint)]) {
        for part in &mut self.parts {
            part.crossed |=
                messages.iter().any(|(row, message)| part.message == Some(*message) && part.key == *row);
        }
    }

    fn name(&self, row: usize, content: usize) -> Option<Fingerprint> {
        let known = self.names.iter().find(|known| (known.0, known.1) == (row, content));
        known.map(|known| known.2)
    }

    /// Which message the store calls so.
    pub(super) fn content(&self, row: usize, name: Fingerprint) -> Option<usize> {
        self.names.iter().find(|known| known.0 == row && known.2 == name).map(|known| known.1)
    }

    /// The store was told how an attempt ended, and took its claim for one whose retention was over: nobody's any more.
    pub(super) fn settled_in_vain(&mut self, attempt: Attempt) {
        self.outlived.push(attempt);
    }

    /// Whether that happened, so that the claim lives again once the clock is set back, and nobody settles it.
    pub(super) fn was_settled_in_vain(&self, attempt: Attempt) -> bool {
        self.outlived.contains(&attempt)
    }

    /// Whether a use was granted to an attempt that nobody stood behind any more.
    pub(super) fn is_belated(&self, row: usize, grant: usize) -> bool {
        self.belated.contains(&(row, grant))
    }

    pub(super) fn is_claim_lost(&self, attempt: Attempt) -> bool {
        self.claims_lost.iter().any(|lost| lost.0 == attempt)
    }

    /// Whether a message was accepted under a claim that a failover lost.
    pub(super) fn was_delivered_unclaimed(&self, row: usize, message: Fingerprint) -> bool {
        let lost = |attempt| self.is_claim_lost(attempt);
        let mut parts = self.parts.iter().filter(|part| part.row == row && part.message == Some(message));
        parts.any(|part| part.accepted && part.attempt.is_some_and(lost))
    }

    pub(super) fn grant_of(&self, attempt: Attempt, row: usize) -> Option<usize> {
        self.attempts.iter().rfind(|known| (known.0, known.1) == (attempt, row)).map(|known| known.2)
    }
}

impl World {
    // === What the store is asked.

    /// RCPT looks an alias up.
    pub(super) fn looks(&mut self, link: usize, row: usize) {
        let content = self.entries[self.links[link].client.entry].content;
        let name = self.truth.name(row, content);
        let kept = name.and_then(|name| self.store.kept(row, name, self.now));
        let delivered = kept.is_some_and(|kept| kept.state == KeptState::Delivered);
        self.links[link].mail.was_delivered = delivered && is_identified(content);
    }

    pub(super) fn claims_requested(&mut self, link: usize) {
        let content = self.entries[self.links[link].client.entry].content;
        let claims = self.links[link].mail.claims.clone();
        for claim in claims {
            let Some(row) = self.store.row(claim.row) else { continue };
            match self.truth.name(row, content) {
                None => self.truth.names.push((row, content, claim.fingerprint)),
                Some(name) if name != claim.fingerprint => self.breaks("a message has two fingerprints"),
                Some(_) => {}
            }
        }
        self.links[link].mail.was_delivered = false;
    }

    /// The store answers a claim that the session of a connection asked for.
    pub(super) fn claimed(
        &mut self,
        request: &ClaimRequest,
        judged: &Judged,
        node: usize,
        link: Option<usize>,
    ) {
        let Some(row) = self.store.row(request.row) else { return };
        self.saw(seen(judged.answer));
        if judged.late {
            self.saw(Seen::LateClaims);
        }
        self.note(|_| {
            let number = request.attempt.number;
            let name = request.fingerprint.0[0];
            format!("store: alias {row}, message {name:02x}, attempt {number:x}: {:?}", judged.answer)
        });
        if let Some(from) = judged.from
            && judged.answer == Answer::Again
        {
            if node_of(from.attempt.owner) != node_of(request.attempt.owner) {
                self.saw(Seen::TakenOver);
            }
            self.taken_over(&from, request.attempt, node);
        }
        if matches!(judged.answer, Answer::Granted | Answer::Again)
            && let Some(grant) = judged.grant
        {
            if link.is_some_and(|link| self.is_given_up(link, request, row, grant)) {
                self.truth.belated.push((row, grant));
            }
            self.truth.attempts.push((request.attempt, row, grant));
        }
    }

    /// Whether a new use is for an attempt whose sender hung up, came again, was served by another attempt, and showed
    /// that it knew: it has no reason to come for this one.
    fn is_given_up(&self, link: usize, request: &ClaimRequest, row: usize, grant: usize) -> bool {
        let is_new = !self.truth.attempts.iter().any(|known| (known.1, known.2) == (row, grant));
        let is_over = |end| matches!(end, End::Acknowledged | End::Expired);
        let content = self.entries[self.links[link].client.entry].content;
        let served = |part: &Part| {
            part.accepted
                && (part.row, part.content) == (row, content)
                && part.message == Some(request.fingerprint)
                && part.grant.is_some_and(|before| is_over(self.store.rows[row].grants[before].end))
        };
        is_new && self.links[link].client.is_gone() && self.truth.parts.iter().any(served)
    }

    /// Somebody waits for that answer.
    pub(super) fn sees_claim(&mut self, link: usize, request: &ClaimRequest) {
        let Some(row) = self.store.row(request.row) else { return };
        let kept = self.store.kept(row, request.fingerprint, self.now);
        let delivered = kept.is_some_and(|kept| kept.state == KeptState::Delivered);
        self.links[link].mail.was_delivered |= delivered && request.identified;
    }

    // === The dot, and the next hop.

    /// A dot leaves, for one recipient. The number of what is known of it.
    pub(super) fn dot_left(&mut self, link: usize, row: usize) -> usize {
        let entry = self.links[link].client.entry;
        let content = self.entries[entry].content;
        let key = self.store.rows[row].key;
        let claim = self.links[link].mail.claims.iter().find(|claim| claim.row == key).copied();
        let counted = self.store.rows[row].most > 0;
        let attempt = claim.filter(|_| counted).map(|claim| claim.attempt);
        let claimed = claim.filter(|_| counted);
        let overtaken = claimed.is_some_and(|claim| self.is_overtaken(row, claim.fingerprint, claim.attempt));
        let grant = attempt.and_then(|attempt| self.truth.grant_of(attempt, row));
        let message = self.message(link, row);
        self.truth.parts.push(Part {
            row,
            content,
            key,
            attempt,
            message,
            grant,
            accepted: false,
            heard: None,
            wronged: false,
            settled: false,
            read_by: None,
            crossed: false,
            orphan: false,
            overtaken,
            unsettled: false,
        });
        self.truth.parts.len() - 1
    }

    /// The next hop has the message.
    pub(super) fn accepts(&mut self, dot: &Dot) {
        for &part in &dot.parts {
            self.saw(Seen::Accepted);
            let earlier = self.truth.parts.iter().rposition(|other| {
                let (row, content) = (self.truth.parts[part].row, self.truth.parts[part].content);
                other.accepted && other.row == row && other.content == content
            });
            self.truth.parts[part].accepted = true;
            self.note(|world| {
                let part = &world.truth.parts[part];
                format!("NEXT HOP ACCEPTS message {} for alias {}", part.content, part.row)
            });
            match earlier {
                Some(earlier) if earlier < part => self.is_excused(earlier, part, dot),
                Some(later) => self.came_late(part, later),
                None => {}
            }
        }
    }

    // === What the sender is told.

    pub(super) fn recipient_refused(&mut self, link: usize, status: Status) {
        if status == Status::UnknownAlias && self.links[link].mail.was_delivered {
            self.breaks("P3: a delivered message was answered 550 at RCPT");
        }
    }

    pub(super) fn mail_ends(&mut self, link: usize, summary: &Summary) {
        let content = self.entries[self.links[link].client.entry].content;
        let mail = &self.links[link].mail;
        if summary.status == Status::Disagreement {
            self.saw(Seen::Disagreements);
            self.entries[self.links[link].client.entry].differed += 1;
        } else if summary.status == Status::UnknownAlias && mail.was_delivered {
            self.breaks("P3: a delivered message was answered 550 at the dot");
        } else if summary.ending.is_delivery() {
            let delivered = |row: &usize| {
                let mut parts = self.truth.parts.iter();
                parts.any(|part| {
                    part.row == *row && part.content == content && part.accepted && part.heard.is_some()
                })
            };
            if mail.rows.is_empty() || !mail.rows.iter().all(delivered) {
                self.breaks("P1: a 250 without the next hop's");
            }
        }
    }
}
