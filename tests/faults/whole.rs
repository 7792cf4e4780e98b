//! A whole plugin in a process of its own, that logs all it can, and that may be killed and started
//! again.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use claviger_proto::v2::StatusRequest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::frames::Listens;
use crate::plugin::{Client, PATIENCE, client_of};

const PROGRAM: &str = env!("CARGO_BIN_EXE_claviger");

/// `claviger serve --dev`, killed at the end.
pub(crate) struct Whole {
    dir: TempDir,
    child: Child,
    log: Arc<Log>,
}

/// All that was logged, over every start.
#[derive(Default)]
struct Log {
    said: Mutex<String>,
    more: Condvar,
    /// Held by whoever wants nobody to read the log.
    deaf: tokio::sync::Mutex<()>,
}

impl Drop for Whole {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Listens for Whole {
    fn socket(&self) -> PathBuf {
        self.path("kms.sock")
    }
}

impl Whole {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::default();
        // The first run makes the folder, and the second has its configuration changed.
        let child = serve(Path::new(PROGRAM), &dir.path().join("dev"), &log);
        let mut plugin = Self { dir, child, log };
        plugin.kill(Signal::KILL);
        let config = plugin.path("config.yaml");
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains("level: info"), "{text}");
        fs::write(&config, text.replace("level: info", "level: trace")).unwrap();
        plugin.start_again();
        plugin
    }

    /// A path in the folder that it serves.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("dev").join(name)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it with this signal, and nothing else.
    pub(crate) fn kill(&mut self, signal: Signal) {
        // Rust's handler takes the first SIGSEGV, and waits for the fault to come again.
        let ended = loop {
            self.signal(signal);
            if let Some(ended) = self.child.try_wait().unwrap() {
                break ended;
            }
            std::thread::yield_now();
        };
        assert_eq!(ended.signal(), Some(signal.as_raw()), "{ended:?}");
        assert!(!ended.core_dumped(), "O3: a core");
    }

    /// Asks it to end, which it does well.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let ended: ExitStatus = self.child.wait().unwrap();
        assert!(ended.success(), "{ended:?}");
    }

    /// Starts it after [`Whole::kill`] or [`Whole::stop`], and waits until it serves.
    pub(crate) fn start_again(&mut self) {
        self.start_again_as(Path::new(PROGRAM));
    }

    /// As [`Whole::start_again`], with another program.
    pub(crate) fn start_again_as(&mut self, program: &Path) {
        self.child = serve(program, &self.path(""), &self.log);
    }

    /// Runs a command with its configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(self.path("config.yaml"));
        command.args(arguments).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// How much was logged until now.
    pub(crate) fn heard(&self) -> usize {
        self.log.said.lock().unwrap().len()
    }

    /// Waits until this was logged, after so much else.
    pub(crate) fn says(&self, heard: usize, text: &str) {
        let said = self.log.said.lock().unwrap();
        let until = self.log.more.wait_timeout_while(said, PATIENCE, |said| {
            !said[heard.min(said.len())..].contains(text)
        });
        let (said, waited) = until.unwrap();
        assert!(!waited.timed_out(), "no {text:?} in {}", &said[heard..]);
    }

    /// All that was logged.
    pub(crate) fn said(&self) -> String {
        self.log.said.lock().unwrap().clone()
    }

    /// While the guard lives, nobody reads the log.
    pub(crate) async fn nobody_reads_the_log(&self) -> impl Sized + '_ {
        self.log.deaf.lock().await
    }

    pub(crate) async fn client(&self) -> Client {
        client_of(&self.socket()).await.unwrap()
    }

    /// Waits until Status is answered. Behind a flood that waits in the socket's backlog, a peer may
    /// be one too many at first; and a socket that was deleted is not there at once.
    pub(crate) async fn answers(&self) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let failed = match client_of(&self.socket()).await {
                Ok(mut client) => match client.status(StatusRequest {}).await {
                    Ok(status) => return status.into_inner().key_id,
                    Err(refused) => refused.to_string(),
                },
                Err(error) => error.to_string(),
            };
            assert!(Instant::now() < until, "O1: {failed}");
            tokio::task::yield_now().await;
        }
    }

    /// A connection to its metrics.
    pub(crate) fn scraper(&self) -> TcpStream {
        let address = fs::read_to_string(self.path("metrics.addr")).unwrap();
        TcpStream::connect(address.trim()).unwrap()
    }

    pub(crate) fn metrics(&self) -> String {
        let mut stream = self.scraper();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.contains("claviger_requests_total"), "{page}");
        page
    }
}

/// Starts it, and waits until it serves.
fn serve(program: &Path, dev: &Path, log: &Arc<Log>) -> Child {
    // The last one's address, which is somebody else's now.
    let _ = fs::remove_file(dev.join("metrics.addr"));
    let mut command = Command::new(program);
    command.args(["serve", "--dev", "--dir"]).arg(dev);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let listener = log.clone();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            drop(listener.deaf.blocking_lock());
            listener.said.lock().unwrap().push_str(&(line + "\n"));
            listener.more.notify_all();
        }
    });
    // What it prints last, when its metrics are written down.
    let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
    let serves = printed.any(|line| line.unwrap().contains("Ctrl-C"));
    assert!(serves, "it ended: {}", log.said.lock().unwrap());
    std::thread::spawn(move || printed.for_each(drop));
    child
}
