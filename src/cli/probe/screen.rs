//! What the probe found, as a table of 80 columns.

use std::io::{self, Write};

use super::super::output::{Answer, Style};
use crate::probe::report::{Line, Report, Verdict};

/// Columns of a terminal that every screen fits in.
const WIDTH: usize = 80;
/// Where the second and the third column start.
const COLUMNS: (usize, usize) = (37, 55);

impl Answer for Report {
    const KIND: &'static str = "Probe";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        write(self, out, Paint(Some(style)))
    }
}

fn write(report: &Report, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
    writeln!(out, "{}", report.socket)?;
    if !report.key_id.is_empty() {
        let answers = format!("version {}, key id {}", report.version, report.key_id);
        writeln!(out, "{}", wrap(&answers, 0))?;
    }
    let (second, third) = COLUMNS;
    let width = third - second;
    writeln!(out, "{:second$}{:width$}FOUND", "CHECK", "THE APISERVER")?;
    for line in &report.lines {
        write_line(line, out, paint)?;
    }
    for note in &report.notes {
        writeln!(out, "{}", wrap(&format!("note: {note}"), 6))?;
    }
    let all = report.lines.len();
    let wrong = report
        .lines
        .iter()
        .filter(|line| line.verdict != Verdict::Ok);
    let (worst, sum) = match wrong.count() {
        0 => (Verdict::Ok, format!("{all} checks, all ok")),
        1 => (Verdict::Refuse, format!("1 of {all} checks is not ok")),
        wrong => (
            Verdict::Refuse,
            format!("{wrong} of {all} checks are not ok"),
        ),
    };
    writeln!(out, "{}", paint.as_verdict(worst, &sum))
}

fn write_line(line: &Line, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
    let (second, third) = COLUMNS;
    let width = third - second;
    let verdict = paint.as_verdict(line.verdict, &format!("{:width$}", line.verdict));
    let beside = third + line.found.chars().count() <= WIDTH;
    let found = if beside { line.found.as_str() } else { "" };
    let row = format!("{:second$}{verdict}{found}", line.check.title());
    writeln!(out, "{}", row.trim_end())?;
    if !beside {
        writeln!(out, "{}", wrap(&format!("    found: {}", line.found), 11))?;
    }
    if !line.means.is_empty() {
        writeln!(out, "{}", wrap(&format!("    means: {}", line.means), 11))?;
    }
    Ok(())
}

/// Colours by verdict, or none.
#[derive(Debug, Clone, Copy)]
struct Paint(Option<Style>);

impl Paint {
    fn as_verdict(self, verdict: Verdict, text: &str) -> String {
        match (self.0, verdict) {
            (None, _) => text.to_owned(),
            (Some(style), Verdict::Ok) => style.good(text),
            (Some(style), Verdict::NotNotice | Verdict::Coast) => style.warn(text),
            (Some(style), Verdict::Refuse) => style.bad(text),
        }
    }
}

/// Breaks a text between words, and words that are too long anywhere; `indent` spaces stand before
/// every line but the first.
fn wrap(text: &str, indent: usize) -> String {
    let leading = text.len() - text.trim_start().len();
    let mut lines = vec![" ".repeat(leading)];
    let mut room = WIDTH - leading;
    for (at, word) in text.split_whitespace().enumerate() {
        let mut word: Vec<char> = word.chars().collect();
        if at > 0 && word.len() < room {
            word.insert(0, ' ');
        } else if at > 0 {
            lines.push(" ".repeat(indent));
            room = WIDTH - indent;
        }
        while word.len() > room {
            let rest = word.split_off(room);
            append(&mut lines, &word);
            lines.push(" ".repeat(indent));
            (word, room) = (rest, WIDTH - indent);
        }
        room -= word.len();
        append(&mut lines, &word);
    }
    lines.join("\n")
}

fn append(lines: &mut [String], word: &[char]) {
    if let Some(line) = lines.last_mut() {
        line.extend(word);
    }
}

#[cfg(test)]
mod tests;
