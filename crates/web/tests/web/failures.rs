//! What happens when something behind the router fails, and what only the operator sees.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Request;
use hyper::body::Frame;
use tempalias_web::{Part, Readiness, admin_router};
use tokio::sync::mpsc;

use crate::site::{BODY_2010, Site, send, text};

#[tokio::test]
async fn a_panic_is_an_answer_and_the_next_request_works() {
    let panics = Arc::new(Mutex::new(1));
    let left = Arc::clone(&panics);
    let site = Site::with_random(move |bytes| {
        let mut left = left.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *left > 0 {
            *left -= 1;
            drop(left);
            panic!("no randomness today");
        }
        getrandom::fill(bytes).unwrap();
    });
    let description = site.post(BODY_2010).await.error(500, "server-error");
    assert!(!description.contains("randomness"), "{description}");
    assert_eq!(site.post(BODY_2010).await.status, 200);
    *panics.lock().unwrap() = 1;
    let page = site.submit("/", "target=t%40example.com&days=1").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (500, "text/html; charset=utf-8"));
}

#[tokio::test]
async fn randomness_that_repeats_itself_is_an_error_and_no_endless_loop() {
    let site = Site::with_random(|bytes| bytes.fill(7));
    assert_eq!(site.post(BODY_2010).await.status, 200);
    site.post(BODY_2010).await.error(500, "server-error");
    assert_eq!(site.count().await, 1);
}

#[tokio::test]
async fn a_store_that_fails_is_told_as_such_and_recovers() {
    let site = Site::new();
    let made = site.post(BODY_2010).await.json();
    let lock = site.lock_store();
    let refused = site.post(BODY_2010).await;
    let description = refused.error(503, "unavailable");
    assert_eq!(description, "The server cannot reach its store at the moment. Try again in a few seconds.");
    assert_eq!(refused.header("retry-after"), "2");
    let page = site.submit("/", "target=t%40example.com&days=1").await;
    assert_eq!((page.status.as_u16(), page.header("retry-after")), (503, "2"));
    assert!(page.text().contains(r#"value="t@example.com""#), "what was typed stays");
    drop(lock);
    assert_eq!(site.manage("GET", &made, "").await.status, 200);
    assert_eq!(site.post(BODY_2010).await.status, 200);
}

/// A body whose pieces the test sends, and that ends when it hangs up.
struct Slow(mpsc::Receiver<Result<Bytes, std::io::Error>>);

impl hyper::body::Body for Slow {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn slow_request() -> (mpsc::Sender<Result<Bytes, std::io::Error>>, Request<Body>) {
    let (sender, receiver) = mpsc::channel(1);
    let request = Request::post("/aliases").header("content-type", "application/json");
    (sender, request.body(Body::new(Slow(receiver))).unwrap())
}

/// The log of all tests of this process: a subscriber of one thread alone would miss call sites that another
/// thread reached first.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_failure_is_logged_with_its_cause_and_without_a_secret() {
    let site = Site::new();
    let made = site.post(BODY_2010).await.json();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(|| Log).init();
    let lock = site.lock_store();
    let (aid, secret) = (text(&made, "aid"), text(&made, "updatekey"));
    let refused = site.submit(&format!("/a/{aid}.{secret}"), "action=pause").await;
    assert_eq!(refused.status, 503);
    site.manage("PATCH", &made, r#"{"paused":true}"#).await.error(503, "unavailable");
    site.get(&format!("/a/{aid}.{secret}")).await;
    site.post(r#"{"target":"t@example.com","days":1}"#).await.error(503, "unavailable");
    drop(lock);
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    assert!(log.contains("/a/{key}") && log.contains("the store"), "{log}");
    for hidden in [aid, secret, "t@example.com", "192.0.2.1"] {
        assert!(!log.contains(hidden), "{hidden} in {log}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up() {
    let site = Site::new();
    let (sender, request) = slow_request();
    sender.send(Ok(Bytes::from_static(b"{"))).await.unwrap();
    let before = tokio::time::Instant::now();
    send(&site.router, request).await.error(408, "timeout");
    assert!(before.elapsed() <= tempalias_web::REQUEST_TIMEOUT + Duration::from_secs(1));
    drop(sender);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let site = Site::new();
    let (sender, request) = slow_request();
    sender.send(Err(std::io::Error::other("reset"))).await.unwrap();
    send(&site.router, request).await.error(400, "invalid-data");
}

fn admin(parts: Vec<Part>) -> Router {
    let readiness: Readiness = Arc::new(move || {
        let parts = parts.clone();
        Box::pin(async move { parts })
    });
    admin_router(readiness)
}

#[tokio::test]
async fn readiness_names_each_part_to_the_operator() {
    let part = |name, fault: Option<&str>| Part { name, fault: fault.map(str::to_owned) };
    let get = async |router: &Router, path: &str| {
        let answer = send(router, Request::get(path).body(Body::empty()).unwrap()).await;
        (answer.status.as_u16(), answer.text().to_owned())
    };
    let well = admin(vec![part("store", None), part("smtp", None)]);
    assert_eq!(get(&well, "/livez").await, (200, "alive\n".to_owned()));
    assert_eq!(get(&well, "/readyz").await, (200, "ready\n".to_owned()));
    let ill = admin(vec![part("store", Some("writing: disk full")), part("smtp", None)]);
    assert_eq!(get(&ill, "/livez").await.0, 200);
    assert_eq!(
        get(&ill, "/readyz").await,
        (503, "not ready\nstore: failed: writing: disk full\n".to_owned())
    );
    let verbose = "not ready\nstore: failed: writing: disk full\nsmtp: ok\n";
    assert_eq!(get(&ill, "/readyz?verbose").await, (503, verbose.to_owned()));
}

#[tokio::test]
async fn what_only_the_operator_may_see_is_not_on_the_public_router() {
    let site = Site::new();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(site.get(path).await.status, 404, "{path}");
    }
}
