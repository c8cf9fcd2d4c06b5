//! The last step of every answer: a problem gets its words, and every answer its headers.

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response as HttpResponse, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;

use crate::pages;
use crate::problem::{Problem, Told, whole_seconds};

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const ALWAYS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
/// What an API answer is, exactly: some clients compare it as a text.
const JSON: &str = "application/json";

/// What 2010 answered to a request that failed.
#[derive(Serialize)]
struct ErrorObject<'a> {
    error: &'static str,
    description: &'a str,
}

/// Who reads the answer, and how much its address tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skin {
    Api,
    Page,
    /// A page whose path holds a secret.
    SecretPage,
}

impl Skin {
    fn of(path: &str) -> Self {
        if path == "/aliases" || path.starts_with("/aliases/") {
            Self::Api
        } else if path.starts_with("/a/") || path.starts_with("/m/") {
            Self::SecretPage
        } else {
            Self::Page
        }
    }
}

/// Renders problems and sets headers.
pub(crate) async fn dress(request: Request, next: Next) -> Response {
    let skin = Skin::of(request.uri().path());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = &problem {
        render(&mut response, problem, skin);
    }
    let told = response.extensions_mut().remove::<Told>().map(|Told(problem)| problem);
    if let Some(problem) = problem.or(told) {
        log(&problem, route.as_ref());
        if let Some(wait) = problem.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, whole_seconds(wait).max(1).into());
        }
    }
    set_headers(response.headers_mut(), skin);
    response
}

/// What went wrong on our side. The route, never the path: a path may hold a secret.
fn log(problem: &Problem, route: Option<&MatchedPath>) {
    if problem.status().is_server_error() {
        let route = route.map_or("none", MatchedPath::as_str);
        tracing::error!(route, code = problem.code(), cause = problem.cause(), "request failed");
    }
}

/// Puts the words on, and leaves the headers that are there already (`Allow`, say).
fn render(response: &mut Response, problem: &Problem, skin: Skin) {
    let (body, content_type) = if skin == Skin::Api {
        let object = ErrorObject { error: problem.code(), description: &problem.text() };
        (serde_json::to_string(&object).unwrap_or_default(), JSON)
    } else {
        (pages::problem(problem), "text/html; charset=utf-8")
    };
    let mut parts = HttpResponse::new(()).into_parts().0;
    std::mem::swap(&mut parts.headers, response.headers_mut());
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if problem.status() == axum::http::StatusCode::UNAUTHORIZED {
        parts.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    parts.status = problem.status();
    *response = Response::from_parts(parts, Body::from(body));
}

fn set_headers(headers: &mut HeaderMap, skin: Skin) {
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // `same-origin` where nothing is secret: under `no-referrer` browsers hide even the origin of a form of ours.
    let referrer = if skin == Skin::Page { "same-origin" } else { "no-referrer" };
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static(referrer));
    if skin == Skin::Page {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    } else {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-robots-tag", HeaderValue::from_static("noindex"));
    }
}
