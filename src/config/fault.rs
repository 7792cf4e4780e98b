//! What is wrong in a file, and where.

use std::fmt;

/// One fault of a file that people write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// What is wrong there, in one sentence that repeats no value which could be a secret.
    pub message: String,
}

impl Fault {
    /// A fault at a place; places that the parser does not know become the file's beginning.
    /// Messages go to terminals, so control characters that a file smuggles in are replaced.
    pub(crate) fn new(line: u64, column: u64, message: impl Into<String>) -> Self {
        let message = message.into().replace(char::is_control, "\u{fffd}");
        Self {
            line: line.max(1),
            column: column.max(1),
            message,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.message
        )
    }
}

/// The known name that a misspelt one was probably meant to be.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |candidate: &str| {
        strsim::jaro_winkler(&name.to_ascii_lowercase(), &candidate.to_ascii_lowercase())
    };
    known
        .iter()
        .map(|candidate| (likeness(candidate), *candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A name of the file, short enough to be repeated in a message.
pub(crate) fn shown(name: &str) -> String {
    const LONGEST: usize = 64;
    let mut shown: String = name.chars().take(LONGEST).collect();
    if name.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_forgives_case_and_slips_but_not_other_words() {
        let known = ["socket", "mode", "allowUIDs"];
        assert_eq!(nearest("sokcet", &known), Some("socket"));
        assert_eq!(nearest("allowuids", &known), Some("allowUIDs"));
        assert_eq!(nearest("certificate", &known), None);
        assert_eq!(nearest("", &known), None);
    }

    #[test]
    fn shown_names_are_short_and_messages_printable() {
        assert_eq!(
            Fault::new(1, 1, "a\u{1b}[31m\n").message,
            "a\u{fffd}[31m\u{fffd}"
        );
        assert_eq!(shown(&"x".repeat(65)).chars().count(), 65);
        assert!(shown(&"x".repeat(65)).ends_with('…'));
        assert_eq!(shown(&"x".repeat(64)), "x".repeat(64));
    }

    #[test]
    fn an_unknown_place_is_the_beginning() {
        assert_eq!(
            Fault::new(0, 0, "empty").to_string(),
            "line 1, column 1: empty"
        );
    }
}
