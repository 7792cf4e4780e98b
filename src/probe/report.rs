//! What the probe found: a line for each check, with what kube-apiserver would do.

use std::fmt;

use serde::Serialize;

/// Longest text of a plugin that is shown, in characters.
const MAX_TEXT: usize = 240;

/// What kube-apiserver would do about what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing: it is as it should be.
    Ok,
    /// Not notice. It will hurt later.
    NotNotice,
    /// Go on for up to three minutes with what it has, then stop writes.
    Coast,
    /// Refuse: an apiserver that starts now does not work with this plugin.
    Refuse,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::NotNotice => "would not notice",
            Self::Coast => "would coast",
            Self::Refuse => "would refuse",
        })
    }
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Status answers.
    StatusAnswers,
    /// `healthz` of Status.
    Healthz,
    /// `version` of Status.
    Version,
    /// `key_id` of Status.
    StatusKeyId,
    /// Status says the same each time.
    StatusStable,
    /// Encrypt answers.
    EncryptAnswers,
    /// `ciphertext` of Encrypt.
    Ciphertext,
    /// `key_id` of Encrypt.
    EncryptKeyId,
    /// `annotations` of Encrypt.
    Annotations,
    /// Two seeds have two answers.
    TwoSeeds,
    /// One seed is wrapped twice.
    OneSeedTwice,
    /// What etcd would hold does not hold the seed in clear.
    NothingInClear,
    /// Decrypt gives back what Encrypt was given.
    RoundTrip,
    /// Eight equal Decrypts at once.
    Parallel,
    /// A changed ciphertext is refused.
    FlippedBit,
    /// A shorter ciphertext is refused.
    Truncated,
    /// A key id that nobody gave is refused.
    UnknownKeyId,
    /// Annotations that nobody gave.
    OtherAnnotations,
    /// Seeds of other lengths than today's.
    OtherLengths,
    /// gRPC messages reach users.
    Messages,
    /// The plugin is well after all that.
    StillWell,
}

impl Check {
    /// For people; at most 36 characters.
    pub fn title(self) -> &'static str {
        match self {
            Self::StatusAnswers => "Status answers",
            Self::Healthz => "Status: healthz is ok",
            Self::Version => "Status: version is known",
            Self::StatusKeyId => "Status: key id has 1 to 1024 bytes",
            Self::StatusStable => "Status says the same five times",
            Self::EncryptAnswers => "Encrypt answers",
            Self::Ciphertext => "Encrypt: ciphertext fits",
            Self::EncryptKeyId => "Encrypt: key id is that of Status",
            Self::Annotations => "Encrypt: annotations are legal",
            Self::TwoSeeds => "Two seeds have two answers",
            Self::OneSeedTwice => "One seed can be wrapped twice",
            Self::NothingInClear => "Nothing holds the seed in clear",
            Self::RoundTrip => "Decrypt gives the seed back",
            Self::Parallel => "Eight Decrypts at once",
            Self::FlippedBit => "A flipped bit is refused",
            Self::Truncated => "A cut ciphertext is refused",
            Self::UnknownKeyId => "An unknown key id is refused",
            Self::OtherAnnotations => "Other annotations do no harm",
            Self::OtherLengths => "Seeds of 0, 1, 31, 33, 512 bytes",
            Self::Messages => "Messages are text without seeds",
            Self::StillWell => "Well after all this",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Line {
    /// Which.
    pub check: Check,
    /// What the apiserver would do.
    pub verdict: Verdict,
    /// What was seen; may be empty where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub found: String,
    /// What follows from it for the cluster; empty where all is well.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub means: &'static str,
}

/// Medians of the calls that were in order, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Latency {
    /// Of Status.
    pub status: Option<u64>,
    /// Of Encrypt.
    pub encrypt: Option<u64>,
    /// Of Decrypt.
    pub decrypt: Option<u64>,
}

/// All that was found. JSON: `kind: Probe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Where the plugin listens.
    pub socket: String,
    /// Status's first key id.
    pub key_id: String,
    /// Status's first version.
    pub version: String,
    /// Whether every line is ok.
    pub well: bool,
    /// The checks that were made, in order. A check that could not be made has a note.
    pub lines: Vec<Line>,
    /// Worth knowing, and no fault.
    pub notes: Vec<String>,
    /// How long answers took.
    pub latency_us: Latency,
}

impl Report {
    /// Nothing found yet.
    pub(crate) fn new(socket: String) -> Self {
        Self {
            socket,
            key_id: String::new(),
            version: String::new(),
            well: true,
            lines: Vec::new(),
            notes: Vec::new(),
            latency_us: Latency::default(),
        }
    }

    /// A check that went well.
    pub(crate) fn ok(&mut self, check: Check, found: impl Into<String>) {
        let found = printable(&found.into());
        self.lines.push(Line {
            check,
            verdict: Verdict::Ok,
            found,
            means: "",
        });
    }

    /// A check that did not.
    pub(crate) fn fault(
        &mut self,
        check: Check,
        verdict: Verdict,
        found: impl Into<String>,
        means: &'static str,
    ) {
        self.well = false;
        self.lines.push(Line {
            check,
            verdict,
            found: printable(&found.into()),
            means,
        });
    }

    /// Worth knowing.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(printable(&note.into()));
    }

    /// The line of a check, if it was made.
    pub fn line(&self, check: Check) -> Option<&Line> {
        self.lines.iter().find(|line| line.check == check)
    }
}

/// A plugin's text as a terminal may show it: no control or invisible characters, not too long.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for (at, char) in text.chars().enumerate() {
        match char {
            _ if at == MAX_TEXT => {
                shown.push('…');
                break;
            }
            '"' | '\'' | '\\' => shown.push(char),
            _ => shown.extend(char.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests;
