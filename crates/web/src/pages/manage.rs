//! One alias: to its owner under `/a/`, to a reader of its mail under `/m/`.

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use serde_json::{Map, Value};
use tempalias_address::Mailbox;
use tempalias_alias::{AliasId, ManageSecret, UnixTime};
use tempalias_service::{AccessError, Aliases, Changes, Field, Proof, Standing, View};

use super::origin::{self, HiddenOrigin};
use super::{Faults, Files, GONE, fields, html, see, typed};
use crate::WebState;
use crate::input::{PathText, Reader};
use crate::problem::Problem;
use crate::texts::{Done, ENGLISH, Texts};
use crate::when;

/// The name of the button that was pressed.
const ACTION: &str = "action";

/// Which link somebody came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// The link that the alias's maker got.
    Owner,
    /// The link in the header of a forwarded mail.
    Mail,
}

/// One visit: the alias and what its visitor shows for it.
struct Visit {
    aliases: Aliases,
    door: Door,
    id: AliasId,
    secret: ManageSecret,
}

/// The pages behind one door.
pub(super) fn routes(door: Door) -> MethodRouter<WebState> {
    get(async move |State(web): State<WebState>, PathText(key): PathText, RawQuery(query): RawQuery| {
        let visit = Visit::new(web, door, &key)?;
        let view = visit.aliases.look(&visit.id, visit.proof()).await?;
        let done = query.and_then(|query| Done::from_query(&query)).filter(|done| done.fits(&view));
        Ok::<_, Problem>(html(StatusCode::OK, &visit.page(&view, done)))
    })
    .post(
        async move |State(web): State<WebState>,
                    PathText(key): PathText,
                    headers: HeaderMap,
                    form: Result<Form<Vec<(String, String)>>, FormRejection>| {
            let visit = Visit::new(web, door, &key)?;
            origin::check(&headers, &visit.aliases.policy().public_url, HiddenOrigin::Fine)?;
            visit.act(&fields(form)?).await
        },
    )
}

impl Visit {
    /// The name of an alias may hold dots, a secret never does.
    fn new(web: WebState, door: Door, key: &str) -> Result<Self, Problem> {
        let (id, secret) = key.rsplit_once('.').ok_or_else(Problem::no_such_alias)?;
        let id = id.parse().map_err(|_| Problem::no_such_alias())?;
        let Ok(secret) = secret.parse();
        Ok(Self { aliases: web.aliases, door, id, secret })
    }

