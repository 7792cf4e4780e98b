//! How far a migration is: a bar with rate and time left on a terminal, and nothing elsewhere.

use std::cell::Cell;
use std::fmt::Write;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::cli::output::Output;
use crate::migrate::rewrite::Outcome;

const BAR: &str = "{bar:30} {human_pos}/{human_len}  {rate}/s  {eta} left{msg}";

/// The bar.
pub(super) struct Progress {
    bar: ProgressBar,
    failed: Cell<u64>,
}

impl Progress {
    /// Says what begins, and begins it.
    pub(super) fn begin(total: u64, server: &str, output: &Output) -> Self {
        output.note(&format!(
            "rewriting {total} objects through {server}; Ctrl-C is safe"
        ));
        // It draws on stderr, and only if that is a terminal.
        let bar = ProgressBar::new(total);
        // A template that is not understood leaves the usual bar.
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            let style = style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
                // Writing to the bar does not fail.
                let _ = write!(out, "{:.0}", state.per_sec());
            });
            bar.set_style(style.progress_chars("#>-"));
        }
        Self {
            bar,
            failed: Cell::new(0),
        }
    }

    /// One object more is done.
    pub(super) fn seen(&self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Failed(_)) {
            self.failed.set(self.failed.get() + 1);
            self.bar
                .set_message(format!("  {} failed", self.failed.get()));
        }
        self.bar.inc(1);
    }

    /// No object more is begun; those under way are waited for.
    pub(super) fn interrupted(&self, output: &Output) {
        let waiting = "interrupted: waiting for what is under way; once more ends it at once";
        self.bar.suspend(|| output.note(waiting));
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
