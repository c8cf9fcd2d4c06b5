//! What the pool hands out, what it closes, and how.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{NextHop, Zone, config, dialer, domain, outside, soon, until};
use tempalias_outside::{After, Connection, Freshness, Outside, PoolLimits, Route};
use tokio::sync::{Notify, mpsc};

async fn connect(outside: &Outside, route: &Route) -> Connection {
    soon(outside.connect(route, Freshness::Any)).await.unwrap()
}

/// Whether a command is still answered on it.
async fn works(connection: &mut Connection) -> bool {
    connection.send(b"NOOP\r\n").await.is_ok() && soon(connection.reply()).await.is_ok()
}

#[tokio::test]
async fn after_a_final_reply_the_same_connection_serves_the_next_mail() {
    let hop = NextHop::friendly().await;
    let outside = outside(PoolLimits::default());
    let connection = connect(&outside, &hop.route()).await;
    assert!(!connection.is_reused());
    outside.release(connection, After::FinalReply);
    assert_eq!(outside.idle(), 1);
    let mut connection = connect(&outside, &hop.route()).await;
    assert!(connection.is_reused() && works(&mut connection).await);
    assert!(connection.capabilities().pipelining);
    assert_eq!((hop.connections(), outside.idle()), (1, 0));
}

#[tokio::test]
async fn a_new_one_is_new() {
    let hop = NextHop::friendly().await;
    let outside = outside(PoolLimits::default());
    outside.release(connect(&outside, &hop.route()).await, After::FinalReply);
    let fresh = soon(outside.connect(&hop.route(), Freshness::New)).await.unwrap();
    assert!(!fresh.is_reused());
    assert_eq!((hop.connections(), outside.idle()), (2, 1));
}

#[tokio::test]
async fn routes_do_not_share_connections() {
    let (one, two) = (NextHop::friendly().await, NextHop::friendly().await);
    let outside = outside(PoolLimits::default());
    outside.release(connect(&outside, &one.route()).await, After::FinalReply);
    let other = connect(&outside, &two.route()).await;
    assert_eq!(other.address(), two.address);
    assert!(!other.is_reused());
}

#[tokio::test]
async fn the_one_used_last_is_used_next() {
    // Each connection answers with its number.
    let numbers = AtomicUsize::new(0);
    let hop = NextHop::play(move |mut peer| {
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        async move {
            peer.greet().await;
            while peer.hear().await.is_some() {
                peer.say(&format!("250 {number}\r\n")).await;
            }
        }
    })
    .await;
    let outside = outside(PoolLimits::default());
    let (first, second) = (connect(&outside, &hop.route()).await, connect(&outside, &hop.route()).await);
    outside.release(first, After::FinalReply);
    outside.release(second, After::FinalReply);
    for _ in 0..3 {
        let mut connection = connect(&outside, &hop.route()).await;
        connection.send(b"NOOP\r\n").await.unwrap();
        assert_eq!(soon(connection.reply()).await.unwrap().lines().next(), Some("1"));
        outside.release(connection, After::FinalReply);
    }
    assert_eq!(outside.idle(), 2);
}

#[tokio::test]
async fn a_domain_is_served_again_without_asking_the_dns() {
    let hop = NextHop::friendly().await;
    let zone = Zone::default().mx("t.test", &[(1, "h.test")]).host("h.test", &["127.0.0.1"]);
    let questions = Arc::clone(&zone.questions);
    let outside = Outside::new(dialer(config(hop.address.port()), zone), PoolLimits::default());
    let route = Route::Mx(domain("t.test"));
    outside.release(connect(&outside, &route).await, After::FinalReply);
    assert_eq!(questions.load(Ordering::SeqCst), 2);
    assert!(connect(&outside, &route).await.is_reused());
    assert_eq!(questions.load(Ordering::SeqCst), 2);
}

/// A next hop that does `what` to its idle connection when told to.
async fn that_on_signal(what: &'static str) -> (NextHop, Arc<Notify>, Arc<AtomicUsize>) {
    let (signal, done) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (on, count) = (Arc::clone(&signal), Arc::clone(&done));
    let hop = NextHop::play(move |mut peer| {
        let (on, count) = (Arc::clone(&on), Arc::clone(&count));
        async move {
            peer.greet().await;
            on.notified().await;
            peer.say(what).await;
            if what.is_empty() {
                drop(peer);
                count.fetch_add(1, Ordering::SeqCst);
            } else {
                count.fetch_add(1, Ordering::SeqCst);
                peer.rest().await;
            }
        }
    })
    .await;
    (hop, signal, done)
}

