//! The log: to standard error, text on a terminal and JSON otherwise.
//!
//! Owns what a line may look like: whatever a sender put into a field, it stays inside its line (no line end, no
//! terminal escape, no change of the writing direction passes). Never writes to a
//! file: that is for the service manager.

use std::fmt;
use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use crate::config::Level;

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Style {
    /// Text if somebody is looking.
    pub fn of_stderr() -> Self {
        if std::io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Starts logging to standard error, for the rest of the process.
///
/// # Errors
/// When logging was started before.
pub fn start(level: Level, style: Style) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
    tracing::subscriber::set_global_default(subscriber(level, style, std::io::stderr))
}

/// What [`start`] starts, with a writer of the caller's choice.
pub fn subscriber<W>(level: Level, style: Style, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let base = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    let layer = match style {
        Style::Text => {
            base.event_format(OneLine { inner: Format::default().with_ansi(false), style }).boxed()
        }
        Style::Json => base
            .fmt_fields(JsonFields::new())
            .event_format(OneLine { inner: Format::default().json().flatten_event(true), style })
            .boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(levels(level)))
}

/// What libraries log may name the hosts of a target: it is kept out of the log until somebody asks for it.
fn levels(level: Level) -> Targets {
    let libraries = match level {
        Level::Error | Level::Warn | Level::Info => LevelFilter::OFF,
        Level::Debug => LevelFilter::INFO,
        Level::Trace => LevelFilter::TRACE,
    };
    // A prefix: all crates of ours are called tempalias_….
    Targets::new().with_default(libraries).with_target("tempalias", level.filter())
}

/// Formats an event with `inner`, then makes one harmless line of it. `tracing-subscriber` itself escapes ESC, but
/// lets a line end in a field begin a line of its own.
struct OneLine<F> {
    inner: F,
    style: Style,
}

impl<S, N, F> FormatEvent<S, N> for OneLine<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let line = line.strip_suffix('\n').unwrap_or(&line);
        write_escaped(&mut writer, line, self.style)?;
        writer.write_char('\n')
    }
}

/// `text` without anything that acts on a terminal or ends a line.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let _infallible = write_escaped(&mut out, text, Style::Text);
    out
}

/// The same line by line: for texts of several lines that we wrote, around values that others chose.
pub fn escaped_lines(text: &str) -> String {
    text.split_inclusive('\n').fold(String::with_capacity(text.len()), |mut out, line| {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let _infallible = write_escaped(&mut out, line, Style::Text);
        out + end
    })
}

fn write_escaped(out: &mut impl fmt::Write, text: &str, style: Style) -> fmt::Result {
    for c in text.chars() {
        match (acts(c), style) {
            (false, _) => out.write_char(c)?,
            (true, Style::Text) => write!(out, "{}", c.escape_default())?,
            // Below U+0020 the JSON writer has done it; all of these have four digits.
            (true, Style::Json) => write!(out, "\\u{:04x}", u32::from(c))?,
        }
    }
    Ok(())
}

/// Control characters, line and paragraph separators, and those that change the writing direction.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}')
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(level: Level, style: Style, work: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        tracing::subscriber::with_default(subscriber(level, style, move || writer.clone()), work);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "a\nERROR forged: yes\r\n\u{1b}[2J\u{9b}31m\u{202e}\u{2028}\u{7f}\0 ü";

    fn say_hostile_things() {
        let span = tracing::info_span!("mail", id = %HOSTILE);
        let _inside = span.enter();
        let error = std::io::Error::other(HOSTILE);
        tracing::info!(helo = %HOSTILE, debug = ?HOSTILE, plain = HOSTILE, error = &error as &dyn std::error::Error,
            "{HOSTILE}");
    }

    #[test]
    fn a_text_line_cannot_be_forged() {
        let text = log(Level::Info, Style::Text, say_hostile_things);
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert_eq!(text.trim_end_matches('\n').chars().find(|c| acts(*c)), None, "{text:?}");
        assert!(text.contains("helo=a\\nERROR forged") && text.contains('ü'), "{text}");
    }

    #[test]
    fn a_json_line_cannot_be_forged_and_means_what_was_said() {
        let text = log(Level::Info, Style::Json, say_hostile_things);
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert_eq!(text.trim_end_matches('\n').chars().find(|c| acts(*c)), None, "{text:?}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["plain"], HOSTILE);
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn libraries_are_silent_until_asked() {
        let work = || {
            tracing::error!(target: "hickory_resolver::name_server", "cannot reach target.example");
            tracing::debug!(target: "tempalias_mail::session", "ours");
        };
        assert_eq!(log(Level::Info, Style::Text, work), "");
        let debug = log(Level::Debug, Style::Text, work);
        assert!(debug.contains("ours") && debug.contains("cannot reach"), "{debug}");
        let warn = log(Level::Warn, Style::Text, || tracing::warn!(target: "tempalias", "the program's own"));
        assert!(warn.contains("the program's own"), "{warn}");
    }
}
