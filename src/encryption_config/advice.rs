//! What kube-apiserver accepts and the operator would regret, whatever the phase.

use std::time::Duration;

use super::phase::{Finding, Level, Ours};
use super::{Block, EncryptionConfiguration, Kms, KmsVersion};

/// What is worth saying of a kms provider by itself.
pub(super) fn kms_findings(line: u64, kms: &Kms, ours: &Ours<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = &kms.name;
    let dialled = kms.endpoint.address.display();
    if kms.version == KmsVersion::V1 {
        let ours = ours.socket.is_some() && ours.is(kms);
        let (level, text) = match ours {
            true => (
                Level::Bad,
                "without apiVersion: v2 it is spoken to as v1, which Claviger is not",
            ),
            false => (
                Level::Warn,
                "apiVersion v1 is deprecated, and refused since Kubernetes 1.29",
            ),
        };
        let finding = Finding::new(level, line, format!("kms {name}: {text}"));
        findings.push(finding.next("write apiVersion: v2"));
    }
    if kms.timeout < Duration::from_secs(1) {
        let text = format!(
            "kms {name}: {:?} may be too short for a restart",
            kms.timeout
        );
        findings.push(Finding::new(Level::Warn, line, text).next("leave the timeout at 3s"));
    }
    if !kms.endpoint.host.is_empty() || kms.endpoint.address.as_os_str().is_empty() {
        let text =
            format!("kms {name}: kube-apiserver would dial `{dialled}`: only the path counts");
        findings.push(
            Finding::new(Level::Bad, line, text)
                .next("write the endpoint with three slashes: unix:///PATH"),
        );
    } else if ours.socket.is_some() {
        findings.push(if ours.is(kms) {
            Finding::new(
                Level::Ok,
                line,
                format!("kms {name}: {dialled} is this configuration's socket"),
            )
        } else {
            let text = format!("kms {name}: {dialled} is not this configuration's socket");
            Finding::new(Level::Warn, line, text)
        });
    }
    findings
}

/// What the blocks say together: what is left out, and what should not be in.
pub(super) fn coverage(configuration: &EncryptionConfiguration, ours: &Ours<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let secrets = configuration.providers_of("secrets", "");
    if secrets.is_empty() {
        let text = "secrets stand in no block: they are stored in the clear";
        findings
            .push(Finding::new(Level::Warn, 1, text).next("add secrets to a block's resources"));
    } else if secrets.iter().all(|provider| provider.is_identity()) {
        let text = "secrets are left in the clear";
        findings.push(
            Finding::new(Level::Warn, secrets[0].line, text).next("move them to a block with kms"),
        );
    }
    let leases = configuration.providers_of("leases", "coordination.k8s.io");
    if let Some(writer) = leases.first().filter(|first| !first.is_identity()) {
        let text = format!(
            "{writer} also encrypts Leases: while it refuses, nodes cannot renew theirs and the \
             cluster loses its nodes"
        );
        findings.push(Finding::new(Level::Warn, writer.line, text).next(
            "put a block before it: resources [leases.coordination.k8s.io], providers [identity: {}]",
        ));
    }
    findings.extend(several_blocks(configuration, ours));
    findings
}

fn several_blocks(configuration: &EncryptionConfiguration, ours: &Ours<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let with_ours: Vec<&Block> = configuration
        .blocks
        .iter()
        .filter(|block| ours.position(&block.providers).is_some())
        .collect();
    if let [_, second, ..] = with_ours.as_slice() {
        let count = with_ours.len();
        let text = format!(
            "{count} blocks use this plugin: each opens its own connection and has its own seed"
        );
        findings.push(
            Finding::new(Level::Warn, second.line, text)
                .next("one block is enough unless the providers differ"),
        );
    }
    for (index, block) in configuration.blocks.iter().enumerate() {
        for resource in &block.resources {
            let again = configuration.blocks[index + 1..]
                .iter()
                .flat_map(|later| &later.resources)
                .find(|other| (&other.name, &other.group) == (&resource.name, &resource.group));
            if let Some(again) = again {
                let text = format!(
                    "{resource} stands on line {} already: kube-apiserver joins both lists of providers",
                    resource.line
                );
                findings
                    .push(Finding::new(Level::Warn, again.line, text).next("keep it in one block"));
            }
        }
    }
    findings
}
