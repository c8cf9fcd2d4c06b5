//! A next hop's reply is read the same however it arrives, is never read from less than its bytes, and nothing of
//! its words gets into ours.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tempalias_address::{Mailbox, ReversePath};
use tempalias_relay::Refusal;
use tempalias_smtp::MailParameters;
use tempalias_smtp::client::{Capabilities, Envelope, EnvelopeStep, Handshake, HandshakeStep};
use tempalias_smtp::reply::NextHopReply;

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let mut shake = Handshake::new("mx.alias.example".parse().expect("a domain"));
    let mut envelope: Option<Envelope> = None;
    while let Ok(Some((reply, taken))) = NextHopReply::parse(rest) {
        assert!(taken > 0 && taken <= rest.len());
        assert!((200..600).contains(&reply.code()));
        assert!(rest[..taken].ends_with(b"\r\n"));
        for less in [0, taken / 2, taken - 1] {
            assert!(matches!(NextHopReply::parse(&rest[..less]), Ok(None)), "read from {less} of {taken}");
        }
        assert_eq!(NextHopReply::parse(&rest[..taken]), Ok(Some((reply.clone(), taken))));
        rest = &rest[taken..];
        pass_on(&reply);
        match &mut envelope {
            Some(envelope) => {
                if matches!(envelope.hear(&reply), EnvelopeStep::Done(_) | EnvelopeStep::Closing) {
                    return;
                }
            }
            None => match shake.hear(&reply) {
                HandshakeStep::Ready(offered) => envelope = Some(start(&offered)),
                HandshakeStep::Refused => return,
                HandshakeStep::Say(line) => assert!(line.ends_with(b"\r\n")),
            },
        }
    }
});

/// A refusal passed on keeps class and enhanced code, and is otherwise made of our own words.
fn pass_on(reply: &NextHopReply) {
    let Some((class, detail)) = reply.refusal() else { return };
    let ours = Refusal::NextHop(class, detail).reply();
    assert_eq!(ours.status.code() / 100, reply.code() / 100);
    let mut wire = vec![];
    ours.write_to(&mut wire);
    let expected = format!("{}.{}.{} ", reply.code() / 100, detail.subject, detail.detail);
    assert!(wire[4..].starts_with(expected.as_bytes()));
    assert!(wire.len() < 200 && wire.iter().filter(|&&b| b == b'\n').count() == 1);
}

fn start(offered: &Capabilities) -> Envelope {
    let to: Vec<Mailbox> =
        ["a@target.example", "b@target.example"].map(|to| to.parse().expect("an address")).into();
    let parameters = MailParameters { size: Some(9), eight_bit: true, smtputf8: true };
    let mut envelope = Envelope::new(offered, Some((&ReversePath::Null, &parameters)), to.iter());
    let EnvelopeStep::Say(line) = envelope.start() else { panic!("nothing to say") };
    assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), if offered.pipelining { 3 } else { 1 });
    envelope
}
