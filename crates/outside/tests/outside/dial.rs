//! Which next hop is dialled, in which order, and which never.

use std::time::Duration;

use crate::support::{NextHop, Peer, Zone, config, dialer, domain, listeners, smarthost, soon};
use tempalias_outside::dns::{DnsError, MxAnswer};
use tempalias_outside::{DialError, Host, Route, Smarthost};
use tokio::net::TcpListener;

fn mx(name: &str) -> Route {
    Route::Mx(domain(name))
}

async fn friendly(mut peer: Peer) {
    peer.greet().await;
    peer.agree_for_ever().await;
}

#[tokio::test]
async fn a_host_that_will_not_serve_us_is_left_for_the_next() {
    for refusal in
        ["554 5.7.1 go away\r\n", "421 4.3.2 busy\r\n", "hello there\r\n", "220-a\r\n554 b\r\n", ""]
    {
        let ([first, second], port) = listeners().await;
        let first = NextHop::play_on(first, move |mut peer| async move { peer.say(refusal).await });
        let second = NextHop::play_on(second, friendly);
        let zone = Zone::default()
            .mx("target.test", &[(10, "one.test"), (20, "two.test")])
            .host("one.test", &["127.0.0.1"])
            .host("two.test", &["127.0.0.2"]);
        let connection = soon(dialer(config(port), zone).dial(&mx("target.test"))).await.unwrap();
        assert_eq!(connection.address(), second.address, "after {refusal:?}");
        assert_eq!((first.connections(), second.connections()), (1, 1), "after {refusal:?}");
    }
}

#[tokio::test]
async fn a_refusal_of_ehlo_is_a_refusal_of_the_host() {
    let ([first, second], port) = listeners().await;
    let _first = NextHop::play_on(first, |mut peer| async move {
        peer.greet_offering("550 5.7.1 not you\r\n").await;
        assert_eq!(peer.hear().await.as_deref(), Some("QUIT"));
    });
    let second = NextHop::play_on(second, friendly);
    let zone = Zone::default()
        .mx("target.test", &[(10, "one.test"), (20, "two.test")])
        .host("one.test", &["127.0.0.1"])
        .host("two.test", &["127.0.0.2"]);
    let connection = soon(dialer(config(port), zone).dial(&mx("target.test"))).await.unwrap();
    assert_eq!(connection.address(), second.address);
    assert!(connection.capabilities().pipelining);
}

#[tokio::test]
async fn silence_costs_its_time_limit_and_no_more() {
    let ([first, second], port) = listeners().await;
    let _first = NextHop::play_on(first, |mut peer| async move { drop(peer.rest().await) });
    let second = NextHop::play_on(second, friendly);
    let zone = Zone::default().mx("t.test", &[(1, "h.test")]).host("h.test", &["127.0.0.1", "127.0.0.2"]);
    let mut config = config(port);
    config.timeouts.greeting = Duration::from_millis(50);
    let connection = soon(dialer(config, zone).dial(&mx("t.test"))).await.unwrap();
    assert_eq!(connection.address(), second.address);
}

#[tokio::test]
async fn a_second_address_is_tried_when_the_first_has_no_listener() {
    let (listeners, port) = listeners::<2>().await;
    let [first, second] = listeners;
    drop(first);
    let second = NextHop::play_on(second, friendly);
    let zone = Zone::default().mx("t.test", &[(1, "h.test")]).host("h.test", &["127.0.0.1", "127.0.0.2"]);
    let connection = soon(dialer(config(port), zone).dial(&mx("t.test"))).await.unwrap();
    assert_eq!(connection.address(), second.address);
}

#[tokio::test]
async fn without_mx_the_domain_itself_is_the_host() {
    let hop = NextHop::friendly().await;
    let zone = Zone::default()
        .mx_is("t.test", Ok(MxAnswer::Unspecified))
        .host("t.test", &["127.0.0.1"])
        .mx_is("empty.test", Ok(MxAnswer::Unspecified))
        .host("empty.test", &[]);
    let dialer = dialer(config(hop.address.port()), zone);
    assert_eq!(soon(dialer.dial(&mx("t.test"))).await.unwrap().address(), hop.address);
    assert_eq!(soon(dialer.dial(&mx("empty.test"))).await.unwrap_err(), DialError::NoSuchDomain);
}

