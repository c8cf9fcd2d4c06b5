//! The promises about uses, with a whole server, many senders at once and next hops that misbehave.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{Act, NextHop, Running, Sender};

/// Sends `id` until it is accepted or refused for good; the final code.
async fn persist(server: std::net::SocketAddr, to: &str, id: &str) -> u16 {
    for _ in 0..400 {
        let mut sender = Sender::connect(server).await;
        if sender.hear().await.0 != 220 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        sender.say("EHLO sender.test").await;
        let code = sender.send(to, id).await;
        sender.write(b"QUIT\r\n").await;
        sender.hear().await;
        if code == 250 || code >= 500 {
            return code;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{id} is neither accepted nor refused");
}

/// 64 senders, one message each, all at once, each retrying until it has its answer.
async fn race(uses: u32, next_hop: &NextHop, folder: &std::path::Path) -> Vec<(String, u16)> {
    let server = Running::start(folder, next_hop.address, "max_connections_per_address = 200").await;
    let to = server.alias(uses).await;
    let senders: Vec<_> = (0..64)
        .map(|n| {
            let (server, to) = (server.smtp, to.clone());
            let id = format!("<{n}@race>");
            tokio::spawn(async move { (id.clone(), persist(server, &to, &id).await) })
        })
        .collect();
    let mut told = vec![];
    for sender in senders {
        told.push(sender.await.unwrap());
    }
    assert!(server.ended().await);
    told
}

fn check(uses: u32, next_hop: &NextHop, told: &[(String, u16)]) {
    let accepted = next_hop.by_id();
    let wanted = (uses as usize).min(64);
    assert_eq!(accepted.len(), wanted, "exactly {wanted} distinct messages, no more and no fewer");
    for (id, code) in told {
        assert_eq!(*code == 250, accepted.contains_key(id), "{id} was told {code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_senders_at_once_exactly_n_are_delivered() {
    for uses in [1, 5, 100] {
        let folder = tempfile::tempdir().unwrap();
        let next_hop = NextHop::accepting().await;
        let told = race(uses, &next_hop, folder.path()).await;
        check(uses, &next_hop, &told);
        assert!(next_hop.by_id().values().all(|&times| times == 1), "nothing twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_verdicts_and_deferrals_change_nothing_about_n() {
    for uses in [1, 5] {
        let folder = tempfile::tempdir().unwrap();
        let script = |n: usize| match n % 5 {
            0 => Act::Defer,
            1 => Act::AcceptAndVanish,
            2 => Act::AcceptAfter(Duration::from_millis(5)),
            _ => Act::Accept,
        };
        let next_hop = NextHop::start(Arc::new(script)).await;
        let told = race(uses, &next_hop, folder.path()).await;
        check(uses, &next_hop, &told);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_spend_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop = NextHop::start(Arc::new(|n| if n < 3 { Act::Refuse } else { Act::Accept })).await;
    let server = Running::start(folder.path(), next_hop.address, "").await;
    let to = server.alias(1).await;
    let mut sender = Sender::greeted(server.smtp).await;
    for n in 0..3 {
        assert_eq!(sender.send(&to, &format!("<{n}@refused>")).await, 550);
    }
    assert_eq!(sender.send(&to, "<good@x>").await, 250);
    assert_eq!(sender.send(&to, "<late@x>").await, 550);
    assert_eq!(next_hop.by_id().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_never_read_our_250_is_told_it_again_and_nothing_is_sent_twice() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop = NextHop::start(Arc::new(|_| Act::AcceptAfter(Duration::from_millis(200)))).await;
    let server = Running::start(folder.path(), next_hop.address, "").await;
    let to = server.alias(1).await;
    for pipelined_quit in [true, false] {
        let id = "<once@x>";
        let mut sender = Sender::greeted(server.smtp).await;
        if pipelined_quit {
            // QUIT stands behind the dot before our 250 exists: it shows nothing.
            sender.say("MAIL FROM:<author@sender.test>").await;
            assert_eq!(sender.say(&format!("RCPT TO:<{to}>")).await.0, 250);
            assert_eq!(sender.say("DATA").await.0, 354);
            sender.write(format!("{}QUIT\r\n", harness::message(id)).as_bytes()).await;
            assert_eq!(sender.hear().await.0, 250);
            assert_eq!(sender.hear().await.0, 221);
        } else {
            assert_eq!(sender.send(&to, id).await, 250, "the retry gets past RCPT and hears 250");
            assert_eq!(sender.say("QUIT").await.0, 221);
        }
    }
    assert_eq!(next_hop.by_id().values().sum::<usize>(), 1);
    // Now it is known that the sender read it: the same message again is a new one, and there is no use left.
    let mut sender = Sender::greeted(server.smtp).await;
    assert_eq!(sender.say("MAIL FROM:<author@sender.test>").await.0, 250);
    assert_eq!(
        sender.say(&format!("RCPT TO:<{to}>")).await.0,
        550,
        "at RCPT: no message is expected any more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_retry_takes_the_same_use() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop =
        NextHop::start(Arc::new(|n| if n == 0 { Act::AcceptAndVanish } else { Act::Accept })).await;
    let server = Running::start(folder.path(), next_hop.address, "").await;
    let to = server.alias(1).await;
    let mut sender = Sender::greeted(server.smtp).await;
    assert_eq!(sender.send(&to, "<doubt@x>").await, 451);
    let mut other = Sender::greeted(server.smtp).await;
    assert_eq!(other.say("MAIL FROM:<author@other.test>").await.0, 250);
    assert_eq!(other.say(&format!("RCPT TO:<{to}>")).await.0, 450, "the only use is held");
    drop((sender, other));
    assert!(server.ended().await);
    let server = Running::start(folder.path(), next_hop.address, "").await;
    let mut sender = Sender::greeted(server.smtp).await;
    assert_eq!(sender.send(&to, "<doubt@x>").await, 250);
    assert_eq!(sender.send(&to, "<more@x>").await, 550);
    assert_eq!(next_hop.by_id().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_only_when_the_store_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop = NextHop::start(Arc::new(|_| Act::RefuseAfter(Duration::from_millis(200)))).await;
    let server = Running::start(folder.path(), next_hop.address, "").await;
    let (to, smtp) = (server.alias(1).await, server.smtp);
    let mut sender = Sender::greeted(smtp).await;
    let mut sending = tokio::spawn(async move { sender.send(&to, "<refused@x>").await });
    next_hop.reached_dot.notified().await;
    // The claim is granted; from now on nothing can be written.
    let lock = rusqlite::Connection::open(folder.path().join("aliases.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let early = tokio::time::timeout(Duration::from_millis(700), &mut sending).await;
    assert!(early.is_err(), "told {early:?} before the use was given back");
    drop(lock);
    assert_eq!(sending.await.unwrap(), 550);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_next_hop_hears_rset_only_where_something_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop = NextHop::accepting().await;
    let server = Running::start(folder.path(), next_hop.address, "").await;
    let to = server.alias(9).await;
    let mut sender = Sender::greeted(server.smtp).await;
    assert_eq!(sender.send(&to, "<first@x>").await, 250);
    assert_eq!(sender.send(&to, "<second@x>").await, 250);
    sender.say("MAIL FROM:<author@sender.test>").await;
    assert_eq!(sender.say(&format!("RCPT TO:<{to}>")).await.0, 250);
    assert_eq!(sender.say("RSET").await.0, 250);
    for _ in 0..500 {
        if next_hop.heard.lock().unwrap().iter().any(|verb| verb == "RSET") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The connection is back in the pool once the answer to RSET was read.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(sender.send(&to, "<third@x>").await, 250);
    let heard = next_hop.heard.lock().unwrap().join(" ");
    let mail = "MAIL RCPT DATA";
    assert_eq!(heard, format!("connected EHLO {mail} {mail} MAIL RCPT RSET {mail}"));
}
