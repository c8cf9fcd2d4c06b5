//! The pages: the form, one alias, and what went wrong. They work without JavaScript.

mod create;
mod manage;
mod origin;

use askama::Template;
use axum::Form;
use axum::Router;
use axum::extract::rejection::FormRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde_json::{Map, Value};
use tempalias_service::{Field, FieldError};

use crate::WebState;
use crate::assets::{ICON, SCRIPT, STYLE};
use crate::input::key_of;
use crate::problem::{self, Problem};
use crate::texts::{ENGLISH, Texts};

use manage::Door;

/// Where a deleted alias's owner ends: a page without a secret in its path.
const GONE: &str = "/gone";

/// The pages' routes.
pub(crate) fn routes() -> Router<WebState> {
    Router::new()
        .route("/", get(create::form).post(create::submit))
        .route("/a/{key}", manage::routes(Door::Owner))
        .route("/m/{key}", manage::routes(Door::Mail))
        .route(GONE, get(gone))
}

/// The page of a problem.
pub(crate) fn problem(problem: &Problem) -> String {
    let status = problem.status();
    let title = status.canonical_reason().unwrap_or_default();
    let page = MessagePage {
        t: &ENGLISH,
        mood: "puzzled",
        title,
        text: &problem.text(),
        code: Some(status.as_u16()),
    };
    // A template can only fail to write to memory; the words then go out bare.
    page.render().unwrap_or_else(|_| problem.text().into_owned())
}

async fn gone() -> Response {
    let page =
        MessagePage { t: &ENGLISH, mood: "gone", title: ENGLISH.gone_title, text: ENGLISH.gone, code: None };
    html(StatusCode::OK, &page)
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessagePage<'a> {
    t: &'static Texts,
    mood: &'static str,
    title: &'a str,
    text: &'a str,
    code: Option<u16>,
}

/// What is wrong with a form: at its top as a list, and beside each field.
#[derive(Debug, Default)]
struct Faults {
    fields: Vec<FieldError>,
    /// What no field is to blame for.
    whole: Option<String>,
}

impl Faults {
    fn of(problem: &Problem) -> Self {
        let fields = problem.fields().to_vec();
        let whole = fields.is_empty().then(|| problem.text().into_owned());
        Self { fields, whole }
    }

    fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.whole.is_none()
    }

    /// The words beside one field.
    fn at(&self, field: Field) -> Option<String> {
        self.fields
            .iter()
            .find(|fault| fault.field == field)
            .map(|fault| problem::words(&fault.fault).into_owned())
    }

    /// Each field's id and what is wrong with it, for the list at the top.
    fn all(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.fields.iter().map(|FieldError { field, fault }| {
            let label = ENGLISH.label(*field);
            (key_of(*field), format!("{label}: {}", problem::words(fault)))
        })
    }
}

/// The files that every page refers to.
struct Files;

impl Files {
    fn style() -> String {
        STYLE.path()
    }

    fn script() -> String {
        SCRIPT.path()
    }

    fn icon() -> String {
        ICON.path()
    }
}

fn html(status: StatusCode, page: &impl Template) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    match page.render() {
        Ok(body) => (status, headers, body).into_response(),
        Err(error) => Problem::server_error(&error).into_response(),
    }
}

/// 303: what follows a POST is a GET, so that a reload does nothing twice.
fn see(path: &str) -> Response {
    // The path may hold a secret.
    ([(header::CACHE_CONTROL, "no-store")], Redirect::to(path)).into_response()
}

/// A form's fields, under the names that the API uses.
fn fields(form: Result<Form<Vec<(String, String)>>, FormRejection>) -> Result<Map<String, Value>, Problem> {
    let Form(pairs) = form.map_err(|_| Problem::not_a_form())?;
    Ok(pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect())
}

/// What was typed into a field, to be shown again.
fn typed(fields: &Map<String, Value>, field: Field) -> &str {
    fields.get(key_of(field)).and_then(Value::as_str).unwrap_or_default()
}