    fn proof(&self) -> Proof<'_> {
        match self.door {
            Door::Owner => Proof::Owner(&self.secret),
            Door::Mail => Proof::Mail(self.secret.reveal()),
        }
    }

    /// Does what the pressed button says and sends the visitor to the page that shows it.
    async fn act(self, fields: &Map<String, Value>) -> Result<Response, Problem> {
        let done = match fields.get(ACTION).and_then(Value::as_str) {
            Some("pause") => self.change(&pause(true)).await.map(|()| Done::Paused),
            Some("resume") => self.change(&pause(false)).await.map(|()| Done::Resumed),
            Some("change") => self.change(&limits(fields)).await.map(|()| Done::Changed),
            Some("free") => self.aliases.free_held(&self.id, self.proof()).await.map(|_| Done::Freed),
            Some("delete") => {
                self.aliases.remove(&self.id, self.proof()).await?;
                return Ok(see(GONE));
            }
            _ => return Err(Problem::not_a_form()),
        };
        match done {
            Ok(done) => Ok(see(&format!("{}?done={}", self.path(), done.key()))),
            Err(error @ AccessError::Invalid(_)) => self.again(fields, &error.into()).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn change(&self, changes: &Changes) -> Result<(), AccessError> {
        self.aliases.change(&self.id, self.proof(), changes).await.map(|_| ())
    }

    /// The page once more, with what was typed and what is wrong with it.
    async fn again(&self, fields: &Map<String, Value>, problem: &Problem) -> Result<Response, Problem> {
        let view = self.aliases.look(&self.id, self.proof()).await?;
        let page = ManagePage {
            faults: Faults::of(problem),
            days: typed(fields, Field::Days).to_owned(),
            max_usage: typed(fields, Field::MaxUsage).to_owned(),
            ..self.page(&view, None)
        };
        Ok(problem.told_by(html(problem.status(), &page)))
    }

    fn path(&self) -> String {
        let door = if self.door == Door::Owner { "a" } else { "m" };
        format!("/{door}/{}.{}", self.id, self.secret.reveal())
    }

    fn page(&self, view: &View, done: Option<Done>) -> ManagePage {
        let caps = self.aliases.policy().caps;
        let moment = |at: Option<UnixTime>| at.map(|at| Moment::new(at, view.now));
        let counted = view.limits.max_usage.zip(view.remaining);
        ManagePage {
            t: &ENGLISH,
            is_owner: self.door == Door::Owner,
            has_ended: has_ended(view.standing),
            path: self.path(),
            done: done.map(ENGLISH.done),
            mood: mood(view.standing, done),
            title: (ENGLISH.title)(view.standing),
            explanation: (ENGLISH.explanation)(view.standing),
            is_paused: view.paused,
            address: Address { local: view.id.to_string(), domain: view.domain.to_string() },
            target: view.target.as_ref().map(Address::of),
            messages: counted.map(|(max, remaining)| (ENGLISH.messages_left)(remaining, max.get())),
            held: (view.held > 0).then(|| (ENGLISH.messages_held)(view.held)),
            starts: moment(view.limits.valid_from.filter(|&from| from > view.now)),
            ends: moment(view.limits.valid_until),
            faults: Faults::default(),
            days: String::new(),
            max_usage: view.limits.max_usage.map(|max| max.to_string()).unwrap_or_default(),
            usage_hint: (ENGLISH.usage_hint)(caps.max_usage, view.used),
            days_hint: (ENGLISH.days_hint)(caps.max_days),
        }
    }
}

fn pause(paused: bool) -> Changes {
    Changes { paused: Some(paused), ..Changes::default() }
}

fn limits(fields: &Map<String, Value>) -> Changes {
    let only = |field| fields.get_key_value(crate::input::key_of(field));
    let wanted = [Field::Days, Field::MaxUsage].into_iter().filter_map(only);
    Reader::new(&wanted.map(|(key, value)| (key.clone(), value.clone())).collect()).changes()
}

/// An address in its two parts: a narrow screen may break it between them.
struct Address {
    local: String,
    domain: String,
}

impl Address {
    fn of(mailbox: &Mailbox) -> Self {
        Self { local: mailbox.local_part().to_string(), domain: mailbox.domain().to_string() }
    }
}

/// A point in time for `<time>`, and how far it is.
struct Moment {
    iso: String,
    human: String,
    /// How long until then; none: it is over.
    left: Option<String>,
}

impl Moment {
    fn new(at: UnixTime, now: UnixTime) -> Self {
        let left = (at > now).then(|| (ENGLISH.in_time)(at.since(now)));
        Self { iso: when::iso(at), human: when::human(at), left }
    }
}

#[derive(Template)]
#[template(path = "manage.html")]
struct ManagePage {
    t: &'static Texts,
    is_owner: bool,
    has_ended: bool,
    path: String,
    done: Option<&'static str>,
    mood: &'static str,
    title: &'static str,
    explanation: &'static str,
    is_paused: bool,
    address: Address,
    target: Option<Address>,
    messages: Option<String>,
    held: Option<String>,
    starts: Option<Moment>,
    ends: Option<Moment>,
    faults: Faults,
    days: String,
    max_usage: String,
    usage_hint: String,
    days_hint: String,
}

/// Nothing brings it back.
fn has_ended(standing: Standing) -> bool {
    matches!(standing, Standing::UsedUp | Standing::Expired)
}

/// How the spy looks.
fn mood(standing: Standing, done: Option<Done>) -> &'static str {
    match standing {
        Standing::Active if done.is_some() => "happy",
        Standing::Active => "watching",
        Standing::Held | Standing::NotYet => "puzzled",
        Standing::Paused => "asleep",
        Standing::UsedUp | Standing::Expired => "gone",
    }
}
