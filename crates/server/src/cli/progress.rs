//! How far a long command is: a bar on a terminal, a line now and then in a log, nothing for programs.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::print::Printer;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Fits into 80 columns with 30 million rows.
const TEMPLATE: &str = "{msg:<9} [{bar:20}] {pos}/{len}, {per_second}, {eta} left";

/// Shown on standard error, and gone in the end.
pub(super) struct Shown {
    how: How,
    what: &'static str,
}

enum How {
    Bar(Option<ProgressBar>),
    Lines(Instant),
    Nothing,
}

impl Shown {
    pub(super) fn new(printer: Printer) -> Self {
        let how = match () {
            () if printer.is_json() => How::Nothing,
            () if io::stderr().is_terminal() => How::Bar(None),
            () => How::Lines(Instant::now()),
        };
        Self { how, what: "" }
    }

    /// `done` of `total`, in the course of `what`.
    pub(super) fn at(&mut self, what: &'static str, done: u64, total: u64) {
        let is_new = std::mem::replace(&mut self.what, what) != what;
        match &mut self.how {
            How::Bar(shown) => {
                if is_new {
                    clear(shown.replace(bar(what, done, total)));
                }
                if let Some(bar) = shown {
                    bar.set_length(total);
                    bar.set_position(done);
                }
            }
            How::Lines(last) => {
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    // If standard error is closed, nobody is left to tell.
                    let _nobody_to_tell = writeln!(io::stderr().lock(), "{what}: {done} of {total} aliases");
                }
            }
            How::Nothing => {}
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let How::Bar(bar) = &mut self.how {
            clear(bar.take());
        }
    }
}

fn clear(bar: Option<ProgressBar>) {
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn bar(what: &'static str, done: u64, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let per_second = |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
        let _infallible = write!(out, "{:.0}/s", state.per_sec());
    };
    let style = style.with_key("per_second", per_second).progress_chars("=> ");
    let bar = ProgressBar::new(total).with_style(style).with_message(what).with_position(done);
    // What an earlier run has done says nothing about the speed of this one.
    bar.reset_eta();
    bar
}
