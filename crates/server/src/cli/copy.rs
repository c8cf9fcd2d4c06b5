//! `tempalias db copy`.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tempalias_alias::{Keys, ServerKey};
use tempalias_service::{Import, ImportReport};
use tempalias_store::copy::{Copied, Legacy, Offline, Place, Progress, Source, Stage, Target, copy};

use super::db::{failed, runtime, server_keys};
use super::print::Printer;
use super::progress::Shown;
use super::{CopyArgs, Failure};
use crate::config::{Config, StoreUrl};
use crate::log::escaped;
use crate::parts;

/// What was done, for the last lines.
struct Done {
    copied: Copied,
    is_resumed: bool,
    from: String,
    to: String,
    /// What must go for the copy to be thrown away.
    to_throw_away: String,
}

pub(super) fn run(args: &CopyArgs, config: &Config, printer: Printer) -> Result<(), Failure> {
    let (from, to) = (url("FROM", &args.from)?, url("TO", &args.to)?);
    if is_same(&from, &to) {
        return Err(failed("FROM and TO are the same store"));
    }
    let keys = server_keys(config)?;
    let place = |url, password_file: &Option<_>| {
        let ids = keys.all().map(ServerKey::id).collect();
        let password_file: Option<&std::path::PathBuf> = password_file.as_ref();
        parts::place(config, url, password_file.map(Path::new), args.ca_file.as_deref(), ids).map_err(failed)
    };
    let from = place(&from, &args.from_password_file)?;
    let to = place(&to, &args.to_password_file)?;
    runtime()?.block_on(async {
        tokio::select! {
            done = run_on(args.legacy, from, to, config, keys, printer) => done,
            _ = tokio::signal::ctrl_c() => Err(failed("interrupted; the same command goes on where it was")),
        }
    })
}

fn url(which: &str, text: &str) -> Result<StoreUrl, Failure> {
    text.parse().map_err(|why: String| failed(format!("{which} {why}")))
}

fn is_same(from: &StoreUrl, to: &StoreUrl) -> bool {
    match (from, to) {
        (StoreUrl::Sqlite(from), StoreUrl::Sqlite(to)) => {
            from == to || matches!((from.canonicalize(), to.canonicalize()), (Ok(from), Ok(to)) if from == to)
        }
        (StoreUrl::Redis(from), StoreUrl::Redis(to)) => from.is_same_as(to),
        _ => false,
    }
}

async fn run_on(
    legacy: bool,
    from: Place,
    to: Place,
    config: &Config,
    keys: Keys,
    printer: Printer,
) -> Result<(), Failure> {
    if !legacy {
        let from = Offline::source(from).await.map_err(failed)?;
        let done = transfer(&from, to, printer).await?;
        return tell(&done, None, printer);
    }
    let Place::Redis(options) = from else {
        return Err(failed("--legacy reads the Redis of the first tempalias: FROM must be one (redis://…)"));
    };
    let policy = parts::policy(config).ok_or_else(|| failed("no domain is configured"))?;
    let old = Legacy::connect(options).await.map_err(failed)?;
    let import = Import::new(old, Arc::new(keys), policy, parts::random()).await.map_err(failed)?;
    let done = transfer(&import, to, printer).await?;
    let report = import.report();
    tell(&done, Some(&report), printer)?;
    match report.refused.len() {
        0 => Ok(()),
        1 => Err(failed("one alias was not imported")),
        count => Err(failed(format!("{count} aliases were not imported"))),
    }
}

async fn transfer(from: &impl Source, to: Place, printer: Printer) -> Result<Done, Failure> {
    let (shown_to, to_throw_away) = match &to {
        Place::Embedded(options) => {
            let path = options.path.display();
            (format!("sqlite:{path}"), format!("delete {path}, {path}-wal and {path}-shm"))
        }
        Place::Redis(options) => {
            let (shown, namespace) = (options.address.to_string(), &options.namespace);
            let words = format!("delete the keys {namespace}:* of {shown} (docs/operating.md tells how)");
            (shown, words)
        }
    };
    let target = Target::open(to, from.origin()).await.map_err(failed)?;
    let mut shown = Shown::new(printer);
    let watch = |Progress { stage, done, total }| {
        let what = match stage {
            Stage::Copying => "copying",
            Stage::Comparing => "comparing",
        };
        shown.at(what, done, total);
    };
    let copied = copy(from, &target, watch).await;
    drop(shown);
    Ok(Done {
        copied: copied.map_err(failed)?,
        is_resumed: target.is_resumed(),
        from: from.origin().shown.clone(),
        to: shown_to,
        to_throw_away,
    })
}

fn tell(done: &Done, import: Option<&ImportReport>, printer: Printer) -> Result<(), Failure> {
    let Copied { rows, claims, replies, rates } = done.copied;
    let mut text = format!("{} -> {}: ", done.from, done.to);
    if done.is_resumed {
        text.push_str("went on with an earlier copy. ");
    }
    let counts = [
        (rows, "alias", "aliases"),
        (claims, "kept claim", "kept claims"),
        (replies, "kept reply", "kept replies"),
        (rates, "rate limit", "rate limits"),
    ];
    let counted = counts.iter().filter(|(count, ..)| *count > 0 || import.is_none());
    let counts: Vec<String> = counted
        .map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many }))
        .collect();
    text.push_str(&if counts.is_empty() { "nothing to copy".to_owned() } else { counts.join(", ") });
    text.push_str(". Both sides were read again and are the same.\n");
    let mut value = json!({
        "from": done.from, "to": done.to, "resumed": done.is_resumed,
        "aliases": rows, "claims": claims, "replies": replies, "rate_limits": rates,
    });
    if let (Some(report), Value::Object(fields)) = (import, &mut value) {
        text.push_str(&import_text(report, &done.to_throw_away));
        let list = |of: &[(String, String)]| -> Vec<Value> {
            of.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect()
        };
        fields.insert("refused".to_owned(), list(&report.refused).into());
        fields.insert("warnings".to_owned(), list(&report.warned).into());
        fields.insert("ended".to_owned(), report.ended.into());
        fields.insert("without_updatekey".to_owned(), report.ownerless.into());
    }
    text.push_str(&["Now set store.url to ", &done.to, " and start the server.\n"].concat());
    printer.either(&text, &value)
}

fn import_text(report: &ImportReport, to_throw_away: &str) -> String {
    let mut lines = Vec::new();
    if report.ended > 0 {
        lines.push(format!("left out, because they ended long ago or are used up: {}", report.ended));
    }
    if report.ownerless > 0 {
        lines.push(format!("without an updatekey, so that nobody can open them: {}", report.ownerless));
    }
    let named = |what: &str, of: &[(String, String)]| -> Vec<String> {
        of.iter().map(|(name, why)| format!("{what} {}: {}", escaped(name), escaped(why))).collect()
    };
    lines.extend(named("imported, with a change:", &report.warned));
    lines.extend(named("NOT imported:", &report.refused));
    if !report.refused.is_empty() {
        lines.push(format!(
            "To import these too, put them right in the old Redis, {to_throw_away}, and run the same command again. \
             Not once the copy was served: what was used since would be forgotten"
        ));
    }
    lines.iter().map(|line| ["  ", line, "\n"].concat()).collect()
}
