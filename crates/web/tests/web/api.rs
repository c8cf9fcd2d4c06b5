//! The API: what the clients of 2010 rely on, and what was added.

use std::time::Duration;

use serde_json::{Value, json};

use crate::site::{BODY_2010, Site, row, text};

#[tokio::test]
async fn the_call_of_2010_works_byte_for_byte() {
    let site = Site::new();
    let answer = site.post(BODY_2010).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let made = answer.json();
    let aid = text(&made, "aid");
    let secret = text(&made, "updatekey");
    assert_eq!(aid.len(), 12);
    let expected = json!({
        "aid": aid,
        "valid_from": null,
        "valid_until": "2026-11-25T12:00:00.000Z",
        "max_usage": 5,
        "target": "t@example.com",
        "updatekey": secret,
        "currentDate": "2026-11-22T12:00:00.000Z",
        "days": 3,
        "address": format!("{aid}@alias.example"),
        "remaining": 5,
        "manage_url": format!("https://alias.example/a/{aid}.{secret}"),
    });
    assert_eq!(made, expected);
}

#[tokio::test]
async fn texts_as_numbers_and_unset_values_are_understood() {
    let site = Site::new();
    let body = json!({"target": " T@Example.COM ", "days": "3", "max-usage": "", "valid-from": null, "valid-until": 0});
    let made = site.post(body.to_string()).await.json();
    assert_eq!(made["days"], 3);
    assert_eq!(made["max_usage"], Value::Null);
    assert_eq!(made["remaining"], Value::Null);
    assert_eq!(made["valid_from"], Value::Null);
    assert_eq!(made["target"], "T@example.com");
}

