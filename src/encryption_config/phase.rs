//! The way in and the way out: what an EncryptionConfiguration must look like at each step, so that
//! no two control planes disagree about what can be read.
//!
//! ```text
//! prepare  [the other, kms]   everywhere, before anybody writes with kms
//! write    [kms, the other]   then migrate, and audit to zero plaintext
//! final    [kms]
//! leave    [the other, kms]   then migrate, audit to zero, and take kms out
//! ```

use clap::ValueEnum;
use serde::Serialize;

use super::advice::{coverage, kms_findings};
use super::{Block, EncryptionConfiguration, Kms, KmsVersion, Provider};
use crate::config::SocketAddress;

/// A step of the way in or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// The other provider first, kms second: everybody can read what kms will write.
    Prepare,
    /// kms first, the other second.
    Write,
    /// kms alone.
    Final,
    /// The other provider first again, kms second.
    Leave,
}

impl Phase {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Write => "write",
            Self::Final => "final",
            Self::Leave => "leave",
        }
    }

    /// How it orders a block's providers.
    pub fn order(self) -> &'static str {
        match self {
            Self::Prepare => "identity (or what writes now) first, kms second",
            Self::Write => "kms first, identity (or what wrote before) second",
            Self::Final => "kms alone",
            Self::Leave => "the other provider first, kms second",
        }
    }
}

/// How good a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
}

/// What was found about a file that kube-apiserver accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How good it is.
    pub level: Level,
    /// The line that it is about.
    pub line: u64,
    /// What was found, in one sentence.
    pub text: String,
    /// What to do about it.
    pub next: Option<String>,
}

impl Finding {
    pub(super) fn new(level: Level, line: u64, text: impl Into<String>) -> Self {
        Self {
            level,
            line,
            text: text.into(),
            next: None,
        }
    }

    pub(super) fn next(self, next: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            ..self
        }
    }
}

/// Holds a file to a phase or, without one, says which phase it is in.
///
/// The plugin that it is about is the one on `socket`. Without a socket it is the kms provider named
/// `claviger`, else each block's first v2 provider.
pub fn judge(
    configuration: &EncryptionConfiguration,
    phase: Option<Phase>,
    socket: Option<&SocketAddress>,
) -> Vec<Finding> {
    let ours = Ours::new(configuration, socket);
    let mut findings = Vec::new();
    for block in &configuration.blocks {
        findings.push(block_finding(block, phase, &ours));
        for provider in &block.providers {
            if let Some(kms) = provider.kms() {
                findings.extend(kms_findings(provider.line, kms, &ours));
            }
        }
    }
    let clear = |block: &Block| block.providers.iter().all(Provider::is_identity);
    if phase.is_some() && configuration.blocks.iter().all(clear) {
        let text = format!("no block has {}", ours.described());
        findings.push(Finding::new(Level::Bad, 1, text));
    }
    findings.extend(coverage(configuration, &ours));
    findings.sort_by_key(|finding| finding.line);
    findings
}

/// Which kms provider the question is about.
pub(super) struct Ours<'a> {
    pub(super) socket: Option<&'a SocketAddress>,
    named: bool,
}

/// The name that `claviger print encryption-config` gives.
const USUAL_NAME: &str = "claviger";

impl<'a> Ours<'a> {
    fn new(configuration: &EncryptionConfiguration, socket: Option<&'a SocketAddress>) -> Self {
        let mut providers = configuration
            .blocks
            .iter()
            .flat_map(|block| &block.providers);
        let usual = |provider: &Provider| provider.kms().is_some_and(|kms| kms.name == USUAL_NAME);
        Self {
            socket,
            named: providers.any(usual),
        }
    }

    pub(super) fn is(&self, kms: &Kms) -> bool {
        match self.socket {
            Some(socket) => kms.reaches(socket),
            None => kms.version == KmsVersion::V2 && (!self.named || kms.name == USUAL_NAME),
        }
    }

    /// Where our provider stands in a list.
    pub(super) fn position<'p>(
        &self,
        providers: impl IntoIterator<Item = &'p Provider>,
    ) -> Option<usize> {
        providers
            .into_iter()
            .position(|provider| provider.kms().is_some_and(|kms| self.is(kms)))
    }

    pub(super) fn described(&self) -> String {
        match self.socket {
            Some(SocketAddress::Path(path)) => format!("a kms provider on {}", path.display()),
            Some(SocketAddress::Abstract(name)) => format!("a kms provider on @{name}"),
            None => "a kms provider with apiVersion v2".to_owned(),
        }
    }
}

/// How a block's order fits the phase.
fn block_finding(block: &Block, phase: Option<Phase>, ours: &Ours<'_>) -> Finding {
    let subject = subject(block);
    let order = order(block);
    let Some(position) = ours.position(&block.providers) else {
        if block.providers.iter().all(Provider::is_identity) {
            return Finding::new(
                Level::Ok,
                block.line,
                format!("{subject}: left in the clear"),
            );
        }
        let level = if phase.is_some() {
            Level::Bad
        } else {
            Level::Warn
        };
        let text = format!("{subject}: {order}; {} is not among them", ours.described());
        return Finding::new(level, block.line, text)
            .next("compare its endpoint and apiVersion with `claviger print encryption-config`");
    };
    let found: &[Phase] = match (position, block.providers.len()) {
        (0, 1) => &[Phase::Final],
        (0, _) => &[Phase::Write],
        _ => &[Phase::Prepare, Phase::Leave],
    };
    let names = found
        .iter()
        .map(|phase| phase.name())
        .collect::<Vec<_>>()
        .join(" or ");
    let described = format!("{subject}: {order}");
    match phase {
        None => Finding::new(Level::Ok, block.line, format!("{described}: phase {names}")),
        Some(phase) if found.contains(&phase) => {
            let text = format!("{described}: fits phase {}", phase.name());
            Finding::new(Level::Ok, block.line, text)
        }
        Some(phase) => {
            let text = format!("{described}: that is phase {names}, not {}", phase.name());
            Finding::new(Level::Bad, block.line, text).next(format!(
                "phase {} wants {}",
                phase.name(),
                phase.order()
            ))
        }
    }
}

/// The resources of a block, few enough for a line.
fn subject(block: &Block) -> String {
    const MOST: usize = 4;
    let mut names: Vec<String> = block
        .resources
        .iter()
        .take(MOST)
        .map(ToString::to_string)
        .collect();
    let more = block.resources.len().saturating_sub(MOST);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

/// "kms claviger writes, identity still reads".
fn order(block: &Block) -> String {
    let mut names = block.providers.iter().map(ToString::to_string);
    let first = names.next().unwrap_or_default();
    let others: Vec<String> = names.collect();
    match others.as_slice() {
        [] => format!("{first} alone"),
        [one] => format!("{first} writes, {one} also reads"),
        several => format!("{first} writes, {} also read", several.join(" and ")),
    }
}

#[cfg(test)]
mod tests;