#[tokio::test]
async fn one_that_was_closed_or_spoke_while_idle_is_not_handed_out() {
    for what in ["", "421 4.3.2 going down\r\n", "250 what?\r\n", "2"] {
        let (hop, signal, done) = that_on_signal(what).await;
        let outside = outside(PoolLimits::default());
        outside.release(connect(&outside, &hop.route()).await, After::FinalReply);
        signal.notify_one();
        until(|| done.load(Ordering::SeqCst) == 1).await;
        let connection = connect(&outside, &hop.route()).await;
        assert!(!connection.is_reused(), "{what:?}");
        assert_eq!((hop.connections(), outside.idle()), (2, 0), "{what:?}");
    }
}

#[tokio::test]
async fn one_with_an_answer_nobody_took_is_not_kept() {
    let hop = NextHop::play(|mut peer| async move {
        peer.greet().await;
        peer.expect("NOOP").await;
        peer.say("250 one\r\n250 two\r\n").await;
        peer.rest().await;
    })
    .await;
    for after in [After::FinalReply, After::NeedsReset] {
        let outside = outside(PoolLimits::default());
        let mut connection = connect(&outside, &hop.route()).await;
        assert!(works(&mut connection).await);
        outside.release(connection, after);
        assert_eq!(outside.idle(), 0);
        assert!(!connect(&outside, &hop.route()).await.is_reused(), "{after:?}");
    }
}

/// What the next hop hears after its greeting, and what it answers.
async fn that_answers(answer: &'static str) -> (NextHop, mpsc::UnboundedReceiver<Option<String>>) {
    let (hear, heard) = mpsc::unbounded_channel();
    let hop = NextHop::play(move |mut peer| {
        let hear = hear.clone();
        async move {
            peer.greet().await;
            loop {
                let line = peer.hear().await;
                let is_over = line.is_none();
                drop(hear.send(line));
                if is_over {
                    return;
                }
                peer.say(answer).await;
            }
        }
    })
    .await;
    (hop, heard)
}

#[tokio::test]
async fn an_open_transaction_is_undone_before_the_connection_is_kept() {
    let (hop, mut heard) = that_answers("250 2.0.0 ok\r\n").await;
    let outside = outside(PoolLimits::default());
    outside.release(connect(&outside, &hop.route()).await, After::NeedsReset);
    assert_eq!(soon(heard.recv()).await.unwrap().as_deref(), Some("RSET"));
    until(|| outside.idle() == 1).await;
    assert!(connect(&outside, &hop.route()).await.is_reused());
}

#[tokio::test]
async fn a_reset_that_is_refused_or_not_answered_ends_the_connection() {
    for answer in ["421 4.3.2 bye\r\n", "250 ok\r\n250 ok\r\n", "what\r\n", ""] {
        let (hop, mut heard) = that_answers(answer).await;
        let limits = PoolLimits { reset_wait: Duration::from_millis(50), ..PoolLimits::default() };
        let outside = outside(limits);
        outside.release(connect(&outside, &hop.route()).await, After::NeedsReset);
        assert_eq!(soon(heard.recv()).await.unwrap().as_deref(), Some("RSET"));
        // With or without a QUIT, it is closed.
        while soon(heard.recv()).await.unwrap().is_some() {}
        assert_eq!(outside.idle(), 0, "{answer:?}");
    }
}

