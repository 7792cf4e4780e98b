//! Rows 34 and 35: a kernel that gives no random bytes, or always the same.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use claviger::observer::Reason;
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

use crate::calls::{encrypt, refused};
use crate::components::component;
use crate::plugin::{Calls, client_of};
use crate::starved::{Serving, serve};

/// While this lives, the kernel gives a process no random bytes.
struct NoRandom {
    strace: Child,
    trace: PathBuf,
}

impl NoRandom {
    /// Returns once every thread is traced; or why none can be.
    fn of(serving: &Serving, strace: PathBuf, trace: PathBuf) -> Result<Self, String> {
        let mut strace = Command::new(strace)
            .args(["-f", "-e", "trace=getrandom", "-o"])
            .arg(&trace)
            // What a filter of system calls answers that does not know this one.
            .args(["-e", "inject=getrandom:error=ENOSYS", "-p"])
            .arg(serving.0.id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        let said = lines.next().map(Result::unwrap).unwrap_or_default();
        // "strace: Process 1 attached with 7 threads"
        if said.contains(" attached") {
            // It speaks again when it leaves.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(Self { strace, trace });
        }
        strace.wait().unwrap();
        Err(said)
    }

    /// The kernel gives bytes again. Returns the calls that failed, as strace wrote them.
    fn end(mut self) -> Vec<String> {
        kill_process(Pid::from_child(&self.strace), Signal::TERM).unwrap();
        self.strace.wait().unwrap();
        let trace = std::fs::read_to_string(&self.trace).unwrap();
        let failed = trace.lines().filter(|line| line.contains("(INJECTED)"));
        failed.map(str::to_owned).collect()
    }
}

impl Drop for NoRandom {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

#[tokio::test]
async fn row_34_without_random_bytes_nothing_is_sealed_and_decrypt_goes_on() {
    let Some(strace) = component("strace") else {
        return;
    };
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let serving = serve(&dir, "unlimited").unwrap();
    let mut client = client_of(&dir.join("kms.sock")).await.unwrap();
    let before = client.seal(&[7; 32]).await;

    let no_random = match NoRandom::of(&serving, strace, parent.path().join("trace")) {
        Ok(no_random) => no_random,
        Err(why) => {
            let required = std::env::var_os("CLAVIGER_REQUIRE_COMPONENTS");
            assert!(required.is_none_or(|value| value != "1"), "{why}");
            // A closed stderr must not fail a test.
            let _ = writeln!(std::io::stderr(), "NOT RUN: row 34: {why}");
            return;
        }
    };
    let unavailable = (Code::Unavailable, Reason::Random.as_str().to_owned());
    for _ in 0..3 {
        let answer = encrypt(&mut client, &[7; 32], "").await;
        assert_eq!(refused(answer), unavailable);
        assert_eq!(client.answer_status().await.key_id, before.key_id);
        let opened = client.open(&before.key_id, &before.ciphertext).await;
        assert_eq!(opened.unwrap(), [7; 32]);
    }
    // Each refusal is one nonce that was not given, and nothing was tried in its place.
    let failed = no_random.end();
    let nonces = failed.iter().filter(|call| call.contains(", 24, 0)"));
    assert_eq!(nonces.count(), 3, "{failed:#?}");

    let after = client.seal(&[7; 32]).await;
    assert_ne!(after.ciphertext, before.ciphertext);
    let opened = client.open(&after.key_id, &after.ciphertext).await;
    assert_eq!(opened.unwrap(), [7; 32]);
}

/// The path of strace, if it is there and may trace.
pub(crate) fn tracer() -> Option<PathBuf> {
    let strace = component("strace")?;
    let traced = Command::new(&strace)
        .args(["-f", "-qq", "-o", "/dev/null", "true"])
        .output();
    let traced = traced.unwrap();
    if traced.status.success() {
        return Some(strace);
    }
    let why = String::from_utf8_lossy(&traced.stderr).into_owned();
    let required = std::env::var_os("CLAVIGER_REQUIRE_COMPONENTS");
    assert!(required.is_none_or(|value| value != "1"), "{why}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // A closed stderr must not fail a test.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {why}");
    None
}

/// A start with this configuration, traced by strace with more options: its exit code, what it said,
/// and its calls for random bytes.
fn traced_start(
    strace: &Path,
    dir: &Path,
    options: &[String],
) -> (Option<i32>, String, Vec<String>) {
    let trace = dir.with_extension("trace");
    let mut command = Command::new(strace);
    command.args(["-f", "-qq", "-e", "trace=getrandom", "-o"]);
    command.arg(&trace).args(options);
    command.arg(env!("CARGO_BIN_EXE_claviger"));
    command.arg("--config").arg(dir.join("config.yaml"));
    let output = command.arg("serve").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let trace = std::fs::read_to_string(trace).unwrap();
    let calls = trace.lines().filter(|line| line.contains("getrandom("));
    (
        output.status.code(),
        said,
        calls.map(str::to_owned).collect(),
    )
}

#[test]
fn row_35_a_generator_that_repeats_itself_is_refused_at_the_start() {
    let Some(strace) = tracer() else {
        return;
    };
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let _serving = serve(&dir, "unlimited").unwrap();
    // A second plugin looks at the generator before it looks for another one.
    let (code, said, calls) = traced_start(&strace, &dir, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("already running"), "{said}");
    let whole = |call: &String| call.contains(", 32, 0) = 32");
    let first = 1 + calls.iter().position(whole).unwrap();
    assert!(whole(&calls[first]), "{calls:#?}");

    // The kernel says that it gave bytes, and gave none: both are what they were before.
    let constant = format!("inject=getrandom:retval=32:when={first}..{}", first + 1);
    let (code, said, calls) = traced_start(&strace, &dir, &["-e".to_owned(), constant]);
    let injected = calls.iter().filter(|call| call.contains("(INJECTED)"));
    assert_eq!(injected.count(), 2, "{calls:#?}");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("error: starting the plugin"), "{said}");
    assert!(said.contains("random generator"), "{said}");
    assert!(said.contains("\nnext:  "), "{said}");
}
