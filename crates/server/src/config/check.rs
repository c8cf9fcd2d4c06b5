//! What no single key can tell: how the values fit together, and which ones make no sense.

use std::net::SocketAddr;
use std::time::Duration;

use super::keys::Config;
use super::problem::{Origin, Problem};
use super::read::Origins;
use super::types::Size;

/// Senders wait this long for the answer to their dot (RFC 5321 §4.5.3.2.6).
const SENDERS_WAIT: Duration = Duration::from_mins(10);
/// Everybody must take messages of this size (RFC 5321 §4.5.3.1.7).
const SMALLEST_MESSAGE: Size = Size::kib(64);
/// A hundred years: dates beyond the year 9999 have no text form.
const MOST_DAYS: u32 = 36_500;

struct Checks<'a> {
    origins: &'a Origins,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    fn require(&mut self, key: &str, holds: bool, text: impl Into<String>) {
        if !holds {
            let origin = self.origins.get(key).cloned().unwrap_or(Origin::File);
            self.problems.push(Problem { origin, key: key.to_owned(), text: text.into() });
        }
    }

    fn at_least_one(&mut self, key: &str, number: u32) {
        self.require(key, number >= 1, "must be at least 1");
    }

    fn some_time(&mut self, key: &str, duration: Duration) {
        self.require(key, !duration.is_zero(), "must be longer than 0s");
    }
}

/// Everything that does not fit together.
pub(super) fn problems(config: &Config, origins: &Origins) -> Vec<Problem> {
    let mut checks = Checks { origins, problems: Vec::new() };
    identity(config, &mut checks);
    listeners(config, &mut checks);
    smtp(config, &mut checks);
    delivery(config, &mut checks);
    rest(config, &mut checks);
    checks.problems
}

/// What is allowed, and probably not meant.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let open = config.targets.allow_domains.is_empty();
    // A proxy may reach the page over loopback; then it is SMTP that shows that strangers are meant to come.
    let mut listen = config.http.listen.iter().chain(&config.smtp.listen);
    let public = listen.any(|address| !address.ip().is_loopback());
    let mut warnings = Vec::new();
    if open && public {
        warnings.push(
            "this server is reachable from outside and targets.allow_domains is empty: anybody can make aliases \
             for anybody's address"
                .to_owned(),
        );
    }
    warnings
}

fn identity(config: &Config, checks: &mut Checks<'_>) {
    let domains = &config.domains;
    checks.require("domains", !domains.is_empty(), "must name at least one domain");
    for (i, domain) in domains.iter().enumerate() {
        let twice = domains.iter().take(i).any(|earlier| earlier == domain);
        checks.require("domains", !twice, format!("names {domain} twice"));
    }
    let ours = domains.contains(config.admin.domain());
    checks.require(
        "admin",
        !ours,
        "must be an address outside of domains: mail to postmaster@ would come back to itself",
    );
}

fn listeners(config: &Config, checks: &mut Checks<'_>) {
    let all: [(&str, &[SocketAddr]); 3] = [
        ("smtp.listen", &config.smtp.listen),
        ("http.listen", &config.http.listen),
        ("admin_http.listen", &config.admin_http.listen),
    ];
    let mut seen: Vec<(SocketAddr, &str)> = Vec::new();
    for (key, addresses) in all {
        checks.require(key, !addresses.is_empty(), "must name at least one address to listen on");
        for address in addresses {
            // Port 0 is whichever is free: two of them never meet.
            let other = seen.iter().find(|(earlier, _)| earlier == address && address.port() != 0);
            if let Some((_, other)) = other {
                checks.require(key, false, format!("names {address}, which {other} has already"));
            }
            seen.push((*address, key));
        }
    }
}

fn smtp(config: &Config, checks: &mut Checks<'_>) {
    let smtp = &config.smtp;
    for (key, number) in [
        ("smtp.max_connections", smtp.max_connections),
        ("smtp.max_connections_per_address", smtp.max_connections_per_address),
        ("smtp.max_recipients", smtp.max_recipients),
        ("smtp.max_received", smtp.max_received),
        ("smtp.max_unknown_commands", smtp.max_unknown_commands),
        ("smtp.max_refused_recipients", smtp.max_refused_recipients),
        ("smtp.max_mails", smtp.max_mails),
    ] {
        checks.at_least_one(key, number);
    }
    checks.some_time("smtp.command_timeout", smtp.command_timeout);
    checks.require(
        "smtp.max_message_size",
        smtp.max_message_size >= SMALLEST_MESSAGE,
        format!(
            "must be at least \"{SMALLEST_MESSAGE}\": every mail server has to take messages of that size"
        ),
    );
    checks.require(
        "smtp.body_memory",
        smtp.body_memory >= smtp.max_message_size,
        format!("must be at least smtp.max_message_size (\"{}\")", smtp.max_message_size),
    );
    checks.require(
        "smtp.session_timeout",
        smtp.session_timeout >= smtp.command_timeout,
        "must be at least smtp.command_timeout",
    );
}

fn delivery(config: &Config, checks: &mut Checks<'_>) {
    let delivery = &config.delivery;
    checks.require("delivery.mx_port", delivery.mx_port != 0, "must be a port from 1 to 65535");
    checks.some_time("delivery.envelope_timeout", delivery.envelope_timeout);
    checks.some_time("delivery.dot_timeout", delivery.dot_timeout);
    checks.require(
        "delivery.dot_timeout",
        delivery.dot_timeout < SENDERS_WAIT,
        "must be shorter than \"10m\": senders give up then, and would send the message a second time",
    );
}

fn rest(config: &Config, checks: &mut Checks<'_>) {
    let key_files = &config.store.key_files;
    checks.require("store.key_files", !key_files.is_empty(), "must name at least one file");
    for (i, file) in key_files.iter().enumerate() {
        let twice = key_files.iter().take(i).any(|earlier| earlier == file);
        checks.require("store.key_files", !twice, format!("names {} twice", file.display()));
    }
    if config.store.url.redis().is_none() {
        let only = "is for a store on Redis: remove it, or set store.url";
        checks.require("store.password_file", config.store.password_file.is_none(), only);
        checks.require("store.ca_file", config.store.ca_file.is_none(), only);
        checks.require("store.wait_replicas", config.store.wait_replicas == 0, only);
    }
    if let Some(address) = config.store.url.redis() {
        let twice = address.has_password() && config.store.password_file.is_some();
        checks.require(
            "store.password_file",
            !twice,
            "is set, and store.url holds a password, too: remove one",
        );
        let is_used = address.is_tls() || config.store.ca_file.is_none();
        checks.require("store.ca_file", is_used, "is for TLS: write rediss:// in store.url");
    }
    let limits = &config.limits;
    checks.require(
        "limits.max_days",
        (1..=MOST_DAYS).contains(&limits.max_days),
        format!("must be from 1 to {MOST_DAYS}"),
    );
    checks.at_least_one("limits.max_usage", limits.max_usage);
    checks.at_least_one("limits.create_burst", limits.create_burst);
    checks.some_time("limits.create_every", limits.create_every);
}
