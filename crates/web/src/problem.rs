//! The one place where a failure becomes words.
//!
//! What the client is told ([`Problem::code`], [`Problem::text`]) and why it happened (the cause, for the log) are
//! kept apart: a cause never reaches an answer. Handlers return a [`Problem`]; `dress` renders it, as the error
//! object of 2010 for the API and as a page for people.

use std::any::Any;
use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tempalias_service::{AccessError, CreateError, Fault, FieldError, IdempotencyKeyError, StoreError};

use crate::input::key_of;
use crate::limits::MAX_BODY;

/// The store mends itself within a second of its fault's end.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// A failure on its way to the client. Travels as an extension of the response.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    kind: Kind,
    /// For the log alone.
    cause: Option<String>,
}

/// A problem whose words stand in the answer already.
#[derive(Debug, Clone)]
pub(crate) struct Told(pub(crate) Problem);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    InvalidFields(Vec<FieldError>),
    NotJson,
    NotAForm,
    RequestType,
    BrokenBody,
    TooMuchData,
    IdempotencyKey(IdempotencyKeyError),
    KeyReused,
    NoSecret,
    NoSuchAlias,
    NoSuchPage,
    NotAllowed,
    Ended,
    CrossSite,
    MethodNotAllowed,
    Timeout,
    RateLimited(Duration),
    Unavailable,
    ServerError,
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self { kind, cause: None }
    }
}

impl Problem {
    pub(crate) fn not_json() -> Self {
        Kind::NotJson.into()
    }

    pub(crate) fn not_a_form() -> Self {
        Kind::NotAForm.into()
    }

    pub(crate) fn request_type() -> Self {
        Kind::RequestType.into()
    }

    pub(crate) fn broken_body(cause: &impl Display) -> Self {
        Self { kind: Kind::BrokenBody, cause: Some(cause.to_string()) }
    }

    pub(crate) fn too_much_data() -> Self {
        Kind::TooMuchData.into()
    }

    pub(crate) fn no_secret() -> Self {
        Kind::NoSecret.into()
    }

    pub(crate) fn no_such_alias() -> Self {
        Kind::NoSuchAlias.into()
    }

    pub(crate) fn no_such_page() -> Self {
        Kind::NoSuchPage.into()
    }

    pub(crate) fn cross_site() -> Self {
        Kind::CrossSite.into()
    }

    pub(crate) fn method_not_allowed() -> Self {
        Kind::MethodNotAllowed.into()
    }

    pub(crate) fn timeout() -> Self {
        Kind::Timeout.into()
    }

    pub(crate) fn server_error(cause: &impl Display) -> Self {
        Self { kind: Kind::ServerError, cause: Some(cause.to_string()) }
    }

    fn unavailable(cause: &StoreError) -> Self {
        Self { kind: Kind::Unavailable, cause: Some(cause.to_string()) }
    }

    /// Why, for the log.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The fields that are wrong, for a form to show beside them.
    pub(crate) fn fields(&self) -> &[FieldError] {
        if let Kind::InvalidFields(fields) = &self.kind { fields } else { &[] }
    }

    /// Marks a page that says it already: its headers are still to come, and the log must hear of it.
    pub(crate) fn told_by(&self, mut page: Response) -> Response {
        page.extensions_mut().insert(Told(self.clone()));
        page
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.row().0
    }

    /// The machine-readable name: those of 2010, and ours.
    pub(crate) fn code(&self) -> &'static str {
        self.row().1
    }

    /// What the client is told.
    pub(crate) fn text(&self) -> Cow<'static, str> {
        self.row().2
    }

    /// When it makes sense to ask again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            Kind::RateLimited(wait) => Some(wait),
            Kind::Unavailable => Some(STORE_RETRY),
            _ => None,
        }
    }

    /// The table.
    fn row(&self) -> (StatusCode, &'static str, Cow<'static, str>) {
        use StatusCode as S;
        let too_large = || format!("The request is too large: at most {MAX_BODY} bytes.");
        match &self.kind {
            Kind::InvalidFields(fields) => (S::BAD_REQUEST, "invalid-data", all_words(fields).into()),
            Kind::NotJson => (S::BAD_REQUEST, "invalid-data", NOT_JSON.into()),
            Kind::NotAForm => (S::BAD_REQUEST, "invalid-data", NOT_A_FORM.into()),
            Kind::BrokenBody => (S::BAD_REQUEST, "invalid-data", BROKEN_BODY.into()),
            Kind::IdempotencyKey(error) => (S::BAD_REQUEST, "invalid-data", format!("{error}.").into()),
            Kind::RequestType => (S::BAD_REQUEST, "invalid-request-type", REQUEST_TYPE.into()),
            Kind::TooMuchData => (S::BAD_REQUEST, "too-much-data", too_large().into()),
            Kind::NoSecret => (S::UNAUTHORIZED, "unauthorized", NO_SECRET.into()),
            Kind::NotAllowed => (S::FORBIDDEN, "not-allowed", NOT_ALLOWED.into()),
            Kind::CrossSite => (S::FORBIDDEN, "cross-site", CROSS_SITE.into()),
            Kind::NoSuchAlias => (S::NOT_FOUND, "not-found", NO_SUCH_ALIAS.into()),
            Kind::NoSuchPage => (S::NOT_FOUND, "not-found", NO_SUCH_PAGE.into()),
            Kind::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method-not-allowed", METHOD_NOT_ALLOWED.into())
            }
            Kind::Timeout => (S::REQUEST_TIMEOUT, "timeout", TIMEOUT.into()),
            Kind::Ended => (S::CONFLICT, "ended", ENDED.into()),
            Kind::KeyReused => (S::UNPROCESSABLE_ENTITY, "idempotency-key-reused", KEY_REUSED.into()),
            Kind::RateLimited(wait) => (S::TOO_MANY_REQUESTS, "rate-limited", wait_words(*wait).into()),
            Kind::ServerError => (S::INTERNAL_SERVER_ERROR, "server-error", SERVER_ERROR.into()),
            Kind::Unavailable => (S::SERVICE_UNAVAILABLE, "unavailable", UNAVAILABLE.into()),
        }
    }
}

