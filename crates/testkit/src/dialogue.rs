//! A dialogue as it was written. `tests/dialogues/README.md` describes the language; `parse.rs` reads it.

mod parse;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One scenario.
#[derive(Debug, Clone)]
pub struct Dialogue {
    /// The file's name, without `.smtp`.
    pub name: String,
    /// Why it exists: its first line.
    pub purpose: String,
    /// Why it cannot be played over TCP, if it cannot.
    pub machine_only: Option<String>,
    /// Keys and values of the configuration that differ from the defaults; see [`CONFIG_KEYS`].
    pub config: Vec<(String, String)>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// What must never appear towards a sender.
    pub never: Vec<String>,
}

/// One line of a dialogue.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its number, for messages.
    pub line: usize,
    /// What it says.
    pub action: Action,
}

/// One of two senders, each with a next hop's connection of its own: `C` with `U`, `D` with `V`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// `C` and `U`.
    First,
    /// `D` and `V`.
    Second,
}

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The sender connects, perhaps writing at once.
    Connect(Lane, Vec<u8>),
    /// The sender connects, hears the banner, says EHLO and hears the answer.
    Greet(Lane),
    /// The sender closes its connection without a word, whatever it has not read.
    Close(Lane),
    /// The sender writes, in these pieces.
    Write(Lane, Vec<Vec<u8>>),
    /// The sender reads one reply line.
    Hears(Lane, String),
    /// The sender finds its connection closed.
    Closed(Lane),
    /// The answer is held back for this long.
    Pause(Lane, Duration),
    /// The next hop is connected to and greets with these offers.
    HopConnects(Lane, HopConnects),
    /// The next hop cannot be reached.
    HopFails(Lane, HopFailure),
    /// The next hop hears one line.
    HopHears(Lane, String),
    /// The next hop hears the message: header lines of ours, then the octets of the sender's last message.
    HopHearsMessage(Lane),
    /// The next hop writes.
    HopSays(Lane, Vec<u8>),
    /// The next hop closes the connection.
    HopCloses(Lane),
    /// The message breaks on its way to the next hop.
    HopBreaks(Lane, HopBreaks),
    /// We are done with the next hop's connection.
    HopLeft(Lane, HopLeft),
    /// Nothing reached the next hop since it was last heard of.
    HopQuiet(Lane),
    /// Time passes.
    Wait(Duration),
    /// An alias is made.
    Seed(Seed),
    /// An alias is changed.
    Change(String, Change),
    /// An alias is looked at.
    Look(String, Vec<(Count, u32)>),
    /// The store fails, or recovers.
    Store(Fault),
    /// The memory for messages is used up, or free again.
    Memory(Memory),
    /// The program dies and starts again.
    Crash,
    /// The program is told to end.
    Drain,
}

/// How the next hop takes a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopConnects {
    /// Its EHLO keywords.
    pub offers: Vec<String>,
    /// Whether it must be a new connection, not a pooled one.
    pub anew: bool,
}

/// What a next hop offers unless a dialogue says otherwise.
pub const DEFAULT_OFFERS: [&str; 4] = ["PIPELINING", "SIZE 0", "8BITMIME", "SMTPUTF8"];

/// The EHLO reply with these offers.
pub(crate) fn ehlo_reply(offers: &[String]) -> String {
    let mut reply = String::from("250-hop.test\r\n");
    for offer in offers {
        reply.extend(["250-", offer, "\r\n"]);
    }
    let last = reply.trim_end().rfind("250-").unwrap_or(0);
    reply.replace_range(last..last + 4, "250 ");
    reply
}

/// Why a next hop cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopFailure {
    /// Nobody listens.
    NoConnection,
    /// The DNS says nothing.
    NoDnsAnswer,
    /// The domain does not exist.
    NoSuchDomain,
    /// The domain takes no mail.
    NullMx,
    /// Only private addresses, or ours.
    BadRoute,
}

/// How a message breaks off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopBreaks {
    /// Whether a write with an octet of the final dot had been tried.
    pub at_dot: bool,
    /// What the next hop said before.
    pub saying: Vec<u8>,
}

/// How we leave the next hop's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopLeft {
    /// Usable for another mail.
    Released,
    /// Closed, without a dot.
    Dropped,
}

