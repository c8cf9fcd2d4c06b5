//! Files that never change under one name: the name holds a hash of the content.

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::WebState;
use crate::input::PathText;
use crate::problem::Problem;

/// One file, part of the program.
pub(crate) struct Asset {
    stem: &'static str,
    extension: &'static str,
    content_type: &'static str,
    content: &'static [u8],
    hash: u64,
}

pub(crate) static STYLE: Asset =
    Asset::new("style", "css", "text/css; charset=utf-8", include_bytes!("../assets/style.css"));
pub(crate) static SCRIPT: Asset =
    Asset::new("page", "js", "text/javascript; charset=utf-8", include_bytes!("../assets/page.js"));
pub(crate) static ICON: Asset =
    Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../assets/icon.svg"));

const ROBOTS: &str = "User-agent: *\nDisallow: /a/\nDisallow: /m/\n";

impl Asset {
    const fn new(
        stem: &'static str,
        extension: &'static str,
        content_type: &'static str,
        content: &'static [u8],
    ) -> Self {
        Self { stem, extension, content_type, content, hash: hash(content) }
    }

    /// Where pages find it.
    pub(crate) fn path(&self) -> String {
        format!("/assets/{}", self.name())
    }

    fn name(&self) -> String {
        format!("{}.{:016x}.{}", self.stem, self.hash, self.extension)
    }

    fn response(&self, headers: &HeaderMap) -> Response {
        let tag = format!("\"{:016x}\"", self.hash);
        let known =
            headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_known =
            known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag || one.trim() == "*");
        let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let content = if is_known { &[] } else { self.content };
        let mut response = (status, content).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}

/// FNV-1a: the name must change with the content, nothing more.
const fn hash(mut content: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    while let [byte, rest @ ..] = content {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0100_0000_01b3);
        content = rest;
    }
    hash
}

/// The assets' routes.
pub(crate) fn routes() -> Router<WebState> {
    let robots = || async { ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], ROBOTS) };
    Router::new().route("/assets/{name}", get(serve)).route("/robots.txt", get(robots))
}

async fn serve(PathText(name): PathText, headers: HeaderMap) -> Result<Response, Problem> {
    let asset = [&STYLE, &SCRIPT, &ICON].into_iter().find(|asset| asset.name() == name);
    asset.map(|asset| asset.response(&headers)).ok_or_else(Problem::no_such_page)
}
