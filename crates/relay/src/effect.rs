//! What a session wants done.

use std::time::Duration;

use bytes::Bytes;
use tempalias_alias::{Attempt, ClaimRequest, ClientTag, Fingerprint, Outcome, Owner, RowKey};
use tempalias_smtp::Reply;

use crate::{Body, NextHop, Permit, Summary};

/// A list of effects, filled by [`crate::Session::handle`], to be performed in order.
pub type Effects = Vec<Effect>;

/// One thing to do. Those marked *asks* are answered by an event, and there is at most one of them in a list, as
/// its last but for `Reply`.
#[derive(Debug)]
pub enum Effect {
    /// Answer the sender. Replies may be gathered until the session waits for the sender.
    Reply(Reply),
    /// Wait before going on: the sender guesses.
    Pause(Duration),
    /// Look an alias up under each of these keys. *Asks.*
    Find(Vec<RowKey>),
    /// Take one of the messages to the operator that this client may send. *Asks.*
    Quota(ClientTag),
    /// Get a connection to the next hop, greeted and ready. *Asks.*
    Connect(NextHop, Freshness),
    /// Write commands to the next hop, in one write.
    Say(Vec<u8>),
    /// Wait for the next hop's next reply. *Asks.*
    Hear,
    /// The connection to the next hop is no longer needed here.
    Release(After),
    /// Wait until a message may be held in memory. *Asks.*
    Reserve,
    /// Give back what is held in memory for this message.
    Discard,
    /// These octets were no part of the message: they are the next commands.
    Unread(Bytes),
    /// Claim a use for each recipient, durably. *Asks.*
    Claim(Vec<ClaimRequest>),
    /// Send prefix, message and final dot. *Asks.*
    SendBody(Outgoing),
    /// Settle claims, durably, and say so; try on if that takes long. *Asks.*
    Settle(Vec<(RowKey, Attempt, Outcome)>),
    /// Settle claims with the next commit.
    SettleLater(Vec<(RowKey, Attempt, Outcome)>),
    /// The sender has read our 250 for these: their claims may be forgotten.
    Acknowledge(Vec<(RowKey, Fingerprint)>),
    /// One mail has ended: log and count it.
    Report(Box<Summary>),
    /// A recipient was refused: count it.
    Refused(tempalias_smtp::Status),
    /// Close the sender's connection, once all replies are written.
    Close,
}

/// Whether a pooled connection will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Any.
    Any,
    /// A new one: a pooled one has just proved dead.
    New,
}

/// In what state a connection is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing is open: a transaction ended with its final reply, or none was begun.
    FinalReply,
    /// A transaction is open, no message has begun: RSET makes it usable.
    OpenTransaction,
    /// In the middle of a message, or in a state that nobody knows: close it, without a dot.
    Unknown,
}

/// A message on its way to the next hop. It cannot be made without a [`Permit`] for each recipient.
#[derive(Debug)]
pub struct Outgoing {
    prefix: Vec<u8>,
    body: Body,
    claimed_by: Option<Owner>,
}

impl Outgoing {
    /// `permits` are those of all the recipients that the next hop was told: the proof that each may have it. None
    /// if one has no permit.
    pub(crate) fn new(permits: &[Permit], told: usize, prefix: Vec<u8>, body: Body) -> Option<Self> {
        let claimed_by = permits.iter().find_map(Permit::owner);
        (told > 0 && permits.len() == told).then_some(Self { prefix, body, claimed_by })
    }

    /// Whose claims permit it, if any were needed: its dot may leave only while the store counts that owner among
    /// the living. Otherwise another node may have taken the message over.
    pub fn claimed_by(&self) -> Option<Owner> {
        self.claimed_by
    }

    /// The header lines that we add.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The message as it came, dot-stuffed, its final dot included.
    pub fn segments(&self) -> &[Bytes] {
        self.body.segments()
    }
}
