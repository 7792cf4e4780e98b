//! The command line: one file per command, and the command tree is the file tree.

mod audit;
mod backup;
pub mod check;
pub mod failure;
mod init;
mod key;
mod keyring;
mod member;
mod migrate;
pub mod output;
mod policy;
pub mod print;
pub mod probe;
mod restore;
mod rotate;
#[cfg(test)]
mod schema;
mod serve;
mod slot;
mod status;

use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{self, Config};
use crate::hygiene;
use failure::{Exit, Failure};
use output::{Color, Format, Output};

/// A KMS v2 encryption plugin for Kubernetes: keys that can be rotated seamlessly, proven unused,
/// and destroyed.
#[derive(Debug, Parser)]
#[command(name = "claviger", version, max_term_width = 100)]
struct Cli {
    /// This node's configuration
    #[arg(long, global = true, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// The form of the answer on stdout
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    output: Format,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value = "auto")]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the keyring, its first slot and a recovery key
    Init(init::InitArgs),
    /// Run the plugin
    Serve(serve::ServeArgs),
    /// How the keyring and the plugin on this node are; exit 0 only if all is well
    Status(status::StatusArgs),
    /// Make another key the primary one, seamlessly
    Rotate(rotate::RotateArgs),
    /// The life of one key: list, show, disable, enable, destroy
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// A sealed copy of the keyring, and whether one would help
    Backup(backup::BackupArgs),
    /// Make one keyring of a backup and what is there
    Restore(restore::RestoreArgs),
    /// Who must acknowledge a rotation
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// What must be the same on every node: how often keys rotate, how long they are kept
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Hold the configuration, the host, or an EncryptionConfiguration against what they should be
    Check(check::CheckArgs),
    /// Drive any KMS v2 plugin exactly as kube-apiserver would
    Probe(probe::ProbeArgs),
    /// What to paste elsewhere, filled in from the configuration
    Print(print::PrintArgs),
    /// What every key, every other provider and plaintext still protects
    Audit(audit::AuditArgs),
    /// Have kube-apiserver store anew whatever an old key, another provider or nothing protects
    Migrate(migrate::MigrateArgs),
    /// The roots that can open the keyring
    #[command(subcommand)]
    Slot(slot::SlotCommand),
    /// A completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// The manual page; with --out, one page for each command
    Man {
        /// Write the pages into this folder
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Runs the program's command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.output, cli.color);
    match run(&cli, &output) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.note(&failure.to_string());
            failure.exit.into()
        }
    }
}

fn run(cli: &Cli, output: &Output) -> Result<Exit, Failure> {
    // Most commands open the keyring, and none has anything to say to a debugger.
    hygiene::forbid_dumps().map_err(|e| {
        let doing = "keeping other processes out of this one's memory";
        let next = "run it where prctl and setrlimit are allowed";
        Failure::new(Exit::Fault, doing, e, next)
    })?;
    let config = || read_config(&cli.config);
    match &cli.command {
        Command::Init(args) => wait(init::run(&config()?, args, output)),
        Command::Serve(args) => match args.dev() {
            Some(try_out) => serve::run_dev(&try_out?, output),
            None => serve::run(&config()?),
        },
        Command::Status(args) => wait(status::run(&config()?, args, output)),
        Command::Rotate(args) => wait(rotate::run(&config()?, args, output)),
        Command::Key(command) => wait(key::run(&config()?, command, output)),
        Command::Backup(args) => wait(backup::run(&config()?, args, output)),
        Command::Restore(args) => wait(restore::run(&config()?, args, output)),
        Command::Member(command) => wait(member::run(&config()?, command, output)),
        Command::Policy(command) => wait(policy::run(&config()?, command, output)),
        Command::Audit(args) => wait(audit::run(&cli.config, args, output)),
        Command::Migrate(args) => wait(migrate::run(&cli.config, args, output)),
        Command::Check(args) => check::run(&cli.config, args, output),
        Command::Probe(args) => wait(probe::run(args, output)),
        Command::Print(args) => print::run(&cli.config, args, output),
        Command::Slot(command) => wait(slot::run(&config()?, command, output)),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "claviger", &mut io::stdout());
            Ok(Exit::Done)
        }
        Command::Man { out } => man(out.as_deref()),
    }
}

/// Reads the configuration, or says everything that is wrong with it.
fn read_config(path: &Path) -> Result<Config, Failure> {
    config::read(path).map_err(|e| {
        let doing = format!("reading the configuration {}", path.display());
        let next = match &e {
            config::ReadError::Io(_) => {
                "name the file with --config, or try claviger serve --dev, which needs none"
            }
            config::ReadError::Faults(_) => "mend these lines; claviger check looks again",
        };
        Failure::new(Exit::Usage, doing, e, next)
    })
}

/// Runs a command that waits for others.
fn wait(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| {
        Failure::new(
            Exit::Fault,
            "starting",
            e,
            "look at the limits of this user's processes",
        )
    })?;
    runtime.block_on(command)
}

fn man(out: Option<&Path>) -> Result<Exit, Failure> {
    let command = Cli::command();
    let written = match out {
        Some(dir) => clap_mangen::generate_to(command, dir),
        None => clap_mangen::Man::new(command).render(&mut io::stdout()),
    };
    written
        .and_then(|()| io::stdout().flush())
        .map(|()| Exit::Done)
        .map_err(|e| Failure::new(Exit::Fault, "writing the manual", e, "check where it goes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }
}
