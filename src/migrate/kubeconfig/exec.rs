//! The credential program that a kubeconfig names for a user.
//!
//! Source: `client.authentication.k8s.io/v1`, and `ExecConfig` of `k8s.io/client-go`.

use std::path::Path;

use data_encoding::BASE64;
use serde_json::{Value as Json, json};

use super::Error;
use super::fields::Fields;
use super::file::{ClusterEntry, Pem, shown};
use crate::config::Fault;
use crate::migrate::session::program::Program;

/// The versions of the API that kubectl speaks.
const VERSIONS: [&str; 2] = [
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
];

/// A program, as it is named.
pub(super) struct Exec {
    command: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    api_version: String,
    install_hint: Option<String>,
    wants_cluster: bool,
    wants_person: bool,
}

impl Exec {
    /// Reads a user's `exec`.
    pub(super) fn parse(fields: &Fields<'_>, dir: &Path) -> Result<Self, Fault> {
        let mut command = fields.text("command")?.unwrap_or_default();
        // A name alone is looked for in $PATH; the rest is relative to the kubeconfig.
        if command.contains('/') {
            command = dir.join(command).display().to_string();
        }
        let mut env = Vec::new();
        for node in fields.list("env")? {
            let variable = Fields::of(node)?;
            let name = variable.text("name")?.unwrap_or_default();
            env.push((name, variable.text("value")?.unwrap_or_default()));
        }
        Ok(Self {
            command,
            args: fields.texts("args")?,
            env,
            api_version: fields.text("apiVersion")?.unwrap_or_default(),
            install_hint: fields.text("installHint")?,
            wants_cluster: fields.flag("provideClusterInfo")?,
            wants_person: fields.text("interactiveMode")?.as_deref() == Some("Always"),
        })
    }

    /// Refuses what cannot be run, and prepares what it is told.
    pub(super) fn prepare(self, cluster: &ClusterEntry) -> Result<Program, Error> {
        let refused = |why: &str| Err(Error::Unusable(format!("its credential program {why}")));
        if self.command.is_empty() {
            return refused("has no command");
        }
        let command = shown(&self.command);
        if !VERSIONS.contains(&&*self.api_version) {
            let [v1, v1beta1] = VERSIONS;
            return refused(&format!(
                "{command} must speak {v1} or {v1beta1}: bring it up to date, and its apiVersion \
                 in the kubeconfig"
            ));
        }
        if self.wants_person {
            return refused(&format!(
                "{command} has interactiveMode Always, and nobody can answer it here"
            ));
        }
        if self.env.iter().any(|(name, _)| !is_variable(name)) {
            return refused(&format!("{command} has a variable without a usable name"));
        }
        let mut info = json!({
            "apiVersion": self.api_version,
            "kind": "ExecCredential",
            "spec": {"interactive": false},
        });
        if self.wants_cluster {
            info["spec"]["cluster"] = described(cluster)?;
        }
        Ok(Program {
            command: self.command,
            args: self.args,
            env: self.env,
            api_version: self.api_version,
            install_hint: self.install_hint,
            info: info.to_string(),
        })
    }
}

/// Whether the operating system takes it as a variable's name.
fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

fn described(cluster: &ClusterEntry) -> Result<Json, Error> {
    let authority = cluster.authority.as_ref().map(Pem::read).transpose()?;
    let mut described = json!({"server": cluster.server, "config": cluster.exec_config});
    if let Some(name) = &cluster.server_name {
        described["tls-server-name"] = name.as_str().into();
    }
    if cluster.insecure {
        described["insecure-skip-tls-verify"] = true.into();
    }
    if let Some(authority) = authority {
        described["certificate-authority-data"] = BASE64.encode(&authority).into();
    }
    Ok(described)
}
