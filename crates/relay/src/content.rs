//! What is read in a message: whether it loops, and which message it is.

use tempalias_alias::{MessageDigest, MessageHasher};
use tempalias_smtp::header::Fields;

use crate::Body;
use crate::prefix::{DELIVERED_TO, LOOP};

/// Fields that do not differ between a sender's attempts at one message, and together make it that message.
/// Trace fields differ; so they are not among them.
const IDENTIFYING: [&str; 9] = [
    "Message-ID",
    "Date",
    "From",
    "To",
    "Cc",
    "Subject",
    "Reply-To",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// Which message this is.
pub(crate) struct Identity {
    pub(crate) digest: MessageDigest,
    /// Whether it has a Message-ID (RFC 5322 §3.6.4).
    pub(crate) identified: bool,
}

/// Reads the whole message once.
pub(crate) fn identify(body: &Body) -> Identity {
    let (header, rest) = body.split();
    let mut hasher = MessageHasher::new();
    let mut identified = false;
    let mut fields = Fields::of(&header);
    for field in fields.by_ref() {
        if IDENTIFYING.iter().any(|name| field.is(name)) {
            hasher.field(field.name, field.value);
        }
        identified |= field.is("Message-ID") && !field.trimmed().is_empty();
    }
    hasher.end_of_fields();
    hasher.body(fields.rest());
    rest.for_each(|piece| hasher.body(piece));
    Identity { digest: hasher.finish(), identified }
}

/// Whether the message has passed through one of these recipients before, or through too many hosts. `marks` are
/// the values that our own `Delivered-To` and `X-Tempalias-Loop` would have.
pub(crate) fn loops<'a>(
    body: &Body,
    max_received: usize,
    marks: impl Iterator<Item = (&'a str, &'a str)>,
) -> bool {
    let (header, _) = body.split();
    let marks: Vec<_> = marks.collect();
    let mut received = 0;
    for field in Fields::of(&header) {
        if field.is("Received") {
            received += 1;
        }
        let value = field.trimmed();
        let ours = (field.is(DELIVERED_TO)
            && marks.iter().any(|(to, _)| value.eq_ignore_ascii_case(to.as_bytes())))
            || (field.is(LOOP) && marks.iter().any(|(_, mac)| value == mac.as_bytes()));
        // RFC 5321 §6.3 asks to count, and to allow for at least 100 in all; the default here is lower, as
        // configured, since no message passes 50 hosts.
        if ours || received > max_received {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::body::{Received, Receiving};

    fn body(text: &str) -> Body {
        let wire = tempalias_smtp::data::stuff(text.as_bytes());
        let mut receiving = Receiving::new(1 << 20);
        assert!(matches!(receiving.take(Bytes::from(wire), true), Received::End(_)));
        receiving.finish().unwrap()
    }

    #[test]
    fn trace_fields_do_not_make_another_message_and_everything_else_does() {
        let base = "Received: a\r\nMessage-ID: <1@x>\r\nSubject: s\r\n\r\nbody\r\n";
        let digest = |text: &str| identify(&body(text)).digest;
        assert_eq!(digest(base), digest(&base.replace("Received: a", "Received: b\r\nX-Spam: no")));
        for (from, to) in
            [("<1@x>", "<2@x>"), ("Subject: s", "Subject: t"), ("body", "bodY"), ("Subject", "Cc")]
        {
            assert_ne!(digest(base), digest(&base.replace(from, to)), "{from}");
        }
        assert_ne!(digest("To: a\r\n\r\n"), digest("\r\nTo: a\r\n"));
    }

    #[test]
    fn only_a_message_id_identifies() {
        assert!(identify(&body("message-id: <1@x>\r\n\r\n")).identified);
        assert!(!identify(&body("Message-ID:\r\n\r\n")).identified);
        assert!(!identify(&body("Subject: x\r\n\r\nMessage-ID: <1@x>\r\n")).identified);
    }

    #[test]
    fn a_loop_is_our_own_mark_or_too_many_hosts() {
        let marks = || [("a@alias.example", "mac")].into_iter();
        assert!(loops(&body("Delivered-To: A@alias.example\r\n\r\n"), 50, marks()));
        assert!(loops(&body("X-Tempalias-Loop: mac\r\n\r\n"), 50, marks()));
        assert!(!loops(
            &body("Delivered-To: b@alias.example\r\nX-Tempalias-Loop: other\r\n\r\n"),
            50,
            marks()
        ));
        assert!(!loops(&body(&format!("{}\r\n", "Received: x\r\n".repeat(50))), 50, marks()));
        assert!(loops(&body(&format!("{}\r\n", "Received: x\r\n".repeat(51))), 50, marks()));
    }
}
