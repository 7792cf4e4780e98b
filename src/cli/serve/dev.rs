//! `claviger serve --dev`: all that a try-out needs, in one folder, made once.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use claviger_keystore::storage::file::Durability;
use rustix::process::getuid;

use super::super::failure::{Exit, Failure};
use super::super::init::{self, InitArgs};
use super::super::output::Output;
use crate::config::Config;

const CONFIG: &str = "config.yaml";

/// `${XDG_STATE_HOME:-~/.local/state}/claviger-dev`.
pub(super) fn default_dir() -> Result<PathBuf, Failure> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| Path::new(dir).is_absolute());
    let state = state
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
    state
        .map(|state| state.join("claviger-dev"))
        .ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "choosing a folder for the try-out",
                "neither $XDG_STATE_HOME nor a home directory is known",
                "name one with --dir",
            )
        })
}

/// The configuration has absolute paths only.
pub(super) fn absolute(dir: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&dir).map_err(|e| failure(&dir, &e))
}

/// The folder's configuration, made if there is none. What exists is never made anew.
pub(super) fn configuration(dir: &Path) -> Result<Config, Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| failure(dir, &e))?;
    let path = dir.join(CONFIG);
    if !path.exists() {
        std::fs::write(&path, text(dir)).map_err(|e| failure(&path, &e))?;
    }
    super::super::read_config(&path)
}

/// A small configuration; JSON's strings are YAML's too, whatever a path holds.
fn text(dir: &Path) -> String {
    let quoted = |name: &str| serde_json::Value::from(dir.join(name).to_string_lossy()).to_string();
    let mut uids = vec![0, getuid().as_raw()];
    uids.dedup();
    format!(
        "# Made by claviger serve --dev; edit it and start again.\n\
         apiVersion: claviger.io/v1alpha1\n\
         kind: ClavigerConfiguration\n\
         server:\n  socket: {socket}\n  allowUIDs: {uids:?}\n\
         storage: {{file: {{path: {keyring}}}}}\n\
         roots: [{{name: local, keyFile: {{path: {root_key}}}}}]\n\
         metrics: {{listen: \"127.0.0.1:0\"}}\n\
         log: {{format: text, level: info}}\n",
        socket = quoted("kms.sock"),
        keyring = quoted("keyring"),
        root_key = quoted("root.key"),
    )
}

/// The folder's keyring, made if there is none.
pub(super) async fn make_keyring(config: &Config, dir: &Path) -> Result<(), Failure> {
    let args = InitArgs::for_dev(dir.join("recovery.key"));
    match init::make(config, &args, Durability::Memory).await {
        Err(failure) if failure.exit == Exit::Refused => Ok(()),
        made => made.map(drop),
    }
}

/// Says what to paste, and how to see that it works.
pub(super) fn announce(
    config: &Config,
    dir: &Path,
    metrics: Option<SocketAddr>,
    output: &Output,
) -> Result<(), Failure> {
    let config_path = dir.join(CONFIG);
    output.line(&super::super::print::encryption_config(config))?;
    let mut notes = format!(
        "\n# Above is the EncryptionConfiguration. Save it, and give kube-apiserver\n\
         #   --encryption-provider-config=FILE\n\
         # Then see it work, from another terminal:\n\
         #   claviger --config {0} probe {1}\n\
         #   claviger --config {0} status\n",
        config_path.display(),
        super::socket_text(config),
    );
    if let Some(address) = metrics {
        let path = dir.join("metrics.addr");
        std::fs::write(&path, format!("{address}\n")).map_err(|e| failure(&path, &e))?;
        notes.push_str(&format!("#   curl http://{address}/metrics\n"));
    }
    notes.push_str("# Ctrl-C stops it. The keys of a try-out are for a try-out.");
    output.line(&notes)
}

fn failure(path: &Path, cause: &std::io::Error) -> Failure {
    let doing = format!("making the try-out's {}", path.display());
    Failure::new(
        Exit::Fault,
        doing,
        cause,
        "mend that, or name another folder with --dir",
    )
}
