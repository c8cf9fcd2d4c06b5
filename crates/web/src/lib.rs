//! The HTTP front door: the API that the 2010 clients speak, and the pages.
//!
//! Owns what stands between a request and `service`: whose request it is, its size and time limits, its parsing,
//! and every word of an answer. Two skins, one action: the form and the API call the same functions. No GET
//! changes anything. Never touches the store, never logs a path that holds a secret, never sets a cookie.

mod admin;
mod api;
mod assets;
mod client;
mod dress;
mod input;
mod limits;
mod pages;
mod problem;
mod texts;
mod when;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use ipnet::IpNet;
use tempalias_service::Aliases;
use tower_http::catch_panic::CatchPanicLayer;

pub use admin::{Part, Readiness, admin_router};
pub use client::Peer;
pub use limits::{MAX_BODY, REQUEST_TIMEOUT};

use crate::problem::Problem;

/// What the pages and the API stand on.
#[derive(Debug, Clone)]
pub struct WebState {
    aliases: Aliases,
    trusted_proxies: Arc<[IpNet]>,
}

impl WebState {
    /// `trusted_proxies` are the only peers whose `X-Forwarded-For` is believed.
    pub fn new(aliases: Aliases, trusted_proxies: Vec<IpNet>) -> Self {
        Self { aliases, trusted_proxies: trusted_proxies.into() }
    }
}

/// Everything that people and scripts reach. The server puts a [`Peer`] (or axum's `ConnectInfo<SocketAddr>`)
/// into each request's extensions; without one all clients count as the same.
pub fn router(state: WebState) -> Router {
    let client = from_fn_with_state(state.clone(), client::find);
    Router::new()
        .merge(api::routes())
        .merge(pages::routes())
        .merge(assets::routes())
        .fallback(async || Problem::no_such_page())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(client)
        .layer(from_fn(limits::enforce))
        .layer(CatchPanicLayer::custom(problem::after_panic))
        .layer(from_fn(dress::dress))
        .with_state(state)
}
