//! How a command ends: an exit code that scripts can rely on, and an error in three parts.

use std::fmt;
use std::process::ExitCode;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or the answer is "yes".
    Done = 0,
    /// A fault.
    Fault = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The answer is "no": unhealthy, stale, unsafe.
    No = 3,
    /// A guard refused.
    Refused = 4,
    /// A dependency cannot be reached.
    Unreachable = 5,
    /// Partly done; run it again to go on.
    Partly = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error for people: what was being done, what was wrong, what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What was being done: "reading the configuration /etc/claviger/config.yaml".
    pub doing: String,
    /// What was wrong: one sentence, or one line for each fault.
    pub cause: String,
    /// What to do next: a command or a sentence.
    pub next: String,
}

impl Failure {
    /// An error in three parts.
    pub fn new(
        exit: Exit,
        doing: impl Into<String>,
        cause: impl fmt::Display,
        next: impl Into<String>,
    ) -> Self {
        Self {
            exit,
            doing: doing.into(),
            cause: cause.to_string(),
            next: next.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.doing)?;
        for line in self.cause.lines() {
            writeln!(f, "  {line}")?;
        }
        write!(f, "next:  {}", self.next)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_parts_on_their_own_lines() {
        let failure = Failure::new(Exit::Usage, "reading a file", "line 1\nline 2", "mend it");
        assert_eq!(
            failure.to_string(),
            "error: reading a file\n  line 1\n  line 2\nnext:  mend it"
        );
    }
}
