//! A whole site in memory: the router over a real store in a temporary folder, with a clock that the test moves.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempalias_alias::{
    Attempt, Caps, ClaimRequest, Fingerprint, Keys, Owner, Rate, RowKey, SenderTag, ServerKey, UnixTime,
};
use tempalias_service::{Aliases, Policy, Random};
use tempalias_store::{Options, Store};
use tempalias_web::{Peer, WebState};
use tower::ServiceExt as _;

/// The moment at which every test begins: 2026-11-22T12:00:00Z.
pub(crate) const START: u64 = 1_795_348_800_000;
pub(crate) const BODY_2010: &str = r#"{"target":"t@example.com","days": 3,"max-usage": 5}"#;

pub(crate) struct Site {
    pub(crate) router: Router,
    pub(crate) aliases: Aliases,
    pub(crate) store: Store,
    now: Arc<AtomicU64>,
    folder: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(adapt: impl FnOnce(&mut Policy)) -> Self {
        Self::build(adapt, Arc::new(|bytes: &mut [u8]| getrandom::fill(bytes).unwrap()))
    }

    pub(crate) fn with_random(random: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        Self::build(|_| (), Arc::new(random))
    }

    fn build(adapt: impl FnOnce(&mut Policy), random: Random) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(START));
        let clock = Arc::clone(&now);
        let keys = Keys::new(ServerKey::new([1; 32]), Vec::new());
        let store = Store::open(Options {
            path: folder.path().join("aliases.db"),
            boot: 7,
            clock: Arc::new(move || UnixTime::from_millis(clock.load(Ordering::SeqCst))),
            keys: keys.all().map(ServerKey::id).collect(),
        })
        .unwrap();
        let mut policy = Policy {
            default_domain: "alias.example".parse().unwrap(),
            more_domains: vec!["other.example".parse().unwrap()],
            caps: Caps { max_days: 60, max_usage: 100 },
            allow_domains: Vec::new(),
            public_url: "https://alias.example".parse().unwrap(),
            create_rate: Rate { burst: 5, every: Duration::from_secs(30) },
        };
        adapt(&mut policy);
        let aliases = Aliases::new(store.clone(), Arc::new(keys), policy, random);
        let trusted = vec!["127.0.0.1/32".parse().unwrap()];
        let router = tempalias_web::router(WebState::new(aliases.clone(), trusted));
        Self { router, aliases, store, now, folder }
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.now.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        self.send_from("192.0.2.1", method, path, headers, body).await
    }

    pub(crate) async fn send_from(
        &self,
        peer: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let peer: IpAddr = peer.parse().unwrap();
        let mut request =
            Request::builder().method(Method::try_from(method).unwrap()).uri(path).extension(Peer(peer));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(&self.router, request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    /// An API call with a JSON body.
    pub(crate) async fn post(&self, body: impl Into<Body>) -> Answer {
        self.send("POST", "/aliases", &[("content-type", "application/json")], body).await
    }

    /// A form as a browser sends it.
    pub(crate) async fn submit(&self, path: &str, form: &str) -> Answer {
        let headers =
            [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];
        self.send("POST", path, &headers, form.to_owned()).await
    }

    /// A call to one alias with its secret.
    pub(crate) async fn manage(&self, method: &str, made: &Value, body: &str) -> Answer {
        let path = format!("/aliases/{}", text(made, "aid"));
        let bearer = format!("Bearer {}", text(made, "updatekey"));
        let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
        self.send(method, &path, &headers, body.to_owned()).await
    }

    /// How many aliases the store holds.
    pub(crate) async fn count(&self) -> usize {
        self.aliases.list(None, 1000).await.unwrap().len()
    }

    /// As if the disk hung: nothing can be written until the guard is dropped.
    pub(crate) fn lock_store(&self) -> rusqlite::Connection {
        let lock = rusqlite::Connection::open(self.folder.path().join("aliases.db")).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        lock
    }

    /// Leaves one use of the alias in the state that a crash leaves behind.
    pub(crate) async fn hold_one(&self, aid: &str) {
        let request = ClaimRequest {
            row: row(aid),
            fingerprint: Fingerprint([1; 16]),
            was_counted: true,
            identified: true,
            sender: SenderTag([1; 8]),
            attempt: Attempt { owner: Owner { node: 0, boot: 99 }, number: 1 },
        };
        self.store.claim(vec![request]).await.unwrap();
    }
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "{}", self.text());
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts the error object of 2010, with exactly its two keys, and returns the description.
    pub(crate) fn error(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        let object = self.json();
        assert_eq!(object["error"], code);
        assert_eq!(object.as_object().unwrap().len(), 2);
        assert!(self.text().starts_with(r#"{"error":"#), "{}", self.text());
        text(&object, "description").to_owned()
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, bytes }
}

pub(crate) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_else(|| panic!("{key} is no text in {object}"))
}

pub(crate) fn row(aid: &str) -> RowKey {
    ServerKey::new([1; 32]).row_key(&aid.parse().unwrap())
}
