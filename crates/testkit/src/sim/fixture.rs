//! What all runs share, made once: keys, the operator's decisions, sealed aliases, the texts of messages.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use tempalias_alias::{AliasId, Keys, ManageHash, Private, RowKey, Sealed, ServerKey};
use tempalias_relay::{DeliveryPolicy, Limits, Policy};
use tempalias_smtp::client::Capabilities;
use tempalias_smtp::reply::NextHopReply;

/// Aliases that there are at most.
pub(super) const ALIASES: usize = 3;
/// Different messages that there are at most.
pub(super) const CONTENTS: usize = 8;

pub(super) struct Fixture {
    pub(super) policy: Arc<Policy>,
    /// Any moment: only differences count.
    pub(super) base: Instant,
    pub(super) aliases: Vec<Alias>,
    /// By content and variant of the trace field: a sender's attempts differ in it.
    pub(super) messages: Vec<[Bytes; 2]>,
    pub(super) offers: [Capabilities; 2],
    pub(super) replies: Replies,
}

pub(super) struct Alias {
    pub(super) row: RowKey,
    pub(super) sealed: Sealed,
    pub(super) rcpt: Bytes,
    /// The command that names it to the next hop.
    pub(super) named: Vec<u8>,
}

/// What next hops say.
pub(super) struct Replies {
    pub(super) ok: NextHopReply,
    pub(super) go: NextHopReply,
    pub(super) later: NextHopReply,
    pub(super) never: NextHopReply,
    pub(super) closing: NextHopReply,
}

/// Every other content has no Message-ID from this one on.
pub(super) fn is_identified(content: usize) -> bool {
    content < CONTENTS - 2
}

impl Fixture {
    pub(super) fn get() -> &'static Self {
        static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::new);
        &FIXTURE
    }

    fn new() -> Self {
        let keys = Arc::new(Keys::new(ServerKey::new([1; 32]), vec![]));
        let aliases = (0..ALIASES).map(|number| Alias::new(number, keys.first())).collect();
        let policy = Policy {
            hostname: "mx.alias.test".parse().expect("a name"),
            domains: vec!["alias.test".parse().expect("a name")],
            operator: "operator@target.test".parse().expect("a mailbox"),
            delivery: DeliveryPolicy::Smarthost,
            public_url: "https://alias.test".into(),
            keys,
            limits: Limits::default(),
        };
        let reply =
            |text: &str| NextHopReply::parse(text.as_bytes()).expect("a reply").expect("a whole one").0;
        let offers = |text: &str| Capabilities::of(&reply(text));
        Self {
            policy: Arc::new(policy),
            base: Instant::now(),
            aliases,
            messages: (0..CONTENTS).map(|content| [0, 1].map(|trace| message(content, trace))).collect(),
            offers: [
                offers("250-hop.test\r\n250 8BITMIME\r\n"),
                offers("250-hop.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"),
            ],
            replies: Replies {
                ok: reply("250 ok\r\n"),
                go: reply("354 go\r\n"),
                later: reply("450 4.2.1 not now\r\n"),
                never: reply("550 5.7.1 no\r\n"),
                closing: reply("421 4.3.2 closing\r\n"),
            },
        }
    }
}

impl Alias {
    fn new(number: usize, key: &ServerKey) -> Self {
        let id: AliasId = format!("abcde{}", char::from(b"fgh"[number])).parse().expect("an alias");
        let target = format!("hidden{number}@target.test");
        let private = Private {
            target: target.parse().expect("a mailbox"),
            domain: "alias.test".parse().expect("a name"),
            manage: ManageHash([7; 16]),
        };
        Self {
            row: key.row_key(&id),
            sealed: key.seal(&id, &private, [9; 12]),
            rcpt: Bytes::from(format!("RCPT TO:<{id}@alias.test>\r\n")),
            named: format!("RCPT TO:<{target}>").into_bytes(),
        }
    }
}

fn message(content: usize, trace: usize) -> Bytes {
    let id =
        if is_identified(content) { format!("Message-ID: <{content}@s.test>\r\n") } else { String::new() };
    Bytes::from(format!("Received: by relay{trace}\r\n{id}Subject: {content}\r\n\r\nText {content}\r\n.\r\n"))
}