#[tokio::test]
async fn a_broken_one_is_closed_without_a_word() {
    let (hop, mut heard) = that_answers("250 ok\r\n").await;
    let outside = outside(PoolLimits::default());
    outside.release(connect(&outside, &hop.route()).await, After::Broken);
    assert_eq!(soon(heard.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn idle_ones_are_closed_politely_when_their_time_is_over() {
    let (hop, mut heard) = that_answers("221 bye\r\n").await;
    let limits = PoolLimits { idle_lifetime: Duration::from_millis(60), ..PoolLimits::default() };
    let outside = outside(limits);
    // Twice, because the reaper ends with the last idle connection and must come back with the next.
    for _ in 0..2 {
        outside.release(connect(&outside, &hop.route()).await, After::FinalReply);
        assert_eq!(soon(heard.recv()).await.unwrap().as_deref(), Some("QUIT"));
        while soon(heard.recv()).await.unwrap().is_some() {}
        assert_eq!(outside.idle(), 0);
    }
}

#[tokio::test]
async fn one_that_served_enough_or_for_long_enough_is_not_kept() {
    let hop = NextHop::friendly().await;
    let limits = PoolLimits { max_uses: 3, ..PoolLimits::default() };
    let few = outside(limits);
    for _ in 0..6 {
        few.release(connect(&few, &hop.route()).await, After::FinalReply);
    }
    assert_eq!((hop.connections(), few.idle()), (2, 0));
    let brief = outside(PoolLimits { max_age: Duration::ZERO, ..PoolLimits::default() });
    brief.release(connect(&brief, &hop.route()).await, After::FinalReply);
    brief.release(connect(&brief, &hop.route()).await, After::NeedsReset);
    assert_eq!(brief.idle(), 0);
}

#[tokio::test]
async fn the_next_hops_own_limit_of_mails_is_kept() {
    let hop = NextHop::play(|mut peer| async move {
        peer.greet_offering("250-hop\r\n250-size\r\n250 limits rcptmax=9 mailmax=2\r\n").await;
        peer.agree_for_ever().await;
    })
    .await;
    let outside = outside(PoolLimits::default());
    for _ in 0..4 {
        outside.release(connect(&outside, &hop.route()).await, After::FinalReply);
    }
    assert_eq!((hop.connections(), outside.idle()), (2, 0));
}

#[tokio::test]
async fn idle_ones_are_bounded_for_each_host_and_in_all() {
    let hop = NextHop::friendly().await;
    let mut zone = Zone::default().host("h.test", &["127.0.0.1"]);
    for name in ["a.test", "b.test"] {
        zone = zone.mx(name, &[(1, "h.test")]);
    }
    let limits =
        PoolLimits { idle_per_mx_host: 2, idle_per_smarthost: 3, max_idle: 4, ..PoolLimits::default() };
    let outside = Outside::new(dialer(config(hop.address.port()), zone), limits);
    // Two domains with one exchanger are one host.
    for (route, kept) in [
        (Route::Mx(domain("a.test")), 1),
        (Route::Mx(domain("b.test")), 2),
        (Route::Mx(domain("b.test")), 2),
        (Route::Mx(domain("a.test")), 2),
        (hop.route(), 3),
        (hop.route(), 3),
    ] {
        let fresh = soon(outside.connect(&route, Freshness::New)).await.unwrap();
        outside.release(fresh, After::FinalReply);
        assert_eq!(outside.idle(), kept, "{route:?}");
    }
    let others = [NextHop::friendly().await, NextHop::friendly().await];
    for other in &others {
        outside.release(connect(&outside, &other.route()).await, After::FinalReply);
        assert_eq!(outside.idle(), 4);
    }
    // The longest idle one went.
    assert!(connect(&outside, &Route::Mx(domain("b.test"))).await.is_reused());
    assert!(!connect(&outside, &Route::Mx(domain("a.test"))).await.is_reused());
}

#[tokio::test]
async fn draining_closes_what_is_idle_and_what_comes_back() {
    let (hop, mut heard) = that_answers("221 bye\r\n").await;
    let outside = outside(PoolLimits::default());
    let (idle, busy) = (connect(&outside, &hop.route()).await, connect(&outside, &hop.route()).await);
    outside.release(idle, After::FinalReply);
    outside.drain();
    assert_eq!(soon(heard.recv()).await.unwrap().as_deref(), Some("QUIT"));
    assert_eq!(soon(heard.recv()).await.unwrap(), None);
    outside.release(busy, After::FinalReply);
    assert_eq!(soon(heard.recv()).await.unwrap().as_deref(), Some("QUIT"));
    assert_eq!(outside.idle(), 0);
    // A mail that is under way may still need a connection.
    assert!(soon(outside.connect(&hop.route(), Freshness::Any)).await.is_ok());
}
