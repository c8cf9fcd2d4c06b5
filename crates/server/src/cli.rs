//! The command line: what may be typed, and which function does it.
//!
//! Owns the names of commands and options, what they print, and the exit status. What a command does to aliases is
//! in `admin`: it happens in the running server, or here over the same functions when no server runs.

mod alias;
mod check;
mod copy;
mod db;
mod demo;
mod print;
mod progress;
mod serve;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tempalias_address::{Domain, Mailbox};

use crate::admin::AliasName;
use crate::config::{self, ConfigError, Environment};
use crate::keyfile;
use print::Printer;

/// Addresses that destroy themselves: a mail service that forwards to your real address until a limit is met.
#[derive(Debug, Parser)]
#[command(name = "tempalias", version, disable_help_subcommand = true)]
pub struct Cli {
    /// The configuration file [default: `$TEMPALIAS_CONFIG` or /etc/tempalias/tempalias.toml].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do; without it, a short help.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try everything on this machine: no DNS, no root, nothing kept.
    Demo {
        /// Where the pages and the API are.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        http: SocketAddr,
        /// Where mail is taken.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2525")]
        smtp: SocketAddr,
    },
    /// Serve: take mail, pages and API calls, until told to end.
    Serve,
    /// Make, look at and change aliases.
    #[command(subcommand, arg_required_else_help = true)]
    Alias(AliasCommand),
    /// Check and show the configuration.
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    /// Make server keys.
    #[command(subcommand, arg_required_else_help = true)]
    Key(KeyCommand),
    /// Look after the store.
    #[command(subcommand, arg_required_else_help = true)]
    Db(DbCommand),
}

/// What can be done with aliases, through the running server or, if none runs, in its store.
#[derive(Debug, Subcommand)]
pub enum AliasCommand {
    /// Make an alias for a real address.
    Add {
        /// The real address.
        target: Mailbox,
        /// When it ends.
        #[command(flatten)]
        limits: LimitArgs,
        /// The domain to make it under [default: the first configured].
        #[arg(long)]
        domain: Option<Domain>,
    },
    /// List all aliases, by ids that tell nothing. With --json, one object a line.
    List,
    /// Show one alias.
    Show(AliasArg),
    /// Refuse an alias's mail until it is resumed.
    Pause(AliasArg),
    /// Take a paused alias's mail again.
    Resume(AliasArg),
    /// Give an alias a new end.
    Extend {
        /// Which one.
        #[command(flatten)]
        alias: AliasArg,
        /// When it ends.
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Give back the uses of an alias that are held by messages whose fate is unknown.
    Free(AliasArg),
    /// End an alias for ever.
    Rm {
        /// Which one.
        #[command(flatten)]
        alias: AliasArg,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// When an alias ends: at whichever limit is met first.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = true)]
pub struct LimitArgs {
    /// It lives so many days from now.
    #[arg(long, value_name = "N")]
    pub days: Option<NonZeroU32>,
    /// It passes on so many messages in all.
    #[arg(long, value_name = "N")]
    pub max_usage: Option<NonZeroU32>,
}

/// Which alias.
#[derive(Debug, Clone, Args)]
pub struct AliasArg {
    /// The alias, with or without its domain.
    pub alias: AliasName,
}

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell everything that is wrong with a configuration file.
    Check {
        /// The file [default: as --config].
        file: Option<PathBuf>,
    },
    /// Print the values in force and where each comes from.
    Show,
    /// Print a file to start from.
    Example,
    /// Print `docs/config.md`.
    #[command(hide = true)]
    Reference,
}

/// What can be done with server keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a new server key in a file, to be listed first in `store.key_files`.
    New {
        /// The file; it must not exist.
        file: PathBuf,
    },
}

/// What can be done with the store.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Make a Redis ready for aliases: the first time, or after it has lost data that cannot be restored. From then on
    /// an alias that is not there does not exist.
    Adopt,
    /// Move everything from one store to another while nobody serves either of them. If it is interrupted, the same
    /// command goes on where it was; at the end both are read again and compared.
    Copy(CopyArgs),
}

