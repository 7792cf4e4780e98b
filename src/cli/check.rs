//! `claviger check`: is this node fit to serve, and does an EncryptionConfiguration fit its phase?

mod encryption;
mod files;
mod host;
pub(super) mod report;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::failure::{Exit, Failure};
use super::output::Output;
use super::read_config;
use crate::config::Config;
use crate::encryption_config::Phase;
use host::Host;
use report::{Report, Section};

/// Looks at the node's configuration, files and host, or at an EncryptionConfiguration. Changes
/// nothing.
///
/// With --encryption-config or --phase only that file is looked at; a Claviger configuration is not
/// needed then, but without one its socket is not compared. Exit code 0 if nothing is bad, 3 if
/// something is, 2 if the configuration is wrong.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The EncryptionConfiguration to look at; default: the configuration's own.
    #[arg(long, value_name = "FILE")]
    pub encryption_config: Option<PathBuf>,
    /// The step of the way in or out that the file must fit; without it, says which one it is.
    #[arg(long, value_enum)]
    pub phase: Option<Phase>,
}

/// Runs the command.
///
/// # Errors
/// Where the configuration is wrong, or the EncryptionConfiguration cannot be read.
pub fn run(config_path: &Path, args: &CheckArgs, output: &Output) -> Result<Exit, Failure> {
    let alone = args.encryption_config.is_some() && !config_path.exists();
    let config = if alone {
        None
    } else {
        Some(read_config(config_path)?)
    };
    let sections = match &config {
        Some(config) if args.encryption_config.is_none() && args.phase.is_none() => {
            node(config, config_path, Timestamp::now())?
        }
        config => {
            if config.is_none() {
                output.note(&format!(
                    "note: there is no {}, so the socket is not compared",
                    config_path.display()
                ));
            }
            vec![encryption_configuration(config.as_ref(), args)?]
        }
    };
    let report = Report::new(sections);
    output.print(&report)?;
    Ok(report.exit())
}

fn node(config: &Config, config_path: &Path, now: Timestamp) -> Result<Vec<Section>, Failure> {
    let host = Host::look(now, files::youngest(config, config_path));
    let mut sections = vec![
        Section::new("FILES", files::items(config, config_path)),
        Section::new("HOST", host.items()),
    ];
    if let Some(path) = &config.kubernetes.encryption_config {
        sections.push(encryption::section(
            path,
            None,
            Some(&config.server.socket),
        )?);
    }
    Ok(sections)
}

fn encryption_configuration(config: Option<&Config>, args: &CheckArgs) -> Result<Section, Failure> {
    let configured = config.and_then(|config| config.kubernetes.encryption_config.as_deref());
    let Some(path) = args.encryption_config.as_deref().or(configured) else {
        return Err(Failure::new(
            Exit::Usage,
            "looking for the EncryptionConfiguration",
            "neither --encryption-config nor the configuration's kubernetes.encryptionConfig names it",
            "give --encryption-config FILE",
        ));
    };
    encryption::section(path, args.phase, config.map(|config| &config.server.socket))
}
