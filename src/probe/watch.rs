//! What kube-apiserver remembers of a plugin from one Status to the next, and so whether it writes;
//! a pure machine. k8s.io/apiserver v0.37 `encryptionconfig/config.go`:
//! `isKMSv2ProviderHealthyAndMaybeRotateDEK`, `rotateDEKOnKeyIDChange`.

use std::fmt;
use std::time::Duration;

use claviger_proto::v2::{EncryptResponse, StatusResponse};
use serde::Serialize;

use super::report::printable;
use super::validate;

/// How long a seed may be used for writes after the last good Status.
pub const LEASE: Duration = Duration::from_secs(180);
/// Between two Status calls while all is well; `/readyz` answers from the last one until then.
pub const POLL: Duration = Duration::from_secs(20);
/// Between two Status calls after a bad one.
pub const POLL_UNWELL: Duration = Duration::from_secs(3);

/// Whether the apiserver writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Writes {
    /// It never had a seed: it does not read either.
    Never,
    /// It does.
    Yes,
    /// It goes on with the seed that it has, until that one's time is up.
    Coasting,
    /// It does not; it reads.
    Stopped,
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "the apiserver neither reads nor writes",
            Self::Yes => "the apiserver reads and writes",
            Self::Coasting => "the apiserver coasts, and will stop writes",
            Self::Stopped => "the apiserver has stopped writes",
        })
    }
}

/// What a look at the plugin showed. Two that are equal are not worth a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Whether the apiserver's `/readyz` would be good.
    pub ready: bool,
    /// Whether it writes.
    pub writes: Writes,
    /// The key id that it writes under, if it has one.
    pub key_id: Option<String>,
    /// What it would complain of.
    pub problems: Vec<String>,
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = if self.ready { "ready" } else { "not ready" };
        write!(f, "{ready}; {}", self.writes)?;
        if let Some(key_id) = &self.key_id {
            write!(f, ", key id {key_id}")?;
        }
        self.problems
            .iter()
            .try_for_each(|problem| write!(f, "; {problem}"))
    }
}

/// The memory. Times are those of any clock that never goes back.
#[derive(Debug, Default)]
pub struct Apiserver {
    version: Option<String>,
    seed: Option<Seed>,
    /// Whether the last Status left the seed with a whole lease.
    renewed: bool,
    problems: Vec<String>,
    /// The key id of a Status that wants a new seed, and when it was asked for.
    wanted: Option<(String, Duration)>,
}

#[derive(Debug)]
struct Seed {
    key_id: String,
    expires: Duration,
}

impl Apiserver {
    /// Takes an answer of Status, or the text of its error. `true`: Encrypt comes next, and its
    /// answer belongs into [`Apiserver::encrypted`].
    pub fn status(&mut self, now: Duration, answer: Result<&StatusResponse, &str>) -> bool {
        (self.wanted, self.renewed) = (None, false);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.problems = vec![format!("Status: {}", printable(error))];
                return false;
            }
        };
        if self.version.is_none() && validate::accepted_version(&answer.version) {
            self.version = Some(answer.version.clone());
        }
        let faults = validate::status(answer, self.version.as_deref());
        self.problems = faults.all().iter().map(|fault| printable(fault)).collect();
        if faults.key_id.is_some() {
            return false;
        }
        match &mut self.seed {
            // A seed whose time was up is used again, too.
            Some(seed) if seed.key_id == answer.key_id => {
                // Even where healthz or version are bad (kubernetes issue 138950).
                (seed.expires, self.renewed) = (now + LEASE, true);
                false
            }
            _ => {
                self.wanted = Some((answer.key_id.clone(), now));
                true
            }
        }
    }

    /// Takes the answer of Encrypt for a new seed, or the text of its error.
    pub fn encrypted(&mut self, answer: Result<&EncryptResponse, &str>) {
        let Some((key_id, asked)) = self.wanted.take() else {
            return;
        };
        let problem = match answer {
            Err(error) => format!("Encrypt: {}", printable(error)),
            Ok(answer) => match validate::encrypted(answer).all().first() {
                Some(fault) => format!("Encrypt: {}", printable(fault)),
                None if answer.key_id != key_id => {
                    format!(
                        "Encrypt uses {}, Status says {}",
                        printable(&answer.key_id),
                        printable(&key_id)
                    )
                }
                None => {
                    self.seed = Some(Seed {
                        key_id,
                        expires: asked + LEASE,
                    });
                    self.renewed = true;
                    return;
                }
            },
        };
        self.problems.push(problem);
    }

    /// What the apiserver does now.
    pub fn view(&self, now: Duration) -> View {
        let ready = self.problems.is_empty() && self.version.is_some();
        let writes = match &self.seed {
            None => Writes::Never,
            Some(seed) if now >= seed.expires => Writes::Stopped,
            Some(_) if self.renewed => Writes::Yes,
            Some(_) => Writes::Coasting,
        };
        let key_id = self.seed.as_ref().map(|seed| printable(&seed.key_id));
        View {
            ready,
            writes,
            key_id,
            problems: self.problems.clone(),
        }
    }

    /// When to ask again.
    pub fn poll(&self) -> Duration {
        if self.problems.is_empty() {
            POLL
        } else {
            POLL_UNWELL
        }
    }
}

#[cfg(test)]
mod tests;
