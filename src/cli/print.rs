//! `claviger print`: what to paste elsewhere, filled in from the configuration. Nothing else goes to
//! stdout.

mod encryption;
mod rbac;
mod static_pod;
mod systemd;
mod template;

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::failure::{Exit, Failure};
use super::output::Output;
use super::read_config;
use crate::config::{self, Config};
use encryption::EncryptionArgs;
use rbac::RbacArgs;
use static_pod::StaticPodArgs;
use systemd::SystemdArgs;

/// Prints what to paste elsewhere, filled in from the configuration or, where there is none, with
/// the documented defaults.
#[derive(Debug, clap::Args)]
pub struct PrintArgs {
    /// What to print.
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The EncryptionConfiguration of a phase, for kube-apiserver
    EncryptionConfig(EncryptionArgs),
    /// The ClusterRole that migrate needs
    Rbac(RbacArgs),
    /// A static pod that runs the plugin
    StaticPod(StaticPodArgs),
    /// A systemd service that runs the plugin; with --socket, a socket unit beside it
    Systemd(SystemdArgs),
}

/// Runs the command.
///
/// # Errors
/// Where the configuration is wrong, or cannot be had in that form.
pub fn run(config_path: &Path, args: &PrintArgs, output: &Output) -> Result<Exit, Failure> {
    let config = configuration(config_path, output)?;
    let config_path = absolute(config_path)?;
    let text = match &args.what {
        What::EncryptionConfig(args) => encryption::print(&config, args, output)?,
        What::Rbac(args) => rbac::print(&config, args, output)?,
        What::StaticPod(args) => static_pod::print(&config, &config_path, args)?,
        What::Systemd(args) => systemd::print(&config, &config_path, args),
    };
    output.line(text.trim_end())?;
    Ok(Exit::Done)
}

/// The EncryptionConfiguration of phase write for Secrets, without comments: what a try-out needs.
pub(super) fn encryption_config(config: &Config) -> String {
    encryption::document(config, &EncryptionArgs::default())
}

/// The commented example, which holds the documented defaults.
const EXAMPLE: &str = include_str!("../../deploy/config.yaml");

fn configuration(path: &Path, output: &Output) -> Result<Config, Failure> {
    if path.exists() {
        return read_config(path);
    }
    output.note(&format!(
        "note: there is no {}: the documented defaults are used",
        path.display()
    ));
    config::parse(EXAMPLE).map_err(|faults| {
        let cause = config::ReadError::Faults(faults);
        Failure::new(
            Exit::Fault,
            "reading the built-in defaults",
            cause,
            "give --config FILE",
        )
    })
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| {
        let doing = format!("looking where {} lies", path.display());
        Failure::new(Exit::Usage, doing, e, "give --config an absolute path")
    })
}
