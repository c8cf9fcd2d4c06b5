//! `docs/replies.md` is printed from the table of replies. `UPDATE=1` writes it.

use std::fmt::Write as _;
use std::path::Path;

use tempalias_relay::Refusal;
use tempalias_smtp::Status;
use tempalias_smtp::reply::{Detail, Refused};

#[test]
fn the_page_of_replies_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/replies.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/replies.md is out of date; UPDATE=1 cargo test -p tempalias-relay writes it"
    );
}

#[test]
fn words_are_for_people_and_name_nobody() {
    for refusal in Refusal::all() {
        for line in refusal.reply().lines {
            assert!(line.is_ascii() && line.len() <= 100 && !line.ends_with('.'), "{refusal:?}: {line}");
            assert!(line.starts_with(|c: char| c.is_ascii_uppercase()), "{refusal:?}: {line}");
            assert!(!line.contains('@') && !line.contains('!'), "{refusal:?}: {line}");
        }
        assert!(!refusal.status().is_success(), "{refusal:?}");
    }
}

#[test]
fn a_refusal_for_now_asks_to_come_again() {
    for refusal in Refusal::all() {
        let reply = refusal.reply();
        let code = reply.status.code();
        let text = reply.lines.join(" ");
        if (430..500).contains(&code) {
            let hint = ["retry", "again", "separate"].iter().any(|hint| text.contains(hint));
            assert!(hint, "{code} {text}: what is the sender to do?");
        }
    }
}

fn page() -> String {
    let mut out = String::from(
        "# What tempalias answers\n\n\
         <!-- Printed by crates/relay/tests/replies.rs from the tables in crates/relay/src/refusal.rs and \
         crates/smtp/src/reply.rs:\n     change it there, then UPDATE=1 cargo test -p tempalias-relay --test replies. -->\n\n\
         Every line that a sending server can get from us. Code and enhanced code (RFC 3463) come from one table, so they \
         cannot disagree;\nthe words never repeat a next hop's and never name who is behind an alias.\n\n\
         A code that starts with 4 asks the sender to keep the message and come again; 5 is final for this message; 421 \
         also closes the\nconnection.\n\n",
    );
    out.push_str("## Yes\n\n| code | enhanced | when |\n|---|---|---|\n");
    for (status, when) in YES {
        row(&mut out, *status, when);
    }
    for (title, class) in [("Not now", 4), ("No", 5)] {
        let _ = write!(out, "\n## {title}\n\n| code | enhanced | words |\n|---|---|---|\n");
        let mut rows: Vec<_> = Refusal::all().into_iter().map(Refusal::reply).collect();
        rows.retain(|reply| reply.status.code() / 100 == class);
        rows.sort_by_key(|reply| (reply.status.code(), reply.status.enhanced()));
        rows.dedup_by_key(|reply| reply.to_string());
        for reply in rows {
            row(&mut out, reply.status, &reply.lines.join(" / "));
        }
    }
    out.push_str(
        "\nA next hop's refusal is passed on with its class and its enhanced code: `451 4.x.y` or `550 5.x.y`, `x.y` being \
         the next hop's,\nor `0.0` where it gave none.\n",
    );
    out
}

fn row(out: &mut String, status: Status, text: &str) {
    let enhanced = status.enhanced().unwrap_or_default();
    let enhanced = match status {
        Status::NextHop(Refused::Transient, Detail { .. }) => "4.*x*.*y*".into(),
        Status::NextHop(Refused::Permanent, Detail { .. }) => "5.*x*.*y*".into(),
        _ => enhanced,
    };
    let _ = writeln!(out, "| {} | {enhanced} | {text} |", status.code());
}

/// The replies that refuse nothing.
const YES: &[(Status, &str)] = &[
    (Status::Help, "HELP"),
    (Status::Ready, "the banner"),
    (Status::Closing, "QUIT"),
    (Status::Hello, "HELO, EHLO and what we offer"),
    (Status::Completed, "a message that the next hop has accepted; RSET; NOOP"),
    (Status::SenderOk, "MAIL"),
    (Status::RecipientOk, "RCPT"),
    (Status::CannotVerify, "VRFY, whatever it asks for"),
    (Status::StartInput, "DATA"),
];

#[test]
fn every_status_is_on_the_page() {
    let page = page();
    for status in Status::ALL.iter().filter(|status| **status != Status::TlsPolicy) {
        let row = format!("| {} | {} |", status.code(), status.enhanced().unwrap_or_default());
        assert!(page.contains(&row), "{status:?}: {row}");
    }
}
