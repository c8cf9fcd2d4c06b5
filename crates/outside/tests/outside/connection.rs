//! What a connection promises while a mail is on it.

use std::time::Duration;

use crate::support::{NextHop, Zone, config, dialer, soon};
use bytes::Bytes;
use tempalias_outside::{BodyFailed, Connection, Lost};
use tempalias_smtp::reply::Nonsense;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A connection on which a command was just given.
async fn connect(hop: &NextHop) -> Connection {
    let mut connection = soon(dialer(config(25), Zone::default()).dial(&hop.route())).await.unwrap();
    connection.send(b"DATA\r\n").await.unwrap();
    connection
}

/// A next hop that greets and answers a command with exactly `octets`, and closes if told so.
async fn that_says(octets: &'static str, closes: bool) -> NextHop {
    NextHop::play(move |mut peer| async move {
        peer.greet().await;
        peer.expect("DATA").await;
        peer.say(octets).await;
        if !closes {
            peer.rest().await;
        }
    })
    .await
}

#[tokio::test]
async fn replies_come_one_by_one_however_they_were_cut() {
    let hop = NextHop::play(|mut peer| async move {
        peer.greet().await;
        peer.expect("DATA").await;
        for octet in "250-a\r\n250-b\r\n250 c\r\n550 5.1.1 no\r\n".chars() {
            peer.say(&octet.to_string()).await;
        }
        peer.say("451 4.0.0 x\r\n354 go\r\n").await;
        peer.rest().await;
    })
    .await;
    let mut connection = connect(&hop).await;
    for code in [250, 550, 451, 354] {
        assert_eq!(soon(connection.reply()).await.unwrap().code(), code);
    }
}

#[tokio::test]
async fn nonsense_is_told_from_loss() {
    for (octets, why) in [
        ("hello\r\n", Nonsense::NoCode),
        ("150 wait\r\n", Nonsense::NoCode),
        ("250-a\r\n550 b\r\n", Nonsense::MixedCodes),
        ("250 5.1.1 well\r\n", Nonsense::Contradiction),
        ("250 a\0b\r\n", Nonsense::Octets),
    ] {
        let mut connection = connect(&that_says(octets, false).await).await;
        assert_eq!(soon(connection.reply()).await.unwrap_err(), Lost::Nonsense(why), "{octets:?}");
    }
    for octets in ["", "25", "250-first line\r\n", "250 no line end"] {
        let mut connection = connect(&that_says(octets, true).await).await;
        assert_eq!(soon(connection.reply()).await.unwrap_err(), Lost::Closed, "{octets:?}");
    }
}

#[tokio::test]
async fn an_endless_reply_is_cut_off() {
    for piece in ["x", "250-more\r\n"] {
        let hop = NextHop::play(move |mut peer| async move {
            peer.greet().await;
            peer.expect("DATA").await;
            peer.say(&piece.repeat(1 << 20)).await;
        })
        .await;
        let lost = soon(connect(&hop).await.reply()).await.unwrap_err();
        assert_eq!(lost, Lost::Nonsense(Nonsense::TooLong), "{piece:?}");
    }
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let (say, mut says) = mpsc::unbounded_channel::<&str>();
    let hop = NextHop::once(move |mut peer| async move {
        peer.greet().await;
        peer.expect("DATA").await;
        while let Some(text) = says.recv().await {
            peer.say(text).await;
        }
    })
    .await;
    let mut connection = connect(&hop).await;
    for part in ["250-fir", "st\r\n250", " 2.0.0 sec", "ond"] {
        say.send(part).unwrap();
        assert!(timeout(Duration::from_millis(20), connection.reply()).await.is_err());
    }
    say.send("\r\n").unwrap();
    let reply = soon(connection.reply()).await.unwrap();
    assert_eq!(reply.lines().collect::<Vec<_>>(), ["first", "2.0.0 second"]);
}

