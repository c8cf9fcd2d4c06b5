//! Connections and memory: who may come in, who must make room, and how it all ends.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{Act, NextHop, Running, Sender};

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_only_so_many_connections() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop = NextHop::accepting().await;
    let server = Running::start(folder.path(), next_hop.address, "max_connections_per_address = 3").await;
    let mut inside = vec![];
    for _ in 0..3 {
        inside.push(Sender::greeted(server.smtp).await);
    }
    let mut fourth = Sender::connect(server.smtp).await;
    let (code, text) = fourth.hear().await;
    assert_eq!(code, 421, "{text}");
    assert!(fourth.is_closed().await);
    assert_eq!(inside[0].say("QUIT").await.0, 221);
    assert!(inside[0].is_closed().await);
    // The place is free again, as soon as the server has noticed.
    for _ in 0..100 {
        if Sender::connect(server.smtp).await.hear().await.0 == 220 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place did not become free");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_cap_the_longest_idle_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop = NextHop::accepting().await;
    let server = Running::start(folder.path(), next_hop.address, "max_connections = 3").await;
    let mut senders = vec![];
    for _ in 0..3 {
        senders.push(Sender::greeted(server.smtp).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The first is the oldest, but no longer the longest idle.
    assert_eq!(senders[0].say("NOOP").await.0, 250);
    let mut newcomer = Sender::connect(server.smtp).await;
    assert_eq!(newcomer.hear().await.0, 220);
    assert_eq!(senders[1].hear().await.0, 421);
    assert!(senders[1].is_closed().await);
    assert_eq!(senders[0].say("NOOP").await.0, 250);
    assert_eq!(senders[2].say("NOOP").await.0, 250);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_memory_is_spent_messages_wait_or_are_put_off_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop = NextHop::accepting().await;
    let smtp = "max_message_size = \"128KiB\"\nbody_memory = \"128KiB\"";
    let server = Running::start(folder.path(), next_hop.address, smtp).await;
    let to = server.alias(0).await;
    let mut holders = vec![];
    for _ in 0..2 {
        let mut holder = Sender::greeted(server.smtp).await;
        holder.say("MAIL FROM:<a@sender.test>").await;
        assert_eq!(holder.say(&format!("RCPT TO:<{to}>")).await.0, 250);
        assert_eq!(holder.say("DATA").await.0, 354);
        holders.push(holder);
    }
    // Each holds 64 KiB of the 128: a third one must wait before its 354.
    let mut third = Sender::greeted(server.smtp).await;
    third.say("MAIL FROM:<a@sender.test>").await;
    assert_eq!(third.say(&format!("RCPT TO:<{to}>")).await.0, 250);
    third.write(b"DATA\r\n").await;
    assert!(tokio::time::timeout(Duration::from_millis(300), third.hear()).await.is_err(), "no 354 yet");
    holders[0].write(harness::message("<first@x>").as_bytes()).await;
    assert_eq!(holders[0].hear().await.0, 250);
    assert_eq!(third.hear().await.0, 354);
    // The second wants more than there is: it is read to its end and put off.
    let big = "x".repeat(70_000);
    let big = big.as_bytes().chunks(70).map(|line| [line, b"\r\n"].concat()).collect::<Vec<_>>().concat();
    holders[1].write(b"Subject: big\r\n\r\n").await;
    holders[1].write(&big).await;
    holders[1].write(b".\r\n").await;
    assert_eq!(holders[1].hear().await.0, 452);
    third.write(harness::message("<third@x>").as_bytes()).await;
    assert_eq!(third.hear().await.0, 250);
    assert_eq!(next_hop.by_id().len(), 2);
    assert!(server.ended().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_will_not_be_taken_holds_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop = NextHop::accepting().await;
    let smtp = "max_message_size = \"128KiB\"\nbody_memory = \"128KiB\"";
    let server = Running::start(folder.path(), next_hop.address, smtp).await;
    let to = server.alias(0).await;
    let mut endless = Sender::greeted(server.smtp).await;
    endless.say("MAIL FROM:<a@sender.test>").await;
    assert_eq!(endless.say(&format!("RCPT TO:<{to}>")).await.0, 250);
    assert_eq!(endless.say("DATA").await.0, 354);
    let line = [&[b'x'; 70][..], b"\r\n"].concat();
    endless.write(&line.repeat(20_000)).await;
    let mut other = Sender::greeted(server.smtp).await;
    assert_eq!(other.send(&to, "<other@x>").await, 250);
    endless.write(b".\r\n").await;
    assert_eq!(endless.hear().await.0, 552);
    assert_eq!(endless.send(&to, "<small@x>").await, 250, "the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn uncounted_mail_leaves_nothing_to_settle() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop = NextHop::accepting().await;
    let server = Running::start(folder.path(), next_hop.address, "").await;
    let to = server.alias(0).await;
    let mut sender = Sender::greeted(server.smtp).await;
    assert_eq!(sender.send(&to, "<uncounted@x>").await, 250);
    // Whatever were still to be written would be tried for seconds.
    std::fs::rename(folder.path().join("aliases.db"), folder.path().join("away.db")).unwrap();
    assert_eq!(sender.say("QUIT").await.0, 221);
    let ended = tokio::time::timeout(Duration::from_millis(2500), server.ended()).await;
    assert_eq!(ended, Ok(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_end_idle_sessions_hear_421_and_a_mail_past_its_dot_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop = NextHop::start(Arc::new(|_| Act::AcceptAfter(Duration::from_secs(1)))).await;
    let mut server = Running::start(folder.path(), next_hop.address, "").await;
    let (to, smtp) = (server.alias(1).await, server.smtp);
    let mut idle = Sender::greeted(smtp).await;
    let mut busy = Sender::greeted(smtp).await;
    let sending = tokio::spawn(async move { busy.send(&to, "<last@x>").await });
    next_hop.reached_dot.notified().await;
    server.tell_to_end();
    assert_eq!(idle.hear().await.0, 421);
    assert!(idle.is_closed().await);
    assert_eq!(sending.await.unwrap(), 250);
    assert!(server.ended().await, "everything was finished");
    assert_eq!(next_hop.by_id().len(), 1);
    assert!(tokio::net::TcpStream::connect(smtp).await.is_err(), "nobody listens any more");
}
