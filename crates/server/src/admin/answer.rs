//! What each command does. The same for the running server and for a command that opens the store itself.

use tempalias_address::{Domain, Mailbox};
use tempalias_alias::{RowKey, Wanted};
use tempalias_service::{
    AccessError, Aliases, Changes, CreateError, Draft, Fault, Field, FieldError, Listed, Proof, Requester,
    StoreError,
};

use super::wire::{AliasLine, AliasName, ListedLine, MadeLine, PageLine, Reply, Request};

/// The most aliases of one page.
const LONGEST_PAGE: usize = 1000;

/// Does what is asked.
pub async fn answer(aliases: &Aliases, request: Request) -> Reply {
    match act(aliases, request).await {
        Ok(reply) => reply,
        Err(error) => Reply::Failed { error },
    }
}

/// The error is for a person.
async fn act(aliases: &Aliases, request: Request) -> Result<Reply, String> {
    match request {
        Request::Add { target, days, max_usage, domain } => {
            let wanted = Wanted { days, max_usage, ..Wanted::default() };
            add(aliases, &target, domain.as_deref(), wanted).await
        }
        Request::List { after, limit } => list(aliases, after.as_deref(), limit).await,
        Request::Show { alias } => {
            let name = name_of(aliases, &alias)?;
            let view = aliases.look(&name.id, Proof::Operator).await;
            view.map(|view| Reply::Alias(view.into())).map_err(|error| access_words(&alias, &error))
        }
        Request::Pause { alias } => {
            change(aliases, &alias, Changes { paused: Some(true), ..Changes::default() }).await
        }
        Request::Resume { alias } => {
            change(aliases, &alias, Changes { paused: Some(false), ..Changes::default() }).await
        }
        Request::Extend { alias, days, max_usage } => {
            change(aliases, &alias, Changes { days, max_usage, ..Changes::default() }).await
        }
        Request::Free { alias } => {
            let name = name_of(aliases, &alias)?;
            let view = aliases.free_held(&name.id, Proof::Operator).await;
            view.map(|view| Reply::Alias(view.into())).map_err(|error| access_words(&alias, &error))
        }
        Request::Remove { alias } => {
            let name = name_of(aliases, &alias)?;
            let removed = aliases.remove(&name.id, Proof::Operator).await;
            removed.map_err(|error| access_words(&alias, &error))?;
            Ok(Reply::Removed { alias })
        }
    }
}

async fn add(aliases: &Aliases, target: &str, domain: Option<&str>, wanted: Wanted) -> Result<Reply, String> {
    let target: Mailbox = target.parse().map_err(|why| format!("the target is no address: {why}"))?;
    let domain: Option<Domain> =
        domain.map(str::parse).transpose().map_err(|why| format!("--domain is no domain: {why}"))?;
    let draft = Draft { target: Some(target), domain, wanted, ..Draft::default() };
    match aliases.create(&draft, Requester::Operator, None).await {
        Ok(made) => Ok(Reply::Made(MadeLine::new(&made, aliases.policy()))),
        Err(CreateError::Invalid(faults)) => Err(all_words(&faults)),
        Err(CreateError::Store(error)) => {
            Err(format!("{}; an alias may have been made, and it will end by itself", store_words(&error)))
        }
        Err(other) => Err(other.to_string()),
    }
}

async fn list(aliases: &Aliases, after: Option<&str>, limit: usize) -> Result<Reply, String> {
    let after = match after {
        None => None,
        Some(text) => Some(row_key(text).ok_or("`after` is not an id of the list")?),
    };
    let limit = limit.clamp(1, LONGEST_PAGE);
    let listed: Vec<Listed> = aliases.list(after, limit).await.map_err(|error| store_words(&error))?;
    let next = listed.last().filter(|_| listed.len() >= limit).map(|last| last.key.to_string());
    let aliases: Vec<ListedLine> = listed.into_iter().map(ListedLine::from).collect();
    Ok(Reply::Page(PageLine { aliases, next }))
}

async fn change(aliases: &Aliases, alias: &str, changes: Changes) -> Result<Reply, String> {
    let name = name_of(aliases, alias)?;
    let view = aliases.change(&name.id, Proof::Operator, &changes).await;
    view.map(|view| Reply::Alias(AliasLine::from(view))).map_err(|error| access_words(alias, &error))
}

/// The alias meant; an address of somebody else's domain is not it, whatever stands before the `@`.
fn name_of(aliases: &Aliases, text: &str) -> Result<AliasName, String> {
    let name: AliasName = text.parse().map_err(|why| format!("{text:?} cannot be an alias: {why}"))?;
    match &name.domain {
        Some(domain) if !aliases.policy().is_ours(domain) => {
            Err(format!("{domain} is not a domain of this server, so {text} is no alias of it"))
        }
        _ => Ok(name),
    }
}

/// The row key that a line of a list begins with.
fn row_key(text: &str) -> Option<RowKey> {
    let mut key = [0; 16];
    if text.len() != 2 * key.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, i) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(i..i + 2)?, 16).ok()?;
    }
    Some(RowKey(key))
}

fn access_words(alias: &str, error: &AccessError) -> String {
    match error {
        AccessError::NotFound => format!("there is no alias {alias}; it may have been removed or misspelt"),
        AccessError::Invalid(faults) => all_words(faults),
        AccessError::Store(error) => store_words(error),
        AccessError::Ended => format!("{alias} has ended, for ever; make a new one"),
        AccessError::NotAllowed | AccessError::Damaged(_) => error.to_string(),
    }
}

fn store_words(error: &StoreError) -> String {
    match error {
        StoreError::Timeout => {
            "the store did not answer in time: look at its disk, then try again".to_owned()
        }
        StoreError::Failed(_) | StoreError::Away(_) | StoreError::Closed => error.to_string(),
    }
}

fn all_words(faults: &[FieldError]) -> String {
    faults.iter().map(words).collect::<Vec<_>>().join("; ")
}

fn words(error: &FieldError) -> String {
    let field = match error.field {
        Field::Target => "the target",
        Field::Domain => "--domain",
        Field::Days => "--days",
        Field::MaxUsage => "--max-usage",
        Field::ValidFrom => "valid-from",
        Field::ValidUntil => "valid-until",
        Field::Paused => "paused",
    };
    match &error.fault {
        Fault::Missing => format!("{field} is missing"),
        Fault::NotText => format!("{field} must be text"),
        Fault::NotAnAddress(why) => format!("{field} is no address: {why}"),
        Fault::NotANumber => format!("{field} must be a whole number"),
        Fault::NotADate => format!("{field} must be a date"),
        Fault::NotABoolean => format!("{field} must be true or false"),
        Fault::Unchangeable => format!("{field} stays as it was made"),
        Fault::TargetIsOurs => {
            format!("{field} is an address of this server: an alias cannot lead to an alias")
        }
        Fault::TargetNotAllowed => {
            format!("{field} is not in a domain of targets.allow_domains, the only ones this server serves")
        }
        Fault::UnknownDomain => format!("{field} must be one of the configured domains"),
        Fault::Limits(why) => why.to_string(),
    }
}
