//! A Claviger that runs: `claviger serve --dev` in a folder, and the commands beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use claviger::client::{Client, Endpoint, TIMEOUT};
use rustix::process::Signal;

use crate::process::{Process, command};
use crate::web::{Http, Metrics};

/// A plugin, on a folder of its own. It may be stopped and started again.
pub(crate) struct Claviger {
    dir: PathBuf,
    process: Process,
    http: Http,
}

impl Claviger {
    /// Starts it on a folder, which is made if need be, and waits until its socket and its pages are
    /// there. The keyring may still be closed.
    pub(crate) fn serve(dir: &Path) -> Self {
        let mut serve = command(env!("CARGO_BIN_EXE_claviger"));
        serve.args(["serve", "--dev", "--dir"]).arg(dir);
        Self::started(dir, Process::start("claviger", serve))
    }

    /// One that was started already.
    pub(crate) fn started(dir: &Path, process: Process) -> Self {
        process.line("that it serves", |line| line.contains("serve: serving"));
        let line = process.line("where its pages are", |line| {
            line.contains("serving metrics")
        });
        let port = line.split_once("address=127.0.0.1:").unwrap().1;
        let port = port.split(' ').next().unwrap().parse().unwrap();
        Self {
            dir: dir.to_owned(),
            process,
            http: Http::plain(port),
        }
    }

    /// Waits until the keyring is open.
    pub(crate) fn ready(self) -> Self {
        self.answers("/readyz", 200);
        self
    }

    /// Ends it: SIGTERM is what systemd sends, SIGKILL what the kernel sends when memory is short.
    pub(crate) fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.process.signal(signal);
        self.process.end()
    }

    /// Starts it again after [`Claviger::stop`].
    pub(crate) fn start_again(&mut self) {
        *self = Self::serve(&self.dir);
    }

    /// The folder that it was started on.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits until it answers a page with this status, and returns what it answers.
    pub(crate) fn answers(&self, path: &str, status: u16) -> String {
        self.says(path, status, "")
    }

    /// The same, until this text is in it too.
    pub(crate) fn says(&self, path: &str, status: u16, text: &str) -> String {
        self.http.wait_for(&self.process, path, status, text).body
    }

    /// Its metrics now.
    pub(crate) fn metrics(&self) -> Metrics {
        self.http.metrics()
    }

    /// How many calls of one method were answered well.
    pub(crate) fn served(&self, method: &str) -> f64 {
        self.metrics().sum(
            "claviger_requests_total",
            &[("method", method), ("code", "OK")],
        )
    }

    /// The id of the key in this state, as the metrics say it.
    pub(crate) fn key(&self, state: &str) -> Option<String> {
        let metrics = self.metrics();
        let ids = metrics.values("claviger_key_info", &[("state", state)], "key_id");
        assert!(ids.len() < 2, "several keys are {state}: {ids:?}");
        ids.first().map(|id| (*id).to_owned())
    }

    /// A client that calls it as kube-apiserver does.
    pub(crate) fn client(&self) -> Client {
        Client::new(Endpoint::Path(self.dir.join("kms.sock")), TIMEOUT)
    }

    /// Shows the last lines that it said.
    pub(crate) fn show_tail(&self) {
        self.process.show_tail();
    }
}

/// Runs a command of Claviger's with a folder's configuration.
pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut claviger = Command::new(env!("CARGO_BIN_EXE_claviger"));
    claviger
        .arg("--config")
        .arg(dir.join("config.yaml"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs a command of Claviger's that must succeed, and returns its answer.
pub(crate) fn answer(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Copies the keyring and the root key of one folder to another, as an administrator copies them to
/// another node.
pub(crate) fn copy_keyring(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["keyring", "root.key"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}