#[tokio::test]
async fn a_message_arrives_byte_for_byte() {
    let (arrive, mut arrived) = mpsc::unbounded_channel();
    let hop = NextHop::play(move |mut peer| {
        let arrive = arrive.clone();
        async move {
            peer.greet().await;
            peer.expect("DATA").await;
            arrive.send(peer.rest().await).unwrap();
        }
    })
    .await;
    let long: Vec<u8> = (0..3_000_000u32).map(|n| b"abcdefg\r\n"[n as usize % 9]).collect();
    let tiny: Vec<Bytes> = long[..3_000].chunks(7).map(Bytes::copy_from_slice).collect();
    let large: Vec<Bytes> = long.chunks(60_000).map(Bytes::copy_from_slice).collect();
    for mut segments in [vec![], tiny, large] {
        segments.push(Bytes::from_static(b"\r\n."));
        segments.push(Bytes::new());
        segments.push(Bytes::from_static(b"\r\n"));
        let mut connection = connect(&hop).await;
        soon(connection.send_body(b"Received: us\r\n", &segments, || true)).await.unwrap();
        assert!(connection.dot_may_have_left());
        drop(connection);
        let expected = [b"Received: us\r\n", segments.concat().as_slice()].concat();
        assert_eq!(soon(arrived.recv()).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_short_message_and_its_dot_arrive_as_one() {
    let (arrive, mut arrived) = mpsc::unbounded_channel();
    let hop = NextHop::play(move |mut peer| {
        let arrive = arrive.clone();
        async move {
            peer.greet().await;
            peer.expect("DATA").await;
            let mut packet = [0; 8192];
            let length = peer.stream.read(&mut packet).await.unwrap();
            arrive.send(packet[..length].to_vec()).unwrap();
            peer.rest().await;
        }
    })
    .await;
    for _ in 0..20 {
        let mut connection = connect(&hop).await;
        let segments = [&b"a: b\r\n"[..], b"\r\nbody\r", b"\n", b".\r", b"\n"].map(Bytes::from_static);
        soon(connection.send_body(b"Received: us\r\n", &segments, || true)).await.unwrap();
        assert_eq!(soon(arrived.recv()).await.unwrap(), b"Received: us\r\na: b\r\n\r\nbody\r\n.\r\n");
    }
}

/// The next hop has enough, says so, and closes while most of the message is still with us.
#[tokio::test]
async fn an_early_refusal_is_found_behind_the_broken_write() {
    let hop = NextHop::play(|mut peer| async move {
        peer.greet().await;
        peer.expect("DATA").await;
        peer.say("552 5.3.4 too big\r\n").await;
        // Closing with octets unread resets the connection.
    })
    .await;
    let mut connection = connect(&hop).await;
    let segments = vec![Bytes::from(vec![b'x'; 1 << 20]); 40];
    let failed = soon(connection.send_body(b"", &segments, || true)).await.unwrap_err();
    assert_eq!(failed, BodyFailed { dot_may_have_left: false });
    let reply = soon(connection.pending_reply()).await.unwrap();
    assert_eq!(reply.refusal().unwrap().1.detail, 4);
}

#[tokio::test]
async fn without_an_explanation_there_is_none_and_it_does_not_take_long() {
    let mut closed = connect(&that_says("", true).await).await;
    assert!(soon(closed.pending_reply()).await.is_none());
    let mut silent = connect(&that_says("", false).await).await;
    assert!(timeout(Duration::from_secs(2), silent.pending_reply()).await.unwrap().is_none());
}

/// What is known to be closed gets no dot, and leaves no doubt.
#[tokio::test]
async fn no_dot_is_written_to_who_has_hung_up() {
    let mut connection = connect(&that_says("", true).await).await;
    // Until the close has arrived here.
    assert_eq!(soon(connection.reply()).await.unwrap_err(), Lost::Closed);
    let failed = soon(connection.send_body(b"", &[Bytes::from_static(b"x\r\n.\r\n")], || true)).await;
    assert_eq!(failed, Err(BodyFailed { dot_may_have_left: false }));
}

/// A 250 that came before our dot is no answer to it, however late it was looked for.
#[tokio::test]
async fn no_dot_follows_an_answer_that_came_before_it() {
    let mut connection = connect(&that_says("250 stale\r\n", false).await).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let failed = soon(connection.send_body(b"", &[Bytes::from_static(b"x\r\n.\r\n")], || true)).await;
    assert_eq!(failed, Err(BodyFailed { dot_may_have_left: false }));
    assert_eq!(soon(connection.pending_reply()).await.unwrap().code(), 250);
}

/// Who may no longer speak for its claims stops before the dot, and leaves no doubt; what stands before it may go.
#[tokio::test]
async fn no_dot_is_written_once_it_may_not_be() {
    let mut connection = connect(&that_says("", false).await).await;
    let failed = soon(connection.send_body(b"", &[Bytes::from_static(b"x\r\n.\r\n")], || false)).await;
    assert_eq!(failed, Err(BodyFailed { dot_may_have_left: false }));
    // Asked just before the write with the dot, not when the message begins.
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let may_end = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 100;
    let mut connection = connect(&that_says("", false).await).await;
    let segments = vec![Bytes::from(vec![b'x'; 1 << 20]); 4];
    let failed = soon(connection.send_body(b"", &segments, may_end)).await;
    assert_eq!(failed, Err(BodyFailed { dot_may_have_left: false }));
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
}

/// A deadline drops the writing of a long message: the caller can ask how far it got.
#[tokio::test]
async fn a_dropped_body_tells_whether_its_dot_may_have_left() {
    let hop = that_says("", false).await;
    let stalled = NextHop::play(|mut peer| async move {
        peer.greet().await;
        peer.expect("DATA").await;
        std::future::pending::<()>().await;
    })
    .await;
    let segments = vec![Bytes::from(vec![b'x'; 1 << 20]); 40];
    let mut connection = connect(&stalled).await;
    assert!(
        timeout(Duration::from_millis(100), connection.send_body(b"", &segments, || true)).await.is_err()
    );
    assert!(!connection.dot_may_have_left());
    let mut connection = connect(&hop).await;
    soon(connection.send_body(b"", &segments, || true)).await.unwrap();
    assert!(connection.dot_may_have_left());
}

#[tokio::test]
async fn nothing_is_sent_to_one_that_already_answered() {
    let hop = that_says("354 go\r\n250 2.0.0 thanks\r\n", false).await;
    let mut connection = connect(&hop).await;
    assert_eq!(soon(connection.reply()).await.unwrap().code(), 354);
    let failed = soon(connection.send_body(b"", &[Bytes::from_static(b"x\r\n.\r\n")], || true)).await;
    assert_eq!(failed, Err(BodyFailed { dot_may_have_left: false }));
    assert_eq!(soon(connection.pending_reply()).await.unwrap().code(), 250);
}