const NOT_JSON: &str = "The request's body is not a JSON object.";
const NOT_A_FORM: &str = "The form could not be read. Go back and send it again.";
const BROKEN_BODY: &str = "The request's body broke off. Send it again.";
const REQUEST_TYPE: &str = "Send the request with Content-Type: application/json.";
const NO_SECRET: &str = "Send the alias's secret: Authorization: Bearer <updatekey>.";
const NOT_ALLOWED: &str = "This link does not allow that. Use the link that you got when the alias was made.";
const CROSS_SITE: &str =
    "The form was sent from another site, so nothing was done. Open this site and fill it in there.";
const NO_SUCH_ALIAS: &str = "There is no alias for this link or secret. It was deleted, it ended more than 30 days \
                             ago, or the link is not complete.";
const NO_SUCH_PAGE: &str = "There is nothing at this address.";
const ENDED: &str = "This address has ended, for ever. Make a new one.";
const METHOD_NOT_ALLOWED: &str = "This address does not take requests of this kind.";
const TIMEOUT: &str = "The request took too long. Send it again.";
const KEY_REUSED: &str =
    "This Idempotency-Key was used for another request. Use a new one for each new request.";
const SERVER_ERROR: &str =
    "Something went wrong on this server. Try again; if it stays so, tell its operator.";
const UNAVAILABLE: &str = "The server cannot reach its store at the moment. Try again in a few seconds.";

/// What is wrong with one field, as a sentence that stands beside it.
pub(crate) fn words(fault: &Fault) -> Cow<'static, str> {
    let text = match fault {
        Fault::NotAnAddress(error) => return format!("This is not an e-mail address: {error}.").into(),
        Fault::Limits(error) => return format!("Not possible: {error}.").into(),
        Fault::Missing => "Your real e-mail address is needed.",
        Fault::NotText => "This must be a text.",
        Fault::NotANumber => "This must be a whole number, not below zero.",
        Fault::NotADate => "This must be a date such as 2026-12-31 or 2026-12-31T18:00:00Z.",
        Fault::NotABoolean => "This must be true or false.",
        Fault::Unchangeable => "This cannot be changed once the alias is made.",
        Fault::TargetIsOurs => "This is an address of this service. Give the address of a real mailbox.",
        Fault::TargetNotAllowed => {
            "This server makes no aliases for this address. Its operator decides for which."
        }
        Fault::UnknownDomain => "This server has no such domain.",
    };
    text.into()
}

fn all_words(fields: &[FieldError]) -> String {
    let texts: Vec<_> =
        fields.iter().map(|error| format!("{}: {}", key_of(error.field), words(&error.fault))).collect();
    texts.join(" ")
}

fn wait_words(wait: Duration) -> String {
    let seconds = whole_seconds(wait);
    let unit = if seconds == 1 { "second" } else { "seconds" };
    format!("Too many new aliases from your network. Try again in {seconds} {unit}.")
}

/// Rounded up: who comes a moment too early is refused again.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// What a panic in a handler becomes. The process lives on.
#[expect(clippy::needless_pass_by_value, reason = "the shape that the layer calls")]
pub(crate) fn after_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let cause = format!("a handler panicked: {}", text.unwrap_or_default());
    Problem::server_error(&cause).into_response()
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Invalid(fields) => Kind::InvalidFields(fields).into(),
            CreateError::RateLimited(wait) => Kind::RateLimited(wait).into(),
            CreateError::KeyReused => Kind::KeyReused.into(),
            CreateError::Store(error) => Self::unavailable(&error),
            error @ (CreateError::DamagedReply | CreateError::NoFreeName) => Self::server_error(&error),
        }
    }
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::NotFound => Kind::NoSuchAlias.into(),
            AccessError::NotAllowed => Kind::NotAllowed.into(),
            AccessError::Ended => Kind::Ended.into(),
            AccessError::Invalid(fields) => Kind::InvalidFields(fields).into(),
            AccessError::Store(error) => Self::unavailable(&error),
            AccessError::Damaged(error) => Self::server_error(&error),
        }
    }
}

impl From<IdempotencyKeyError> for Problem {
    fn from(error: IdempotencyKeyError) -> Self {
        Kind::IdempotencyKey(error).into()
    }
}

impl IntoResponse for Problem {
    /// Only the status: `dress` puts the words on, for it knows who reads them.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use tempalias_alias::LimitsError;
    use tempalias_service::Field;

    use super::*;

    #[test]
    fn a_cause_never_stands_in_the_text() {
        let problem = Problem::server_error(&"disk /dev/sda1 is on fire");
        assert!(!problem.text().contains("fire"));
        assert_eq!(problem.cause(), Some("disk /dev/sda1 is on fire"));
    }

    #[test]
    fn all_faults_are_in_one_description() {
        let fields = vec![
            FieldError::new(Field::Target, Fault::Missing),
            FieldError::new(Field::Days, Fault::Limits(LimitsError::NoLimit)),
        ];
        let problem = Problem::from(CreateError::Invalid(fields));
        assert_eq!(
            problem.text(),
            "target: Your real e-mail address is needed. days: Not possible: give at least one limit: days, \
             max-usage or valid-until."
        );
    }

    #[test]
    fn a_wait_is_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(29_001)), 30);
        assert_eq!(whole_seconds(Duration::from_secs(30)), 30);
    }
}
