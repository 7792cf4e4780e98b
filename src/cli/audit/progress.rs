//! How far an audit is: a bar with rate on a terminal, and nothing elsewhere.

use std::fmt::Write;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::audit::keyspace::Observer;
use crate::cli::output::Output;

const READING: &str = "{bar:30} {human_pos}/{human_len} objects read  {rate}/s";
const HISTORY: &str = "{spinner} all {human_len} objects read; reading what history still holds";

/// The bar.
pub(super) struct Progress<'a> {
    bar: ProgressBar,
    output: &'a Output,
}

impl<'a> Progress<'a> {
    /// One that shows nothing until etcd has counted its keys.
    pub(super) fn begin(output: &'a Output) -> Self {
        // It draws on stderr, and only if that is a terminal.
        Self {
            bar: ProgressBar::no_length(),
            output,
        }
    }

    fn show(&self, template: &str) {
        // A template that is not understood leaves the usual bar.
        if let Ok(style) = ProgressStyle::with_template(template) {
            let style = style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
                // Writing to the bar does not fail.
                let _ = write!(out, "{:.0}", state.per_sec());
            });
            self.bar.set_style(style.progress_chars("#>-"));
        }
    }
}

impl Observer for Progress<'_> {
    fn note(&self, text: &str) {
        self.bar.suspend(|| self.output.note(text));
    }

    fn begin(&self, keys: u64) {
        self.show(READING);
        self.bar.set_length(keys);
        self.bar.reset();
    }

    fn seen(&self, keys: u64) {
        self.bar.set_position(keys);
    }

    fn history(&self) {
        self.show(HISTORY);
        self.bar.tick();
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
