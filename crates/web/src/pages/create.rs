//! `/`: the form.

use askama::Template;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Form};
use serde_json::{Map, Value};
use tempalias_alias::ClientNetwork;
use tempalias_service::{Field, Policy, Requester};

use super::origin::{self, HiddenOrigin};
use super::{Faults, Files, fields, html, see, typed};
use crate::WebState;
use crate::client::Client;
use crate::input::Reader;
use crate::problem::Problem;
use crate::texts::{Done, ENGLISH, Texts};

/// What the form proposes, as in the call of 2010.
const PROPOSED_DAYS: u32 = 3;
const PROPOSED_MESSAGES: u32 = 5;

#[derive(Template)]
#[template(path = "form.html")]
struct FormPage {
    t: &'static Texts,
    mood: &'static str,
    faults: Faults,
    target: String,
    days: String,
    messages: String,
    at_most: String,
    domains: Vec<Choice>,
}

struct Choice {
    name: String,
    shown: String,
    is_chosen: bool,
}

pub(super) async fn form(State(web): State<WebState>) -> Response {
    let policy = web.aliases.policy();
    let proposal =
        |field, number: u32| (crate::input::key_of(field).to_owned(), Value::String(number.to_string()));
    let fields = Map::from_iter([
        proposal(Field::Days, PROPOSED_DAYS.min(policy.caps.max_days)),
        proposal(Field::MaxUsage, PROPOSED_MESSAGES.min(policy.caps.max_usage)),
    ]);
    html(StatusCode::OK, &FormPage::new(policy, &fields, Faults::default()))
}

pub(super) async fn submit(
    State(web): State<WebState>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Result<Response, Problem> {
    let policy = web.aliases.policy();
    origin::check(&headers, &policy.public_url, HiddenOrigin::Refused)?;
    let fields = fields(form)?;
    let draft = Reader::new(&fields).draft();
    match web.aliases.create(&draft, Requester::Client(ClientNetwork::of(client.0)), None).await {
        Ok(made) => Ok(see(&format!("/a/{}.{}?done={}", made.id, made.secret.reveal(), Done::Made.key()))),
        // What was typed stays: nobody likes to type it twice.
        Err(error) => {
            let problem = Problem::from(error);
            let page = FormPage::new(policy, &fields, Faults::of(&problem));
            Ok(problem.told_by(html(problem.status(), &page)))
        }
    }
}

impl FormPage {
    fn new(policy: &Policy, fields: &Map<String, Value>, faults: Faults) -> Self {
        let wanted = typed(fields, Field::Domain);
        let choice = |domain: &tempalias_address::Domain| Choice {
            name: domain.to_string(),
            shown: domain.to_unicode(),
            is_chosen: domain.as_str() == wanted,
        };
        let domains = policy.domains().map(choice).collect();
        Self {
            t: &ENGLISH,
            mood: if faults.is_empty() { "watching" } else { "puzzled" },
            faults,
            target: typed(fields, Field::Target).to_owned(),
            days: typed(fields, Field::Days).to_owned(),
            messages: typed(fields, Field::MaxUsage).to_owned(),
            at_most: (ENGLISH.at_most)(policy.caps.max_days, policy.caps.max_usage),
            domains,
        }
    }
}
