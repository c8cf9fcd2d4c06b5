//! The demo's inbox page: what arrived, and a button that sends.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use askama::Template;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tempalias_smtp::header::Fields;

use super::inbox::{Inbox, Message};
use super::sender::{self, Conversation};

/// Everything the page shows is escaped; and nothing on it could run if it were not.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// What the page stands on.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) inbox: Arc<Inbox>,
    pub(super) smtp: SocketAddr,
    pub(super) http: SocketAddr,
    /// The alias made at the start.
    pub(super) first: String,
}

#[derive(Debug)]
struct Shared {
    desk: Desk,
    sent: AtomicU64,
    last: Mutex<Option<(String, Conversation)>>,
}

/// `/inbox`, and the button's target.
pub(super) fn routes(desk: Desk) -> axum::Router {
    let shared = Shared { desk, sent: AtomicU64::new(0), last: Mutex::default() };
    axum::Router::new()
        .route("/inbox", get(show))
        .route("/inbox/send", post(send))
        .with_state(Arc::new(shared))
}

#[derive(Template)]
#[template(path = "inbox.html")]
struct Page {
    smtp: SocketAddr,
    http: SocketAddr,
    alias: String,
    last: Option<(String, Conversation)>,
    letters: Vec<Letter>,
}

/// One message, for reading.
struct Letter {
    from: String,
    subject: String,
    envelope: String,
    content: String,
}

impl Letter {
    fn of(message: &Message) -> Self {
        let field = |name: &str| {
            let found = Fields::of(&message.content).find(|field| field.is(name));
            found.map(|field| String::from_utf8_lossy(field.trimmed()).into_owned())
        };
        Self {
            from: field("From").unwrap_or_else(|| "(no From)".to_owned()),
            subject: field("Subject").unwrap_or_else(|| "(no subject)".to_owned()),
            envelope: message.to.join(", "),
            content: String::from_utf8_lossy(&message.content).replace('\r', ""),
        }
    }
}

async fn show(State(shared): State<Arc<Shared>>) -> Response {
    let last = shared.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let page = Page {
        smtp: shared.desk.smtp,
        http: shared.desk.http,
        alias: last.as_ref().map_or_else(|| shared.desk.first.clone(), |(alias, _)| alias.clone()),
        last,
        letters: shared.desk.inbox.messages().iter().map(|message| Letter::of(message)).collect(),
    };
    match page.render() {
        Ok(html) => {
            let headers: [(HeaderName, &str); 3] = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, html).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[derive(Deserialize)]
struct SendForm {
    alias: String,
}

async fn send(State(shared): State<Arc<Shared>>, headers: HeaderMap, Form(form): Form<SendForm>) -> Response {
    // Only this page's own button: not a form on another site.
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return (StatusCode::FORBIDDEN, "send test messages from the inbox page").into_response();
    }
    let alias: String = form.alias.trim().chars().filter(|c| !c.is_control()).collect();
    let number = shared.sent.fetch_add(1, Ordering::Relaxed) + 1;
    let conversation = sender::send(shared.desk.smtp, &alias, number).await;
    *shared.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((alias, conversation));
    Redirect::to("/inbox").into_response()
}
