//! Child processes that end with the test, however it ends, and what they said.
//!
//! ```text
//! test process ──▶ setpriv --pdeathsig KILL ──exec──▶ the program     killed when we die
//!        │  └──pipe──────────────────────────────────── stdout, stderr: lines, which tests wait for
//!        └────pipe──▶ sh: read, then rm -rf            removes our folder when we die
//! ```

use std::fmt::Write;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Long enough for any machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How many of a process's last lines are shown where a test failed.
const TAIL: usize = 40;

/// A program that runs. Dropped, it is killed.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

/// What a process said on stdout and stderr.
#[derive(Default)]
struct Output {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    /// Nobody can say any more: the process has ended, or is about to.
    ended: bool,
}

/// The command for a program that is killed when this process ends, even if that is killed itself.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program.as_ref())
        .stdin(Stdio::null());
    command
}

impl Process {
    /// Starts it. The name is for people.
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        let (reader, writer) = io::pipe().unwrap();
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = spawn(command).unwrap_or_else(|e| panic!("{name} cannot be started: {e}"));
        let output = Arc::new(Output::default());
        let listener = output.clone();
        thread::spawn(move || listener.listen(reader));
        Self {
            name: name.to_owned(),
            child,
            output,
        }
    }

    /// Waits until it has said something on one line, and returns the first such line.
    pub(crate) fn line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.output.lock();
        let mut seen = 0;
        loop {
            if let Some(line) = said.lines[seen..].iter().find(|line| wanted(line)) {
                return line.clone();
            }
            seen = said.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!said.ended, "{} ended and never said {what}", self.name);
            assert!(!left.is_zero(), "{} never said {what}", self.name);
            said = self.output.wait(said, left);
        }
    }

    /// Fails the test if it has ended: who waits for it waits in vain.
    pub(crate) fn must_run(&self) {
        assert!(!self.output.lock().ended, "{} ended", self.name);
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.output.lock();
        while !said.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} does not end", self.name);
            said = self.output.wait(said, left);
        }
        self.child.wait().unwrap()
    }

    /// Shows its last lines: where a test failed, they tell why.
    pub(crate) fn show_tail(&self) {
        let said = self.output.lock();
        let lines = &said.lines[said.lines.len().saturating_sub(TAIL)..];
        let mut text = format!("---- the last lines of {}\n", self.name);
        for line in lines {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{line:.600}");
        }
        eprintln!("{text}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.show_tail();
        }
    }
}

impl Output {
    fn listen(&self, reader: PipeReader) {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.lock().lines.push(text);
            self.more.notify_all();
            line.clear();
        }
        self.lock().ended = true;
        self.more.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, said: MutexGuard<'a, Said>, at_most: Duration) -> MutexGuard<'a, Said> {
        let waited = self.more.wait_timeout(said, at_most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Starts a child on a thread that lives as long as this process. To the kernel a child's parent is
/// the *thread* that started it, and each test has a thread of its own: a child that several tests
/// share would be killed with the first of them.
fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static PARENT: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
        let (jobs, to_do) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in to_do {
                // Whoever asked is waiting.
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    let (reply, answer) = mpsc::channel();
    PARENT.send((command, reply)).unwrap();
    answer.recv().unwrap()
}

/// A folder of one test, in a folder of this process that is removed even if it is killed.
pub(crate) fn folder() -> TempDir {
    static OURS: LazyLock<PathBuf> = LazyLock::new(|| {
        // A socket's path may have no symbolic link on the way.
        let parent = std::env::temp_dir().canonicalize().unwrap();
        let ours = tempfile::Builder::new()
            .prefix("claviger-")
            .tempdir_in(parent)
            .unwrap()
            .keep();
        // It reads until we are no more. Children that die with us may still be writing.
        const REMOVE: &str = "trap '' INT TERM HUP; read -r _; \
            for try in 1 2 3 4 5; do rm -rf -- \"$1\" && break; sleep 0.2; done 2>/dev/null";
        let janitor = Command::new("sh")
            .args(["-c", REMOVE, "janitor"])
            .arg(&ours)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        // Nobody waits for it, and its stdin stays open as long as we live.
        std::mem::forget(janitor.unwrap());
        ours
    });
    tempfile::tempdir_in(&*OURS).unwrap()
}
