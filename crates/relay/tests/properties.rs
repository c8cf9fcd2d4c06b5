//! What must hold for any message and any sender, through the whole session.

use proptest::prelude::*;
use tempalias_testkit::machine::solo::{Solo, Verdict};

/// Lines as a message may have them, dot-stuffed, without a first one that starts with white space.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(b"Message-ID: <1@sender.test>".to_vec()),
        Just(b"Subject: x".to_vec()),
        Just(vec![]),
        Just(b"..".to_vec()),
        Just(b" folded".to_vec()),
        prop::collection::vec(any::<u8>().prop_filter("no line end", |b| !b"\r\n".contains(b)), 0..90),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| {
        let mut wire = vec![];
        for (at, mut line) in lines.into_iter().enumerate() {
            if line.first() == Some(&b'.') {
                line.insert(0, b'.');
            }
            let text = line.strip_prefix(b".").unwrap_or(&line);
            if at == 0 && text.first().is_some_and(|first| b" \t".contains(first)) {
                line.insert(0, b'x');
            }
            wire.extend(line);
            wire.extend(b"\r\n");
        }
        wire.extend(b".\r\n");
        wire
    })
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1]), prop::collection::vec(1usize..60, 1..5), Just(vec![100_000])]
}

/// A little of everything that a command, a line end or a dot is made of.
const WORDS: [&str; 30] = [
    "EHLO sender.test\r\n",
    "HELO x\r\n",
    "MAIL FROM:<alice@sender.test>\r\n",
    "MAIL FROM:<>\r\n",
    "MAIL FROM:<a@b.test> SIZE=99999999999\r\n",
    "RCPT TO:<ab12cd@alias.test>\r\n",
    "RCPT TO:<ef34gh@alias.test>\r\n",
    "RCPT TO:<nobody@alias.test>\r\n",
    "RCPT TO:<postmaster>\r\n",
    "RCPT TO:<x@elsewhere.test>\r\n",
    "DATA\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
    "VRFY x\r\n",
    "EXPN\r\n",
    "HELP\r\n",
    "FOO\r\n",
    "GET / HTTP/1.1\r\n",
    "Subject: x\r\n",
    "\r\n",
    ".\r\n",
    "..\r\n",
    "text\r\n.\r\n",
    "\n",
    "\r",
    "\0",
    "Message-ID: <1@x>\r\n\r\nhi\r\n.\r\n",
    " ",
    "x",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn not_one_byte_is_changed_however_it_was_cut(message in message(), cuts in cuts(), seed in any::<u64>()) {
        let mut solo = Solo::new("store: ab12cd -> hidden@target.test, uses 5", seed);
        solo.says("EHLO sender.test\r\n");
        solo.says("MAIL FROM:<alice@sender.test>\r\n");
        solo.says("RCPT TO:<ab12cd@alias.test>\r\n");
        solo.says("DATA\r\n");
        solo.writes_in_pieces(&message, &cuts);
        prop_assert_eq!(solo.last_code(), 250);
        let [mail] = solo.mails() else { panic!("{} mails", solo.mails().len()) };
        let (prefix, rest) = mail.split_at(mail.len() - message.len());
        prop_assert!(rest == message, "{:?}", rest.escape_ascii().to_string());
        let prefix = std::str::from_utf8(prefix).unwrap();
        prop_assert!(prefix.starts_with("Delivered-To: ab12cd@alias.test\r\n"), "{}", prefix);
        prop_assert!(prefix.ends_with("+0000\r\n"), "{}", prefix);
        prop_assert!(!prefix.contains("\r\n\r\n") && !prefix.contains("hidden"), "{}", prefix);
    }

    #[test]
    fn whatever_a_sender_says_each_command_is_answered_once(
        words in prop::collection::vec(0..WORDS.len(), 1..40),
        joined in prop::collection::vec(any::<bool>(), 40),
        seed in any::<u64>(),
    ) {
        let seeds = "store: ab12cd -> hidden@target.test, uses 2\nstore: ef34gh -> secret@target2.test, uses 1";
        let mut solo = Solo::new(seeds, seed);
        solo.next_hop_is_moody();
        let mut write = String::new();
        for (word, joined) in words.iter().zip(joined) {
            write.push_str(WORDS[*word]);
            if !joined {
                solo.says(&std::mem::take(&mut write));
            }
        }
        solo.says(&write);
        solo.hangs_up();
    }

    #[test]
    fn octets_without_sense_do_no_harm(octets in prop::collection::vec(any::<u8>(), 0..300), seed in any::<u64>()) {
        let mut solo = Solo::new("store: ab12cd -> hidden@target.test, uses 2", seed);
        solo.writes_in_pieces(&octets, &[7]);
        solo.hangs_up();
    }
}

/// Everything that might be taken for an end of data: up to five of the octets that one is made of.
#[test]
fn every_end_of_data_but_one_is_refused_or_content() {
    const OCTETS: [u8; 4] = *b".\r\n\0";
    let mut variants = vec![vec![]];
    let mut from = 0;
    for _ in 0..5 {
        let longest: Vec<Vec<u8>> = variants[from..].to_vec();
        from = variants.len();
        for shorter in longest {
            variants.extend(OCTETS.map(|octet| [shorter.as_slice(), &[octet]].concat()));
        }
    }
    assert_eq!(variants.len(), 1 + 4 + 16 + 64 + 256 + 1024);
    let smuggled =
        b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<ab12cd@alias.test>\r\nDATA\r\nsmuggled\r\n.\r\n";
    for variant in variants {
        let message = [b"Subject: x\r\n\r\ntext", variant.as_slice(), smuggled].concat();
        let mut solo = Solo::new("store: ab12cd -> hidden@target.test, uses 5", 1);
        for command in ["EHLO s.test", "MAIL FROM:<a@s.test>", "RCPT TO:<ab12cd@alias.test>", "DATA"] {
            solo.says(&format!("{command}\r\n"));
        }
        solo.writes(&message);
        let ends = variant.windows(5).any(|window| window == b"\r\n.\r\n");
        let shown = variant.escape_ascii().to_string();
        let verdict = solo.verdict();
        if ends {
            // The one true end: what stands behind is the sender's next mail, and answered as such.
            assert!(matches!(verdict, Verdict::Delivered | Verdict::Refused), "{shown}: {verdict:?}");
        } else {
            let bare = is_bare(&variant);
            assert_eq!(verdict, if bare { Verdict::Refused } else { Verdict::Delivered }, "{shown}");
            assert_eq!(solo.mails().len(), usize::from(!bare), "{shown}");
            if let [mail] = solo.mails() {
                assert!(mail.ends_with(&message), "{shown}");
            }
        }
    }
}

/// Whether a CR or LF stands alone in `text` + variant + "MAIL…".
fn is_bare(variant: &[u8]) -> bool {
    let mut rest = variant;
    while let Some((first, behind)) = rest.split_first() {
        rest = match first {
            b'\n' => return true,
            b'\r' => match behind.strip_prefix(b"\n") {
                Some(behind) => behind,
                None => return true,
            },
            _ => behind,
        };
    }
    false
}
