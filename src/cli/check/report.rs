//! What `check` found: sections of items, the worst of which decides the answer.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::failure::Exit;
use crate::cli::output::{Answer, Style};
use crate::encryption_config::Level;

/// Columns of a screen.
const WIDTH: usize = 80;
/// Columns before an item's text: its level, and two blanks.
const INDENT: usize = 6;

/// Everything that was found. JSON: `kind: Check`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Report {
    /// The worst level of all items.
    verdict: Level,
    /// What was looked at.
    sections: Vec<Section>,
}

/// Items that belong together.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Section {
    title: String,
    items: Vec<Item>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Item {
    /// Whether it is as it should be.
    pub(super) level: Level,
    /// The line of a file that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u64>,
    /// What it is and how it is.
    pub(super) text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

impl Item {
    pub(super) fn ok(text: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            line: None,
            text: text.into(),
            next: None,
        }
    }

    pub(super) fn warn(text: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            line: None,
            text: text.into(),
            next: Some(next.into()),
        }
    }

    pub(super) fn bad(text: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            level: Level::Bad,
            line: None,
            text: text.into(),
            next: Some(next.into()),
        }
    }
}

impl Section {
    pub(super) fn new(title: impl Into<String>, items: Vec<Item>) -> Self {
        Self {
            title: title.into(),
            items,
        }
    }
}

impl Report {
    pub(super) fn new(sections: Vec<Section>) -> Self {
        let items = sections.iter().flat_map(|section| &section.items);
        let worst = items.map(|item| item.level).max().unwrap_or(Level::Ok);
        Self {
            verdict: worst,
            sections,
        }
    }

    /// 3 if anything is bad, else 0.
    pub(super) fn exit(&self) -> Exit {
        if self.count(Level::Bad) > 0 {
            Exit::No
        } else {
            Exit::Done
        }
    }

    fn count(&self, level: Level) -> usize {
        let items = self.sections.iter().flat_map(|section| &section.items);
        items.filter(|item| item.level == level).count()
    }
}

impl Answer for Report {
    const KIND: &'static str = "Check";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        for section in &self.sections {
            writeln!(out, "{}", style.strong(&section.title))?;
            for item in &section.items {
                write_item(out, style, item)?;
            }
        }
        let (bad, warnings) = (self.count(Level::Bad), self.count(Level::Warn));
        match (bad, warnings) {
            (0, 0) => writeln!(out, "{}", style.good("all is well")),
            (0, _) => writeln!(
                out,
                "{}",
                style.warn(&format!("warnings: {warnings}, bad: none"))
            ),
            _ => writeln!(
                out,
                "{}",
                style.bad(&format!("bad: {bad}, warnings: {warnings}"))
            ),
        }
    }
}

fn write_item(out: &mut dyn Write, style: Style, item: &Item) -> io::Result<()> {
    let level = format!("{:<width$}", name(item.level), width = INDENT);
    let level = match item.level {
        Level::Ok => style.good(&level),
        Level::Warn => style.warn(&level),
        Level::Bad => style.bad(&level),
    };
    let text = match item.line {
        Some(line) => format!("line {line}: {}", item.text),
        None => item.text.clone(),
    };
    let next = item.next.as_ref().map(|next| format!("next: {next}"));
    let lines = wrapped(&text)
        .into_iter()
        .chain(next.iter().flat_map(|next| wrapped(next)));
    for (index, line) in lines.enumerate() {
        if index == 0 {
            writeln!(out, "{level}{line}")?;
        } else {
            writeln!(out, "{:INDENT$}{line}", "")?;
        }
    }
    Ok(())
}

/// Lines that fit beside the level; a word that is too long stays whole, because it is a path.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        if let Some(line) = lines.last_mut() {
            if line.is_empty() {
                line.push_str(word);
            } else if line.chars().count() + 1 + word.chars().count() <= WIDTH - INDENT {
                line.push(' ');
                line.push_str(word);
            } else {
                lines.push(word.to_owned());
            }
        }
    }
    lines
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Bad => "bad",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(items: Vec<Item>) -> Report {
        Report::new(vec![Section::new("HOST", items)])
    }

    #[test]
    fn the_worst_item_decides() {
        assert_eq!(report(vec![Item::ok("a")]).exit(), Exit::Done);
        assert_eq!(
            report(vec![Item::ok("a"), Item::warn("b", "c")]).exit(),
            Exit::Done
        );
        let bad = report(vec![Item::bad("a", "b"), Item::warn("c", "d")]);
        assert_eq!((bad.exit(), bad.verdict), (Exit::No, Level::Bad));
    }

    #[test]
    fn lines_keep_to_the_screen_and_lose_no_word() {
        let text = "some words that are to be wrapped ".repeat(9);
        let lines = wrapped(text.trim_end());
        assert!(
            lines.iter().all(|line| line.len() <= WIDTH - INDENT),
            "{lines:#?}"
        );
        assert_eq!(lines.join(" "), text.trim_end());
        let path = "/".repeat(100);
        assert_eq!(wrapped(&format!("a {path} b")), ["a", &path, "b"]);
    }

    #[test]
    fn json_names_levels_and_leaves_out_what_is_not_there() {
        let json = serde_json::to_value(report(vec![Item::ok("a"), Item::warn("b", "c")])).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"verdict": "warn", "sections": [{"title": "HOST", "items": [
                {"level": "ok", "text": "a"},
                {"level": "warn", "text": "b", "next": "c"},
            ]}]})
        );
    }
}