#[tokio::test]
async fn every_kind_of_no_is_told_apart() {
    let refusing = NextHop::play(|mut peer| async move { peer.say("554 no\r\n").await }).await;
    let nobody = TcpListener::bind("127.0.0.9:0").await.unwrap().local_addr().unwrap();
    let zone = Zone::default()
        .mx_is("null.test", Ok(MxAnswer::Null))
        .mx_is("servfail.test", Err(DnsError::Temporary))
        .mx("dangling.test", &[(1, "gone.test")])
        .mx_is("unusable.test", Ok(MxAnswer::Hosts(vec![])))
        .mx("halfknown.test", &[(1, "gone.test"), (2, "private.test"), (3, "unknown.test")])
        .host_fails("unknown.test", DnsError::Temporary)
        .mx("private.test", &[(1, "private.test"), (2, "gone.test")])
        .host("private.test", &["10.0.0.1", "::1", "::ffff:192.168.0.1", "64:ff9b::a00:1"])
        .mx("refusing.test", &[(1, "refusing.test"), (2, "private.test")])
        .host("refusing.test", &["127.0.0.1"])
        .mx("dead.test", &[(1, "dead.test"), (2, "private.test"), (3, "unknown.test")])
        .host("dead.test", &[&nobody.ip().to_string()]);
    let dialer = dialer(config(refusing.address.port()), zone);
    for (name, expected) in [
        ("nowhere.test", DialError::NoSuchDomain),
        ("dangling.test", DialError::NoSuchDomain),
        ("unusable.test", DialError::NoSuchDomain),
        ("null.test", DialError::NullMx),
        ("servfail.test", DialError::DnsTemporary),
        ("halfknown.test", DialError::DnsTemporary),
        ("private.test", DialError::BadRoute),
        ("refusing.test", DialError::Refused),
        ("dead.test", DialError::NoConnection),
    ] {
        assert_eq!(soon(dialer.dial(&mx(name))).await.unwrap_err(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_private_address_is_never_connected_to_even_beside_good_ones() {
    let ([private, public], port) = listeners().await;
    let private = NextHop::play_on(private, friendly);
    let public = NextHop::play_on(public, friendly);
    let zone = Zone::default().mx("t.test", &[(1, "h.test")]).host("h.test", &["127.0.0.1", "127.0.0.2"]);
    let mut config = config(port);
    config.allow_private = vec!["127.0.0.2/32".parse().unwrap()];
    let connection = soon(dialer(config, zone).dial(&mx("t.test"))).await.unwrap();
    assert_eq!(connection.address(), public.address);
    assert_eq!(private.connections(), 0);
}

#[tokio::test]
async fn we_never_dial_ourselves() {
    let us = NextHop::friendly().await;
    let port = us.address.port();
    let zone = || Zone::default().mx("t.test", &[(1, "h.test")]).host("h.test", &["127.0.0.1"]);
    for own in ["127.0.0.1", "0.0.0.0", "::"] {
        let mut config = config(port);
        config.own = vec![(own.parse::<std::net::IpAddr>().unwrap(), port).into()];
        let dialer = dialer(config, zone());
        assert_eq!(soon(dialer.dial(&mx("t.test"))).await.unwrap_err(), DialError::BadRoute, "{own}");
        // A mistake of the operator's: nothing may bounce for it.
        let by_hand = soon(dialer.dial(&smarthost(us.address))).await;
        assert_eq!(by_hand.unwrap_err(), DialError::NoConnection, "{own}");
    }
    assert_eq!(us.connections(), 0);
}

#[tokio::test]
async fn a_smarthost_may_be_private_and_its_failures_are_never_final() {
    let hop = NextHop::friendly().await;
    let zone = Zone::default().host("relay.test", &["127.0.0.1"]).host("bare.test", &[]);
    let mut config = config(25);
    config.allow_private.clear();
    let dialer = dialer(config, zone);
    let named =
        |name| Route::Smarthost(Smarthost { host: Host::Name(domain(name)), port: hop.address.port() });
    assert_eq!(dialer.smarthost_size(), None);
    assert_eq!(soon(dialer.dial(&named("relay.test"))).await.unwrap().address(), hop.address);
    assert_eq!(dialer.smarthost_size(), Some(1_000_000));
    for name in ["gone.test", "bare.test"] {
        assert_eq!(soon(dialer.dial(&named(name))).await.unwrap_err(), DialError::DnsTemporary, "{name}");
    }
}

#[tokio::test]
async fn an_answer_before_its_question_is_not_served_by() {
    for (banner, ehlo) in
        [("220 hop\r\n250 hop\r\n", ""), ("220 hop\r\n", "250-hop\r\n250 SIZE\r\n250 sender ok\r\n")]
    {
        let hop = NextHop::play(move |mut peer| async move {
            peer.say(banner).await;
            if peer.hear().await.is_some_and(|line| line.starts_with("EHLO")) {
                peer.say(ehlo).await;
                peer.rest().await;
            }
        })
        .await;
        let answer = soon(dialer(config(25), Zone::default()).dial(&hop.route())).await;
        assert_eq!(answer.unwrap_err(), DialError::Refused, "{banner:?} {ehlo:?}");
    }
}

#[tokio::test]
async fn one_address_under_many_names_is_tried_once_and_many_are_bounded() {
    // Answers on every loopback address.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let hop = NextHop::play_on(listener, |mut peer| async move { peer.say("554 no\r\n").await });
    let mut zone = Zone::default()
        .mx("same.test", &[(1, "a.test"), (2, "b.test")])
        .host("a.test", &["127.0.0.1"])
        .host("b.test", &["127.0.0.1"]);
    let names: Vec<String> = (0..6).map(|n| format!("h{n}.test")).collect();
    let hosts: Vec<(u16, &str)> = names.iter().map(|name| (1, name.as_str())).collect();
    zone = zone.mx("many.test", &hosts);
    for (n, name) in names.iter().enumerate() {
        let addresses: Vec<String> = (1..=10).map(|last| format!("127.0.{n}.{last}")).collect();
        zone = zone.host(name, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let dialer = dialer(config(hop.address.port()), zone);
    assert_eq!(soon(dialer.dial(&mx("same.test"))).await.unwrap_err(), DialError::Refused);
    assert_eq!(hop.connections(), 1);
    assert_eq!(soon(dialer.dial(&mx("many.test"))).await.unwrap_err(), DialError::Refused);
    assert_eq!(hop.connections(), 1 + 12);
}
