//! What only the operator's own network reaches: is it alive, is it ready.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// One part of the server that must work for it to be ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What the operator knows it as.
    pub name: &'static str,
    /// What is wrong with it; none: nothing.
    pub fault: Option<String>,
}

/// Looks at every part now. Must answer in bounded time.
pub type Readiness = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Vec<Part>> + Send>> + Send + Sync>;

/// `/livez` and `/readyz`, for a listener that strangers do not reach.
pub fn admin_router(readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(async || plain(StatusCode::OK, "alive\n".to_owned())))
        .route("/readyz", get(ready).with_state(readiness))
}

/// 200 if all works, else 503 with each part that does not and why. `?verbose` names every part.
async fn ready(State(readiness): State<Readiness>, RawQuery(query): RawQuery) -> Response {
    let parts = readiness().await;
    let is_ready = parts.iter().all(|part| part.fault.is_none());
    let (status, word) =
        if is_ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let mut text = format!("{word}\n");
    let is_verbose = query
        .is_some_and(|query| query.split('&').any(|key| key == "verbose" || key.starts_with("verbose=")));
    for Part { name, fault } in parts {
        let fault = match fault {
            Some(fault) => format!("failed: {fault}"),
            None if is_verbose => "ok".to_owned(),
            None => continue,
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}: {fault}");
    }
    plain(status, text)
}

fn plain(status: StatusCode, text: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}