/// What is copied, and where to. Key files and namespace are those of the configuration.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The store to copy, written as `store.url` is; it stays as it is.
    pub from: String,
    /// The store to fill, written as `store.url` is; it must hold no aliases.
    pub to: String,
    /// FROM is the Redis of the first tempalias (2010): import its aliases.
    #[arg(long)]
    pub legacy: bool,
    /// A file that holds the password of FROM.
    #[arg(long, value_name = "FILE")]
    pub from_password_file: Option<PathBuf>,
    /// A file that holds the password of TO.
    #[arg(long, value_name = "FILE")]
    pub to_password_file: Option<PathBuf>,
    /// Certificates in PEM to trust over TLS [default: `store.ca_file`].
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// Why a command did not do what it was told to; each kind has its exit status.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be done (1).
    #[error("{0}")]
    Failed(String),
    /// The configuration is wrong (78, `EX_CONFIG` of sysexits.h).
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Whoever read the output has enough of it. (0: so ends `tempalias alias list | head`.)
    #[error("the output is closed")]
    Closed,
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Failed(_) => 1,
            Self::Config(_) => 78,
        }
    }
}

/// Commands that a newcomer needs, of those that exist.
const FIRST_STEPS: [&[&str]; 7] = [
    &["demo"],
    &["quickstart"],
    &["serve"],
    &["doctor"],
    &["alias", "add"],
    &["config", "example"],
    &["config", "check"],
];

/// Does what was typed. (A mistyped command never comes here: `clap` ends the program with status 2.)
pub fn run(cli: Cli, environment: &Environment) -> ExitCode {
    let printer = Printer::new(cli.json);
    match dispatch(cli, environment, printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.status())
        }
    }
}

fn dispatch(cli: Cli, environment: &Environment, printer: Printer) -> Result<(), Failure> {
    let path = cli.config.or_else(|| environment.config_path());
    let path = path.unwrap_or_else(|| config::DEFAULT_PATH.into());
    match cli.command {
        None => print::text(&first_steps()),
        Some(Command::Demo { http, smtp }) => demo::run(crate::demo::Options { http, smtp }),
        Some(Command::Serve) => serve::run(&path, environment),
        Some(Command::Config(command)) => check::run(command, &path, environment, printer),
        Some(Command::Key(KeyCommand::New { file })) => new_key(&file, printer),
        Some(Command::Alias(command)) => {
            let loaded = config::load(&path, environment)?;
            printer.warnings(&loaded.warnings);
            alias::run(command, &loaded.config, printer)
        }
        Some(Command::Db(command)) => {
            let loaded = config::load(&path, environment)?;
            printer.warnings(&loaded.warnings);
            db::run(command, &loaded.config, printer)
        }
    }
}

fn new_key(file: &Path, printer: Printer) -> Result<(), Failure> {
    keyfile::create(file).map_err(|error| Failure::Failed(error.to_string()))?;
    let text = format!(
        "{}: a new server key. List it first in store.key_files, keep the old files behind it until the aliases \
         made with them have ended, and keep a copy in a safe place.\n",
        file.display()
    );
    printer.either(&text, &serde_json::json!({ "file": file }))
}

fn first_steps() -> String {
    let root = Cli::command();
    let mut text = String::from("tempalias: mail addresses that destroy themselves. First steps:\n\n");
    for path in FIRST_STEPS {
        let found = path.iter().try_fold(&root, |command, name| command.find_subcommand(name));
        if let Some(about) = found.and_then(clap::Command::get_about) {
            let name = path.join(" ");
            text.push_str(&["  tempalias ", &format!("{name:<16}"), &about.to_string(), "\n"].concat());
        }
    }
    text.push_str("\nAll commands: tempalias --help\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_newcomer_is_told_what_exists_and_nothing_else() {
        let text = first_steps();
        assert!(text.contains("tempalias alias add") && text.contains("tempalias config check"), "{text}");
        assert!(!text.contains("quickstart"), "{text}");
    }

    #[test]
    fn an_alias_needs_a_limit() {
        assert!(Cli::try_parse_from(["tempalias", "alias", "add", "me@real.test"]).is_err());
        assert!(Cli::try_parse_from(["tempalias", "alias", "add", "me@real.test", "--days", "0"]).is_err());
        assert!(Cli::try_parse_from(["tempalias", "alias", "add", "me", "--days", "1"]).is_err());
        let both = ["tempalias", "alias", "add", "me@real.test", "--days", "1", "--max-usage", "2", "--json"];
        assert!(Cli::try_parse_from(both).unwrap().json);
    }
}