#[tokio::test]
async fn numbers_above_the_caps_are_lowered_and_told() {
    let site = Site::new();
    let made = site
        .post(r#"{"target":"t@example.com","days":1000,"max-usage":"99999999999999999999"}"#)
        .await
        .json();
    assert_eq!((&made["days"], &made["max_usage"]), (&json!(60), &json!(100)));
    assert_eq!(made["valid_until"], "2027-01-21T12:00:00.000Z");
}

#[tokio::test]
async fn dates_may_be_given() {
    let site = Site::new();
    let body = json!({"target": "t@example.com", "valid-from": "2026-11-24T13:00:00+01:00", "valid-until": "2026-12-01"});
    let made = site.post(body.to_string()).await.json();
    assert_eq!(made["valid_from"], "2026-11-24T12:00:00.000Z");
    assert_eq!(made["valid_until"], "2026-12-01T00:00:00.000Z");
    assert_eq!(site.manage("GET", &made, "").await.json()["state"], "not-yet");
}

#[tokio::test]
async fn the_content_type_decides_with_or_without_parameters() {
    let site = Site::new();
    for (content_type, status) in [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/json;charset=UTF-8", 200),
        ("text/plain", 400),
        ("application/x-www-form-urlencoded", 400),
        ("application/jsonp", 400),
        ("", 400),
    ] {
        let answer = site.send("POST", "/aliases", &[("content-type", content_type)], BODY_2010).await;
        assert_eq!(answer.status.as_u16(), status, "{content_type}");
        if status == 400 {
            answer.error(400, "invalid-request-type");
        }
    }
    site.send("POST", "/aliases", &[], BODY_2010).await.error(400, "invalid-request-type");
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once_and_nothing_is_made() {
    let site = Site::new();
    let body =
        r#"{"target":"nobody","days":"soon","max-usage":-1,"domain":"elsewhere.example","valid-until":"x"}"#;
    let description = site.post(body).await.error(400, "invalid-data");
    for key in ["target:", "days:", "max-usage:", "domain:", "valid-until:"] {
        assert!(description.contains(key), "{key} in {description}");
    }
    for body in
        ["", "{", "[]", "\"x\"", "null", r#"{"target":"t@example.com"}"#, r#"{"days":3}"#, "\u{0}\u{1}"]
    {
        site.post(body).await.error(400, "invalid-data");
    }
    site.post(vec![0xff, 0xfe]).await.error(400, "invalid-data");
    assert_eq!(site.count().await, 0);
}

#[tokio::test]
async fn targets_of_our_own_domains_are_refused() {
    let site = Site::new();
    for target in ["a@alias.example", "a@OTHER.example"] {
        let body = json!({"target": target, "days": 1}).to_string();
        let description = site.post(body).await.error(400, "invalid-data");
        assert!(description.starts_with("target: "), "{description}");
    }
    let closed = Site::with(|policy| policy.allow_domains = vec!["corp.example".parse().unwrap()]);
    closed.post(BODY_2010).await.error(400, "invalid-data");
    assert_eq!(closed.post(r#"{"target":"t@corp.example","days":1}"#).await.status, 200);
}

#[tokio::test]
async fn one_of_two_domains_can_be_chosen() {
    let site = Site::new();
    let made = site.post(r#"{"target":"t@example.com","days":1,"domain":"Other.Example"}"#).await.json();
    assert!(text(&made, "address").ends_with("@other.example"));
    assert_eq!(site.manage("GET", &made, "").await.json()["address"], made["address"]);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_one_at_the_limit_is_not() {
    let site = Site::new();
    let padded = |size: usize| format!("{BODY_2010}{}", " ".repeat(size - BODY_2010.len()));
    assert_eq!(site.post(padded(tempalias_web::MAX_BODY)).await.status, 200);
    for size in [tempalias_web::MAX_BODY + 1, 1_000_000] {
        site.post(padded(size)).await.error(400, "too-much-data");
    }
}

#[tokio::test]
async fn the_secret_opens_the_alias() {
    let site = Site::new();
    let made = site.post(BODY_2010).await.json();
    site.pass(Duration::from_hours(1));
    let seen = site.manage("GET", &made, "").await;
    assert_eq!(seen.status, 200);
    let seen = seen.json();
    for key in
        ["aid", "valid_until", "max_usage", "target", "updatekey", "address", "remaining", "manage_url"]
    {
        assert_eq!(seen[key], made[key], "{key}");
    }
    assert_eq!(seen["currentDate"], "2026-11-22T13:00:00.000Z");
    assert_eq!((&seen["held"], &seen["used"], &seen["state"]), (&json!(0), &json!(0), &json!("active")));
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_alias_get_the_same_answer() {
    let site = Site::new();
    let made = site.post(BODY_2010).await.json();
    let path = format!("/aliases/{}", text(&made, "aid"));
    let bearer =
        [("authorization", "Bearer wrongwrongwrongwrongwrongw"), ("content-type", "application/json")];
    for method in ["GET", "PATCH", "DELETE"] {
        let mut answers = Vec::new();
        for path in
            [path.as_str(), "/aliases/aaaaaaaaaaaa", "/aliases/postmaster", "/aliases/%ff", "/aliases/a%20b"]
        {
            let answer = site.send(method, path, &bearer, r#"{"days":"x"}"#).await;
            if path != "/aliases/%ff" {
                answer.error(404, "not-found");
            }
            answers.push((answer.status, answer.headers.clone(), answer.bytes.clone()));
        }
        assert_eq!(answers[0], answers[1], "{method}");
        assert_eq!(answers[0], answers[2], "{method}");
        assert_eq!(answers[0], answers[4], "{method}");
        assert_eq!(answers[3].0, 404);
        for headers in [
            &[][..],
            &[("authorization", "Basic eDp5")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Bearer")],
        ] {
            for path in [path.as_str(), "/aliases/aaaaaaaaaaaa"] {
                let answer = site.send(method, path, headers, "").await;
                answer.error(401, "unauthorized");
                assert_eq!(answer.header("www-authenticate"), "Bearer");
            }
        }
    }
    assert_eq!(site.manage("GET", &made, "").await.status, 200);
}

#[tokio::test]
async fn a_change_counts_days_from_now_and_messages_in_total() {
    let site = Site::new();
    let made = site.post(BODY_2010).await.json();
    site.pass(Duration::from_hours(24));
    let changed = site.manage("PATCH", &made, r#"{"days":"10","max-usage":1000}"#).await.json();
    assert_eq!(changed["valid_until"], "2026-12-03T12:00:00.000Z");
    assert_eq!((&changed["max_usage"], &changed["days"]), (&json!(100), &json!(10)));
    let paused = site.manage("PATCH", &made, r#"{"paused":true}"#).await.json();
    assert_eq!((&paused["state"], &paused["paused"]), (&json!("paused"), &json!(true)));
    assert_eq!(paused["max_usage"], 100);
    let resumed = site.manage("PATCH", &made, r#"{"paused":false}"#).await.json();
    assert_eq!(resumed["state"], "active");
}

#[tokio::test]
async fn a_change_that_cannot_be_made_is_not_half_made() {
    let site = Site::new();
    let made = site.post(BODY_2010).await.json();
    for (body, key) in [
        (r#"{"days":10,"paused":"yes"}"#, "paused:"),
        (r#"{"days":10,"valid-until":"2027-01-01"}"#, "valid-until:"),
        (r#"{"days":10,"target":"x@example.com"}"#, "target:"),
        (r#"{"days":10,"max-usage":"many"}"#, "max-usage:"),
    ] {
        let description = site.manage("PATCH", &made, body).await.error(400, "invalid-data");
        assert!(description.starts_with(key), "{description}");
    }
    assert_eq!(site.manage("GET", &made, "").await.json()["valid_until"], made["valid_until"]);
}

#[tokio::test]
async fn an_ended_alias_stays_ended_also_for_its_owner() {
    let site = Site::new();
    let made = site.post(r#"{"target":"t@example.com","max-usage":1,"days":1}"#).await.json();
    site.hold_one(text(&made, "aid")).await;
    assert_eq!(site.manage("GET", &made, "").await.json()["state"], "held");
    // Not over yet: what is held may come back.
    assert_eq!(site.manage("PATCH", &made, r#"{"max-usage":2}"#).await.json()["state"], "active");
    site.pass(Duration::from_hours(25));
    assert_eq!(site.manage("GET", &made, "").await.json()["state"], "expired");
    site.manage("PATCH", &made, r#"{"days":1,"max-usage":3}"#).await.error(409, "ended");
    assert_eq!(site.manage("GET", &made, "").await.json()["state"], "expired");
}

#[tokio::test]
async fn deleted_is_gone() {
    let site = Site::new();
    let made = site.post(BODY_2010).await.json();
    let answer = site.manage("DELETE", &made, "").await;
    assert_eq!((answer.status.as_u16(), answer.bytes.len()), (204, 0));
    for method in ["GET", "PATCH", "DELETE"] {
        site.manage(method, &made, "{}").await.error(404, "not-found");
    }
    let row = site.store.find(&[row(text(&made, "aid"))]).await.unwrap().unwrap();
    assert!(row.sealed.0.is_empty(), "whom it belonged to is wiped");
}

#[tokio::test]
async fn the_same_request_under_one_name_makes_one_alias() {
    let site = Site::new();
    let named = [("content-type", "application/json"), ("idempotency-key", "a-name-of-16-chr")];
    let first = site.send("POST", "/aliases", &named, BODY_2010).await;
    assert_eq!(first.status, 200);
    site.pass(Duration::from_hours(23));
    for _ in 0..10 {
        let again = site.send("POST", "/aliases", &named, BODY_2010).await;
        assert_eq!((again.status, &again.bytes), (first.status, &first.bytes));
    }
    assert_eq!(site.count().await, 1);
    let other = site.send("POST", "/aliases", &named, r#"{"target":"t@example.com","days":4}"#).await;
    other.error(422, "idempotency-key-reused");
    let short = [("content-type", "application/json"), ("idempotency-key", "fifteen-letters")];
    site.send("POST", "/aliases", &short, BODY_2010).await.error(400, "invalid-data");
    assert_eq!(site.count().await, 1);
    site.pass(Duration::from_hours(2));
    assert_ne!(
        site.send("POST", "/aliases", &named, BODY_2010).await.bytes,
        first.bytes,
        "a day later it is new"
    );
}

#[tokio::test]
async fn the_same_request_at_the_same_time_makes_one_alias() {
    let site = Site::new();
    let named = [("content-type", "application/json"), ("idempotency-key", "0123456789abcdef")];
    let send = || site.send("POST", "/aliases", &named, BODY_2010);
    let (a, b, c, d) = tokio::join!(send(), send(), send(), send());
    for other in [&b, &c, &d] {
        assert_eq!((a.status, &a.bytes), (other.status, &other.bytes));
    }
    assert_eq!(site.count().await, 1);
}

#[tokio::test]
async fn one_network_may_make_a_burst_and_then_has_to_wait() {
    let site = Site::new();
    for _ in 0..3 {
        site.post("{}").await.error(400, "invalid-data");
    }
    for _ in 0..5 {
        assert_eq!(site.post(BODY_2010).await.status, 200);
    }
    let refused = site.post(BODY_2010).await;
    let description = refused.error(429, "rate-limited");
    assert_eq!(refused.header("retry-after"), "30");
    assert!(description.contains("30 seconds"), "{description}");
    let json = [("content-type", "application/json")];
    assert_eq!(site.send_from("192.0.2.2", "POST", "/aliases", &json, BODY_2010).await.status, 200);
    site.pass(Duration::from_secs(29));
    assert_eq!(site.post(BODY_2010).await.header("retry-after"), "1");
    site.pass(Duration::from_secs(1));
    assert_eq!(site.post(BODY_2010).await.status, 200);
    site.post(BODY_2010).await.error(429, "rate-limited");
}

#[tokio::test]
async fn a_forged_forwarded_for_opens_no_new_bucket() {
    let site = Site::with(|policy| policy.create_rate.burst = 1);
    let from = async |peer: &str, forwarded: &str| {
        let headers = [("content-type", "application/json"), ("x-forwarded-for", forwarded)];
        site.send_from(peer, "POST", "/aliases", &headers, BODY_2010).await.status.as_u16()
    };
    assert_eq!(from("192.0.2.9", "203.0.113.1").await, 200);
    assert_eq!(from("192.0.2.9", "203.0.113.2").await, 429, "an untrusted peer is not believed");
    assert_eq!(from("127.0.0.1", "203.0.113.3").await, 200, "the proxy is");
    assert_eq!(from("127.0.0.1", "203.0.113.3").await, 429);
    assert_eq!(from("127.0.0.1", "1.1.1.1, 203.0.113.3").await, 429, "what stands to the left is invented");
    assert_eq!(from("127.0.0.1", "203.0.113.4").await, 200);
    assert_eq!(from("127.0.0.1", "2001:db8::1").await, 200);
    assert_eq!(from("127.0.0.1", "2001:db8::2").await, 429, "one /64 is one client");
}

#[tokio::test]
async fn other_methods_are_told_which_there_are() {
    let site = Site::new();
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let answer = site.send(method, "/aliases", &[], "").await;
        answer.error(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), "POST");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    let answer = site.send("POST", "/aliases/abc", &[], "").await;
    answer.error(405, "method-not-allowed");
    for method in ["GET", "PATCH", "DELETE"] {
        assert!(answer.header("allow").contains(method), "{}", answer.header("allow"));
    }
    let jsonp = site.get("/aliases?callback=f&target=t@example.com&days=1").await;
    jsonp.error(405, "method-not-allowed");
    assert_eq!(site.count().await, 0);
    site.get("/aliases/a/b").await.error(404, "not-found");
}

#[tokio::test]
async fn the_description_names_every_route() {
    let site = Site::new();
    let document = site.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.keys().collect::<Vec<_>>(), ["/aliases", "/aliases/{aid}"]);
    assert!(paths["/aliases/{aid}"]["patch"]["responses"]["409"].is_object(), "an alias that has ended");
    let made = site.post(BODY_2010).await.json();
    let described = document["components"]["schemas"]["MadeAlias"]["properties"].as_object().unwrap();
    assert_eq!(described.keys().collect::<Vec<_>>(), made.as_object().unwrap().keys().collect::<Vec<_>>());
}
