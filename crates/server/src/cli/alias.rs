//! `tempalias alias …`

use std::fmt::Write as _;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempalias_service::Aliases;
use tempalias_store::{OpenError, Store};
use tokio::runtime::Runtime;

use super::print::{self, Printer};
use super::{AliasCommand, Failure, LimitArgs};
use crate::admin::{self, AliasLine, CallError, Connection, ListedLine, MadeLine, PageLine, Reply, Request};
use crate::config::Config;
use crate::parts::{Opener, StoreFault};
use crate::{keyfile, parts};

/// Aliases asked for at one time.
const PAGE: usize = 500;
/// How long to wait for a server that is starting or stopping.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn run(command: AliasCommand, config: &Config, printer: Printer) -> Result<(), Failure> {
    let request = match command {
        AliasCommand::List => return list(&mut Backend::open(config)?, printer),
        AliasCommand::Rm { alias, yes } => {
            let question = format!("End {} for ever? Its mail will be refused.", alias.alias);
            if !yes && !print::confirm(&question) {
                return Err(Failure::Failed("nothing was removed".to_owned()));
            }
            Request::Remove { alias: alias.alias.to_string() }
        }
        AliasCommand::Add { target, limits: LimitArgs { days, max_usage }, domain } => Request::Add {
            target: target.to_string(),
            days,
            max_usage,
            domain: domain.map(|domain| domain.to_string()),
        },
        AliasCommand::Extend { alias, limits: LimitArgs { days, max_usage } } => {
            Request::Extend { alias: alias.alias.to_string(), days, max_usage }
        }
        AliasCommand::Show(alias) => Request::Show { alias: alias.alias.to_string() },
        AliasCommand::Pause(alias) => Request::Pause { alias: alias.alias.to_string() },
        AliasCommand::Resume(alias) => Request::Resume { alias: alias.alias.to_string() },
        AliasCommand::Free(alias) => Request::Free { alias: alias.alias.to_string() },
    };
    match Backend::open(config)?.call(request)? {
        Reply::Made(made) => printer.either(&made_text(&made), &made),
        Reply::Alias(alias) => printer.either(&alias_text(&alias), &alias),
        Reply::Removed { alias } => {
            printer.either(&format!("{alias} has ended\n"), &serde_json::json!({ "removed": alias }))
        }
        Reply::Page(_) => Err(mismatch()),
        Reply::Failed { error } => Err(Failure::Failed(error)),
    }
}

/// Who does it: the running server, or this process over the server's store.
enum Backend {
    Server(Connection),
    Store(Box<Own>),
}

/// The store, opened by this process.
struct Own {
    runtime: Runtime,
    store: Store,
    aliases: Aliases,
}

impl Drop for Own {
    /// Whatever came of the command: a lease that is left on Redis would look like a node that serves.
    fn drop(&mut self) {
        self.runtime.block_on(self.store.close());
    }
}

impl Backend {
    /// A server that starts holds the store before its socket is there, and one that stops holds it longer: what
    /// is neither here nor there is asked again for a while.
    fn open(config: &Config) -> Result<Self, Failure> {
        let start = Instant::now();
        loop {
            match Connection::open(&config.admin_socket.path) {
                Ok(connection) => return Ok(Self::Server(connection)),
                Err(CallError::NotRunning(_)) => {}
                Err(error) => return Err(Failure::Failed(error.to_string())),
            }
            match Self::open_store(config)? {
                Ok(backend) => return Ok(backend),
                Err(StoreFault::Open(OpenError::InUse { .. })) if start.elapsed() < PATIENCE => sleep(PAUSE),
                Err(error) => return Err(Failure::Failed(store_words(&error, config))),
            }
        }
    }

