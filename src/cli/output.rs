//! Where answers go: stdout, as text for people or JSON for scripts, and nothing else with them.
//! Progress and notes go to stderr.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::failure::{Exit, Failure};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For scripts: one JSON document with `apiVersion` and `kind`; `deploy/schema` has its schema.
    Json,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a command answers.
pub trait Answer: Serialize {
    /// The JSON document's `kind`.
    const KIND: &'static str;

    /// Writes the answer for people. `style` marks words where colour is wanted.
    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()>;
}

/// Marks words by colour, or leaves them alone.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    color: bool,
}

impl Style {
    /// Green: as it should be.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Yellow: worth a look.
    pub fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Red: wrong.
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Bold: headings.
    pub fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Where a command's answer goes.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
    color: Color,
}

impl Output {
    /// From the flags that every command has.
    pub fn new(format: Format, color: Color) -> Self {
        Self { format, color }
    }

    /// Prints the answer.
    pub fn print<A: Answer>(&self, answer: &A) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let written = match self.format {
            Format::Text => answer.text(&mut out, self.style()),
            Format::Json => print_json(&mut out, answer),
        };
        written.and_then(|()| out.flush()).map_err(|e| {
            Failure::new(
                Exit::Fault,
                "writing the answer to stdout",
                e,
                "check where it goes",
            )
        })
    }

    /// Prints text that is to be pasted elsewhere, whatever the form of answers.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .map_err(|e| Failure::new(Exit::Fault, "writing to stdout", e, "check where it goes"))
    }

    /// Clears the terminal for the next screen of a `--watch`; elsewhere nothing is cleared.
    pub fn clear(&self) {
        if self.format == Format::Text && io::stdout().is_terminal() {
            // Home, then clear to the end: a terminal that does not know it shows two odd words.
            let _ = write!(io::stdout(), "\u{1b}[H\u{1b}[2J");
        }
    }

    /// Says something beside the answer, on stderr.
    pub fn note(&self, text: &str) {
        // A closed stderr is no reason to fail.
        let _ = writeln!(io::stderr(), "{text}");
    }

    fn style(&self) -> Style {
        let color = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        Style { color }
    }
}

/// The day, as screens show it.
pub(super) fn date(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// A number as people read it: `20 110`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// The version of every JSON answer. Fields may come within a version; none goes or changes.
pub(super) const API_VERSION: &str = "claviger.io/v1alpha1";

/// A JSON answer: what it is, and the answer's own fields.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct Versioned<'a, A> {
    /// The version of this form.
    api_version: &'static str,
    /// What the answer is about.
    kind: &'static str,
    #[serde(flatten)]
    answer: &'a A,
}

fn print_json<A: Answer>(out: &mut dyn Write, answer: &A) -> io::Result<()> {
    let versioned = Versioned {
        api_version: API_VERSION,
        kind: A::KIND,
        answer,
    };
    serde_json::to_writer_pretty(&mut *out, &versioned)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (1_234_567, "1 234 567"),
        ];
        for (number, expected) in cases {
            assert_eq!(grouped(number), expected);
        }
    }
}
