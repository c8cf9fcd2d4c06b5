//! `/aliases`: the call of 2010 and what it grew into.

mod reply;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde_json::{Map, Value};
use tempalias_alias::{AliasId, ClientNetwork, ManageSecret};
use tempalias_service::{IdempotencyKey, Once, Proof, Requester};

use crate::WebState;
use crate::client::Client;
use crate::input::{PathText, Reader};
use crate::problem::Problem;

use reply::{AliasReply, MadeReply};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The API's routes.
pub(crate) fn routes() -> Router<WebState> {
    Router::new()
        .route("/aliases", post(create))
        .route("/aliases/{aid}", get(look).patch(change).delete(remove))
        .route("/openapi.json", get(openapi))
}

async fn create(
    State(web): State<WebState>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let fields = object(&headers, &body)?;
    let key = idempotency_key(&headers)?;
    let once = key.as_ref().map(|key| Once { key, body: &body });
    let requester = Requester::Client(ClientNetwork::of(client.0));
    let made = web.aliases.create(&Reader::new(&fields).draft(), requester, once).await?;
    json(&MadeReply::new(&made, web.aliases.policy()))
}

async fn look(
    State(web): State<WebState>,
    PathText(aid): PathText,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, secret) = proof(&aid, &headers)?;
    let view = web.aliases.look(&id, Proof::Owner(&secret)).await?;
    json(&AliasReply::new(&view, &secret, None, web.aliases.policy()))
}

async fn change(
    State(web): State<WebState>,
    PathText(aid): PathText,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let (id, secret) = proof(&aid, &headers)?;
    let fields = object(&headers, &body)?;
    let changes = Reader::new(&fields).changes();
    let view = web.aliases.change(&id, Proof::Owner(&secret), &changes).await?;
    json(&AliasReply::new(&view, &secret, changes.days, web.aliases.policy()))
}

async fn remove(
    State(web): State<WebState>,
    PathText(aid): PathText,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let (id, secret) = proof(&aid, &headers)?;
    web.aliases.remove(&id, Proof::Owner(&secret)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn openapi() -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, include_str!("openapi.json")).into_response()
}

/// The alias and the secret that a request names. Without any secret the answer is the same for every alias.
fn proof(aid: &str, headers: &HeaderMap) -> Result<(AliasId, ManageSecret), Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, secret) = value.and_then(|value| value.split_once(' ')).ok_or_else(Problem::no_secret)?;
    if !scheme.eq_ignore_ascii_case("bearer") || secret.trim().is_empty() {
        return Err(Problem::no_secret());
    }
    let id = aid.parse().map_err(|_| Problem::no_such_alias())?;
    let Ok(secret) = secret.trim().parse();
    Ok((id, secret))
}

/// The body as a JSON object. The content type is asked for because no page of another site can set it without
/// asking us first, and we never allow it.
fn object(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::request_type());
    }
    serde_json::from_slice(body).map_err(|_| Problem::not_json())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    Ok(Some(text.parse()?))
}

fn json(reply: &impl serde::Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(reply).map_err(|error| Problem::server_error(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
