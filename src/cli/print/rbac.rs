//! `claviger print rbac`: the ClusterRole that `migrate` needs.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::super::failure::{Exit, Failure};
use super::super::output::Output;
use crate::audit::object::Resource;
use crate::config::Config;
use crate::encryption_config;
use crate::migrate::rights;

/// Which resources are rewritten.
#[derive(Debug, clap::Args)]
pub(super) struct RbacArgs {
    /// The resources, as an EncryptionConfiguration names them [default: those that it lists, else
    /// secrets]
    #[arg(long, value_name = "RESOURCE", value_delimiter = ',')]
    resources: Vec<String>,
    /// The EncryptionConfiguration, if the configuration does not name it
    #[arg(long, value_name = "FILE", conflicts_with = "resources")]
    encryption_config: Option<PathBuf>,
}

pub(super) fn print(config: &Config, args: &RbacArgs, output: &Output) -> Result<String, Failure> {
    if !args.resources.is_empty() {
        let resources = args.resources.iter().map(|text| resource(text)).collect();
        return Ok(rights::cluster_role(&resources));
    }
    let configured = config.kubernetes.encryption_config.as_ref();
    let Some(path) = args.encryption_config.as_ref().or(configured) else {
        output.note("note: no EncryptionConfiguration is named, so this is for secrets alone");
        let secrets = BTreeSet::from([resource("secrets")]);
        return Ok(rights::cluster_role(&secrets));
    };
    let read = encryption_config::read(path).map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!("reading the EncryptionConfiguration {}", path.display()),
            error,
            "name another with --encryption-config, or the resources with --resources",
        )
    })?;
    Ok(rights::cluster_role(&rights::resources(&read)))
}

/// `secrets`, `deployments.apps`, `*.`, `*.*`.
fn resource(text: &str) -> Resource {
    let (name, group) = text.split_once('.').unwrap_or((text, ""));
    Resource {
        name: name.to_owned(),
        group: Some(group.to_owned()),
    }
}
