//! The servers that are compared, each a process of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getuid, kill_process};

use crate::Result;

/// How long a server may take to end after SIGTERM.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A build of Claviger, with its keyring in a file and its root in a key file.
    Claviger,
    /// tonic alone.
    Nothing,
    /// The tiny Go plugin.
    Go,
}

/// One server, with a folder for all that it makes.
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    program: PathBuf,
    folder: PathBuf,
}

impl Contender {
    /// Makes what the server needs before it starts.
    pub(crate) fn new(kind: Kind, name: &str, program: &Path, folder: PathBuf) -> Result<Self> {
        fs::create_dir(&folder)?;
        let contender = Self {
            kind,
            name: name.to_owned(),
            program: program.to_owned(),
            folder,
        };
        if kind == Kind::Claviger {
            contender.init()?;
        }
        Ok(contender)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("kms.sock")
    }

    pub(crate) fn start(&self) -> Result<Server> {
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.log())?);
        let child = command.spawn();
        let child = child.map_err(|e| format!("starting {}: {e}", self.program.display()))?;
        Ok(Server {
            child,
            log: self.log(),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Claviger => command.arg("--config").arg(self.config()).arg("serve"),
            Kind::Nothing => command.arg("--serve-nothing").arg(self.socket()),
            Kind::Go => command.arg("-listen").arg(self.socket()),
        };
        command
    }

    /// As on a node: everything at its default but the places, and the caller may connect.
    fn init(&self) -> Result<()> {
        let quoted = |name| serde_json::Value::from(self.folder.join(name).to_string_lossy());
        let config = format!(
            "apiVersion: claviger.io/v1alpha1\n\
             kind: ClavigerConfiguration\n\
             server: {{socket: {}, allowUIDs: [{}]}}\n\
             storage: {{file: {{path: {}}}}}\n\
             roots: [{{name: local, keyFile: {{path: {}}}}}]\n\
             metrics: {{listen: \"127.0.0.1:0\"}}\n",
            quoted("kms.sock"),
            getuid().as_raw(),
            quoted("keyring"),
            quoted("root.key"),
        );
        fs::write(self.config(), config)?;
        let mut init = Command::new(&self.program);
        let init = init
            .arg("--config")
            .arg(self.config())
            .args(["init", "--no-recovery"]);
        let init = init.stdin(Stdio::null()).output()?;
        if !init.status.success() {
            let said = String::from_utf8_lossy(&init.stderr).into_owned();
            return Err(format!("{} init: {said}", self.program.display()).into());
        }
        Ok(())
    }

    fn config(&self) -> PathBuf {
        self.folder.join("config.yaml")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("stderr")
    }
}

/// A server that runs. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails with what it said, if it has ended by itself.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let said = fs::read_to_string(&self.log)?;
                Err(format!("a server ended by itself with {status}; it said: {said}").into())
            }
        }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > ENDS_WITHIN {
                return Err("a server did not end after SIGTERM".into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; what matters is that none is left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
