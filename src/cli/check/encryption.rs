//! An EncryptionConfiguration, held to what kube-apiserver accepts and to a phase.

use std::path::Path;

use super::report::{Item, Section};
use crate::cli::failure::{Exit, Failure};
use crate::config::{Fault, ReadError, SocketAddress};
use crate::encryption_config::{self, Finding, Level, Phase};

/// What is to be said of the file.
///
/// # Errors
/// Where it cannot be read. What kube-apiserver would refuse is an answer, not an error.
pub(super) fn section(
    path: &Path,
    phase: Option<Phase>,
    socket: Option<&SocketAddress>,
) -> Result<Section, Failure> {
    let shown = path.display();
    let items = match encryption_config::read(path) {
        Ok(file) => encryption_config::judge(&file, phase, socket)
            .into_iter()
            .map(Item::from)
            .collect(),
        Err(ReadError::Faults(faults)) => faults.into_iter().map(Item::from).collect(),
        Err(ReadError::Io(e)) => {
            return Err(Failure::new(
                Exit::Usage,
                format!("reading the EncryptionConfiguration {shown}"),
                e,
                "name the file of kube-apiserver's --encryption-provider-config",
            ));
        }
    };
    let title = match phase {
        Some(phase) => format!("ENCRYPTION CONFIGURATION {shown}, phase {}", phase.name()),
        None => format!("ENCRYPTION CONFIGURATION {shown}"),
    };
    Ok(Section::new(title, items))
}

impl From<Finding> for Item {
    fn from(finding: Finding) -> Self {
        Self {
            level: finding.level,
            line: Some(finding.line),
            text: finding.text,
            next: finding.next,
        }
    }
}

impl From<Fault> for Item {
    fn from(fault: Fault) -> Self {
        Self {
            level: Level::Bad,
            line: Some(fault.line),
            text: format!(
                "column {}: {}; kube-apiserver refuses the file",
                fault.column, fault.message
            ),
            next: None,
        }
    }
}