    fn open_store(config: &Config) -> Result<Result<Self, StoreFault>, Failure> {
        let failed = |text: String| Failure::Failed(text);
        // Made here, store and key would belong to whoever typed the command, and the server could not open them.
        if let Some(file) = config.store.url.file().filter(|file| !file.exists()) {
            return Err(failed(format!(
                "no server runs (nothing answers on {}), and there is no store yet at {}: start the server once, \
                 it makes the store",
                config.admin_socket.path.display(),
                file.display()
            )));
        }
        let keys = keyfile::open(&config.store.key_files).map_err(|error| failed(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(format!("cannot start: {error}")))?;
        let policy = parts::policy(config).ok_or_else(|| failed("domains names no domain".to_owned()))?;
        let opened = runtime.block_on(parts::open_store(config, &keys, Opener::Command));
        Ok(opened.map(|store| {
            let aliases = Aliases::new(store.clone(), Arc::new(keys), policy, parts::random());
            Self::Store(Box::new(Own { runtime, store, aliases }))
        }))
    }

    fn call(&mut self, request: Request) -> Result<Reply, Failure> {
        match self {
            Self::Server(connection) => {
                connection.call(&request).map_err(|error| Failure::Failed(error.to_string()))
            }
            Self::Store(own) => Ok(own.runtime.block_on(admin::answer(&own.aliases, request))),
        }
    }
}

fn store_words(error: &StoreFault, config: &Config) -> String {
    match error {
        StoreFault::Open(OpenError::InUse { path, holder }) => format!(
            "a server{} has the store {} open, but nothing answers on {}: if it is just starting or stopping, try \
             again; otherwise use the --config that it was started with",
            holder.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
            path.display(),
            config.admin_socket.path.display()
        ),
        other => other.to_string(),
    }
}

fn mismatch() -> Failure {
    Failure::Failed("the server answered something else than was asked: is it of another version?".to_owned())
}

/// Page by page as it comes: a store may hold millions.
fn list(backend: &mut Backend, printer: Printer) -> Result<(), Failure> {
    let mut after = None;
    let mut is_first = true;
    loop {
        let page = match backend.call(Request::List { after, limit: PAGE })? {
            Reply::Page(page) => page,
            Reply::Failed { error } => return Err(Failure::Failed(error)),
            Reply::Made(_) | Reply::Alias(_) | Reply::Removed { .. } => return Err(mismatch()),
        };
        let PageLine { aliases, next } = page;
        if printer.is_json() {
            aliases.iter().try_for_each(|line| printer.either("", line))?;
        } else {
            print::text(&page_text(&aliases, is_first))?;
        }
        is_first = false;
        after = next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn page_text(aliases: &[ListedLine], with_header: bool) -> String {
    let mut text = String::new();
    if with_header {
        text.push_str(if aliases.is_empty() { "no aliases\n" } else { "" });
        if !aliases.is_empty() {
            row(&mut text, ["ID", "STATE", "USED", "HELD", "CREATED", "VALID UNTIL"]);
        }
    }
    for alias in aliases {
        let used = alias.max_usage.map_or("-".to_owned(), |max| format!("{}/{max}", alias.used));
        let until = alias.valid_until.as_deref().unwrap_or("-");
        row(&mut text, [&alias.id, &alias.state, &used, &alias.held.to_string(), &alias.created, until]);
    }
    text
}

/// Fixed widths, since a page does not know the next one.
fn row(text: &mut String, [id, state, used, held, created, until]: [&str; 6]) {
    let _infallible = writeln!(text, "{id:<32}  {state:<7}  {used:<9}  {held:<4}  {created:<20}  {until}");
}

fn made_text(made: &MadeLine) -> String {
    let mut text = format!("{}\n", made.address);
    let mut line = |name: &str, value: &str| {
        let _infallible = writeln!(text, "  {name:<12} {value}");
    };
    line("leads to", &made.target);
    line("valid until", made.valid_until.as_deref().unwrap_or("-"));
    line("messages", &made.max_usage.map_or("any number".to_owned(), |max| max.to_string()));
    line("manage it at", &made.manage_url);
    text.push_str("  The last line is a secret, and is shown only now.\n");
    crate::log::escaped_lines(&text)
}

fn alias_text(alias: &AliasLine) -> String {
    let mut text = format!("{}\n", alias.address);
    let mut line = |name: &str, value: &str| {
        let _infallible = writeln!(text, "  {name:<12} {value}");
    };
    line("leads to", alias.target.as_deref().unwrap_or("-"));
    let also_paused = if alias.paused && alias.state != "paused" { ", paused" } else { "" };
    line("state", &format!("{}{also_paused}", alias.state));
    line("created", &alias.created);
    if let Some(from) = &alias.valid_from {
        line("valid from", from);
    }
    line("valid until", alias.valid_until.as_deref().unwrap_or("-"));
    let messages = match (alias.max_usage, alias.remaining) {
        (Some(max), Some(left)) => format!("{} of {max} used, {left} left", alias.used),
        _ => "any number".to_owned(),
    };
    line("messages", &messages);
    if alias.held > 0 {
        let name = &alias.address;
        line("held", &format!("{} (`tempalias alias free {name}` gives back those in doubt)", alias.held));
    }
    crate::log::escaped_lines(&text)
}
