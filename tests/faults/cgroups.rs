//! Row 114: a plugin in a control group that has too little, by the kernel's own hand.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::plugin::{Calls, PATIENCE, client_of};
use crate::starved::{Serving, serve};

/// A control group of our own, with limits of memory and of processes; removed at the end.
struct Group {
    folders: Vec<PathBuf>,
    unified: bool,
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            // The kernel takes a moment to forget who was killed in it.
            let until = Instant::now() + PATIENCE;
            while fs::remove_dir(folder).is_err() && Instant::now() < until {
                std::thread::yield_now();
            }
        }
    }
}

impl Group {
    /// Under version 2 of control groups, or version 1; or why there is none.
    fn make(name: &str) -> Result<Self, String> {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("claviger-{name}-{}", std::process::id());
        let unified = root.join("cgroup.controllers").exists();
        let parents = match unified {
            true => {
                let enabled = fs::write(root.join("cgroup.subtree_control"), "+memory +pids");
                enabled.map_err(|e| format!("memory and pids of {}: {e}", root.display()))?;
                vec![root.to_owned()]
            }
            false => vec![root.join("memory"), root.join("pids")],
        };
        let mut group = Self {
            folders: Vec::new(),
            unified,
        };
        for parent in parents {
            let folder = parent.join(&name);
            let made = fs::create_dir(&folder);
            made.map_err(|e| format!("{}: {e}", folder.display()))?;
            group.folders.push(folder);
        }
        Ok(group)
    }

    /// At most so many bytes, swap included.
    fn limit_memory(&self, bytes: usize) {
        let memory = &self.folders[0];
        let (limit, swap) = match self.unified {
            true => ("memory.max", ("memory.swap.max", "0".to_owned())),
            false => (
                "memory.limit_in_bytes",
                ("memory.swappiness", "0".to_owned()),
            ),
        };
        fs::write(memory.join(limit), bytes.to_string()).unwrap();
        // Not every kernel counts swap.
        let _ = fs::write(memory.join(swap.0), swap.1);
    }

    /// At most so many threads.
    fn limit_threads(&self, threads: usize) {
        let pids = self.folders.last().unwrap();
        fs::write(pids.join("pids.max"), threads.to_string()).unwrap();
    }

    /// A command that runs in it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        let join =
            r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@""#;
        command.args(["-c", join, "sh"]).args(&self.folders);
        command.args(["--", program]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts a plugin in it. Waits until it serves, or for how it ended and what it said.
    fn serve(&self, dir: &Path) -> Result<Serving, (std::process::ExitStatus, String)> {
        let mut command = self.command(env!("CARGO_BIN_EXE_claviger"));
        command.args(["serve", "--dev", "--dir"]).arg(dir);
        let mut serving = Serving(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(serving.0.stderr.take().unwrap()).lines();
        let mut said = String::new();
        for line in lines.by_ref().map(Result::unwrap) {
            if line.contains("keyring opened") {
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(serving);
            }
            said.push_str(&line);
            said.push('\n');
        }
        Err((serving.0.wait().unwrap(), said))
    }
}

/// All that no key is opened without. A mark says when it was last written.
fn kept(dir: &Path) -> [Vec<u8>; 3] {
    ["keyring", "root.key", "recovery.key"].map(|name| fs::read(dir.join(name)).unwrap())
}

/// A group, or the reason said aloud why this test does not run.
fn group(name: &str) -> Option<Group> {
    match Group::make(name) {
        Ok(group) => Some(group),
        Err(why) => {
            // A closed stderr must not fail a test.
            let _ = writeln!(std::io::stderr(), "NOT RUN: row 114, control groups: {why}");
            None
        }
    }
}

/// A process that takes all memory there is.
struct Hog(Child);

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn row_114_a_group_with_too_few_threads_or_too_little_memory_leaves_nothing_half_made() {
    let Some(group) = group("start") else { return };
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let socket = dir.join("kms.sock");
    let serving = serve(&dir, "unlimited").unwrap();
    let sealed = client_of(&socket).await.unwrap().seal(&[7; 32]).await;
    drop(serving);
    let before = kept(&dir);

    let mut refused = 0;
    let serving = (1..).find_map(|threads| {
        group.limit_threads(threads);
        match group.serve(&dir) {
            Ok(serving) => Some(serving),
            Err((ended, said)) => {
                assert_eq!(ended.code(), Some(1), "{threads} threads: {said}");
                assert!(said.contains("error: "), "{threads} threads: {said}");
                assert!(said.contains("\nnext:  "), "{threads} threads: {said}");
                assert!(
                    kept(&dir) == before,
                    "{threads} threads: a file was changed"
                );
                refused += 1;
                None
            }
        }
    });
    assert!(refused > 0);
    let mut client = client_of(&socket).await.unwrap();
    let opened = client.open(&sealed.key_id, &sealed.ciphertext).await;
    assert_eq!(opened.unwrap(), [7; 32]);
    drop((client, serving));

    group.limit_threads(1_000);
    let mut killed = 0;
    let serving = (0..).find_map(|doublings| {
        group.limit_memory((1 << 20) << doublings);
        match group.serve(&dir) {
            Ok(serving) => Some(serving),
            Err((ended, said)) => {
                killed += usize::from(ended.signal() == Some(9));
                assert_ne!(ended.code(), Some(101), "{said}");
                assert!(
                    kept(&dir) == before,
                    "{} MiB: a file was changed",
                    1 << doublings
                );
                None
            }
        }
    });
    assert!(killed > 0, "the kernel killed nobody");
    let mut client = client_of(&socket).await.unwrap();
    let opened = client.open(&sealed.key_id, &sealed.ciphertext).await;
    assert_eq!(opened.unwrap(), [7; 32]);
    drop(serving);
}

#[tokio::test]
async fn row_114_a_plugin_that_the_kernel_kills_for_memory_comes_back_with_every_key() {
    let Some(group) = group("kill") else { return };
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let socket = dir.join("kms.sock");
    for _ in 0..3 {
        group.limit_memory(256 << 20);
        let mut serving = group.serve(&dir).unwrap();
        let sealed = client_of(&socket).await.unwrap().seal(&[7; 32]).await;
        let before = kept(&dir);
        // Of the two, the kernel is to choose the plugin.
        fs::write(format!("/proc/{}/oom_score_adj", serving.0.id()), "1000").unwrap();
        let hog = group.command("tail").arg("/dev/zero").spawn();
        let hog = Hog(hog.unwrap());
        let until = Instant::now() + PATIENCE;
        let ended = loop {
            if let Some(ended) = serving.0.try_wait().unwrap() {
                break ended;
            }
            assert!(Instant::now() < until, "the kernel killed somebody else");
            std::thread::yield_now();
        };
        assert_eq!(ended.signal(), Some(9), "{ended:?}");
        drop(hog);
        assert!(kept(&dir) == before, "a file was changed");

        let _again = group.serve(&dir).unwrap();
        let mut client = client_of(&socket).await.unwrap();
        assert_eq!(client.answer_status().await.key_id, sealed.key_id);
        let opened = client.open(&sealed.key_id, &sealed.ciphertext).await;
        assert_eq!(opened.unwrap(), [7; 32]);
    }
}