/// A new alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Its local part.
    pub alias: String,
    /// The real address.
    pub target: String,
    /// The domain it was made under.
    pub domain: Option<String>,
    /// Most messages.
    pub uses: Option<u32>,
    /// Days from now.
    pub days: Option<u32>,
    /// Not valid before so much time has passed.
    pub from: Option<Duration>,
    /// Whether an older server key made it.
    pub old_key: bool,
}

/// What an owner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Pauses it.
    Pause,
    /// Resumes it.
    Resume,
    /// Removes it.
    Remove,
    /// Lets it end now.
    Expire,
    /// Gives it a new number of uses.
    Uses(u32),
    /// Frees what is held.
    FreeHeld,
}

/// What can be counted of an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Uses granted and not given back.
    Used,
    /// Uses left.
    Left,
    /// Uses in flight or in doubt.
    Held,
    /// Claims kept, delivered ones included.
    Kept,
}

/// What is wrong with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Up,
    /// It fails at once.
    Down,
    /// It never answers and does nothing.
    Hangs,
    /// It does what it is told and never answers.
    Mute,
}

/// Whether there is memory for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// There is.
    Free,
    /// There is none, not even to begin.
    Full,
    /// Enough to begin, and no more.
    Tight,
}

/// The keys that `config:` takes, with their defaults in dialogues. They are those of `docs/config.md`, without
/// sections.
pub const CONFIG_KEYS: [(&str, &str); 16] = [
    ("delivery", "smarthost"),
    ("smarthost_size", "0"),
    ("max_message_size", "25MiB"),
    ("max_recipients", "100"),
    ("max_received", "50"),
    ("max_unknown_commands", "3"),
    ("slow_after_refused", "10"),
    ("max_refused_recipients", "50"),
    ("command_timeout", "5m"),
    ("min_data_rate", "500"),
    ("data_grace", "60s"),
    ("session_timeout", "30m"),
    ("max_mails", "100"),
    ("envelope_timeout", "120s"),
    ("dot_timeout", "9m30s"),
    ("hold_upstream", "5s"),
];

/// Our domains in every dialogue; the first is that of aliases that name none.
pub const DOMAINS: [&str; 2] = ["alias.test", "other.test"];
/// Our own name.
pub const HOSTNAME: &str = "mx.alias.test";
/// Who gets postmaster@ and abuse@.
pub const OPERATOR: &str = "operator@real.test";
/// What `C+ greets` says.
pub const SENDER: &str = "sender.test";

/// A dialogue that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// Where.
    pub line: usize,
    /// Why.
    pub why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl Dialogue {
    /// Reads a dialogue.
    ///
    /// # Errors
    /// [`Unreadable`] names the line.
    pub fn parse(name: &str, text: &str) -> Result<Self, Unreadable> {
        parse::parse(name, text)
    }

    /// All dialogues of this repository, by name.
    ///
    /// # Panics
    /// When one cannot be read: a dialogue that is skipped guards nothing.
    pub fn all() -> Vec<Self> {
        let folder = folder();
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "smtp"))
            .collect();
        files.sort();
        files.iter().map(|path| read(path)).collect()
    }

    /// The value of a key of [`CONFIG_KEYS`].
    pub fn config(&self, key: &str) -> &str {
        let given = self.config.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let default = || CONFIG_KEYS.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        given.or_else(default).unwrap_or_else(|| panic!("no config key {key}"))
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/dialogues")
}

fn read(path: &Path) -> Dialogue {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Dialogue::parse(&name, &text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads `10ms`, `3s`, `9m30s`, `5d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| format!("{text}: not a duration"))?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        total += match &unit[..end] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(60 * number),
            "h" => Duration::from_secs(3600 * number),
            "d" => Duration::from_secs(86_400 * number),
            unit => return Err(format!("{text}: no unit {unit:?}")),
        };
        rest = &unit[end..];
    }
    Ok(total)
}

/// Reads `100`, `64KiB`, `25MiB`.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| format!("{text}: not a size"))?;
    match &text[digits..] {
        "" | "B" => Ok(number),
        "KiB" => Ok(number << 10),
        "MiB" => Ok(number << 20),
        unit => Err(format!("{text}: no unit {unit:?}")),
    }
}
