//! Several want to rotate at once: two commands, a third that changes the policy, and the timer, for
//! which a rotation is due. All of them stand before the keyring's lock with the same revision in
//! hand when it is let go.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use claviger::rotator::{Deps, Rotator};
use claviger::service::Clock;
use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::mark::MarkFile;
use claviger_keystore::member::MemberRecord;
use claviger_keystore::root::Root;
use claviger_keystore::root::key_file::{KeyFile, KeyFileConfig};
use claviger_keystore::storage::file::{Durability, FileStorage};
use claviger_keystore::store;
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::evidence::{all_opens, header, runtime};
use crate::load::Wrapped;
use crate::process::folder;
use crate::web::wait_until;

/// How often each contest takes place.
const CONTESTS: usize = 24;
/// A due date acts after an hour.
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// A node whose first key has been due for decades.
struct Node {
    dir: TempDir,
    old: KeyId,
}

impl Node {
    fn new() -> Self {
        let dir = folder();
        let config = format!(
            "apiVersion: claviger.io/v1alpha1\nkind: ClavigerConfiguration\nmember: cp1\n\
             server: {{socket: {0}/kms.sock}}\n\
             storage: {{file: {{path: {0}/keyring}}}}\n\
             roots: [{{name: local, keyFile: {{path: {0}/root.key}}}}]\n",
            dir.path().display()
        );
        fs::write(dir.path().join("config.yaml"), config).unwrap();
        KeyFile::create(&dir.path().join("root.key")).unwrap();
        let then = Timestamp::UNIX_EPOCH;
        let old = runtime().block_on(async {
            let root = root(dir.path());
            store::init(&storage(dir.path()), &[&*root], "test", then)
                .await
                .unwrap();
            let keystore = keystore(dir.path());
            keystore.sync(then).await.unwrap();
            let daily = |keyring: &claviger_keystore::keyring::Keyring| {
                let mut policy = keyring.header().policy.clone();
                policy.rotate_every = DAY;
                Ok(keyring.with_policy(policy))
            };
            keystore.commit(then, daily).await.unwrap();
            keystore.keyring().await.unwrap().primary().unwrap()
        });
        Self { dir, old }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Has a seed wrapped by whoever opens the keyring now.
    fn wrap(&self) -> Wrapped {
        let keystore = crate::evidence::opened(self.dir.path());
        let view = keystore.view();
        let snapshot = view.snapshot().unwrap();
        let id = snapshot.primary().unwrap();
        let seed = vec![7; 32];
        Wrapped {
            key_id: id.to_string(),
            ciphertext: snapshot.seal(&id, &seed).unwrap(),
            seed,
        }
    }

    /// Starts a command.
    fn command(&self, arguments: &[&str]) -> Contestant {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.arg("--config").arg(self.path("config.yaml"));
        command.args(["-o", "json"]).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Contestant(Some(command.spawn().unwrap()))
    }

    /// Takes the lock that every commit needs.
    fn lock(&self) -> File {
        let options = File::options()
            .read(true)
            .write(true)
            .open(self.path("keyring.lock"));
        let lock = options.unwrap();
        lock.lock().unwrap();
        lock
    }

    /// How often a process has the file of that lock open.
    fn at_the_lock(&self, process: u32) -> usize {
        let lock = self.path("keyring.lock");
        let Ok(open) = fs::read_dir(format!("/proc/{process}/fd")) else {
            return 0;
        };
        let links = open
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok());
        links.filter(|path| *path == lock).count()
    }

    /// One key followed the old one, in two commits, and every document the one before it.
    fn rotated_once(&self, others: u64, wrapped: Wrapped) -> KeyId {
        let header = header(self.dir.path());
        let keys: Vec<_> = header.keys.iter().map(|key| (key.id, key.state)).collect();
        let [(old, KeyState::Retired), (new, KeyState::Primary)] = keys[..] else {
            panic!("{keys:?}");
        };
        assert_eq!(old, self.old);
        assert_eq!(header.revision, 4 + others);
        let mut previous = None;
        for revision in 1..=header.revision {
            let name = match revision == header.revision {
                true => "keyring".to_owned(),
                false => format!("keyring.{revision}"),
            };
            let document = Document::parse(fs::read(self.path(&name)).unwrap()).unwrap();
            assert_eq!(document.header().revision, revision);
            assert!(previous.is_none_or(|hash| hash == document.header().previous));
            previous = Some(document.hash());
        }
        all_opens(self.dir.path(), &[wrapped, self.wrap()]);
        new
    }

    /// This command rotated away from the old key, or saw that somebody did.
    fn came_to(&self, output: &Output, new: KeyId) {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["from"], self.old.to_string(), "{answer}");
        assert_eq!(answer["primary"], new.to_string(), "{answer}");
    }
}

fn storage(dir: &Path) -> FileStorage {
    FileStorage::new(dir.join("keyring"), Durability::Memory)
}

fn root(dir: &Path) -> Box<dyn Root> {
    let config = KeyFileConfig::Path(dir.join("root.key"));
    Box::new(KeyFile::new("local", config))
}

/// As the plugin of this node has it, with the node's mark.
fn keystore(dir: &Path) -> Keystore {
    let mark = MarkFile::beside(&dir.join("keyring"));
    Keystore::new(Box::new(storage(dir)), vec![root(dir)], Some(mark))
}

/// A command that runs. Dropped, it is killed.
struct Contestant(Option<Child>);

impl Contestant {
    fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    fn end(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The plugin's timer, as it is, but for the clock that a test holds in its hand.
struct Timer {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// CLOCK_BOOTTIME in seconds, and how much of it passes from one look to the next.
static BOOTTIME: AtomicU64 = AtomicU64::new(0);
static STEP: AtomicU64 = AtomicU64::new(0);

impl Timer {
    /// Starts it, and waits until it speaks for its member.
    fn start(node: &Node) -> Self {
        STEP.store(0, Ordering::SeqCst);
        BOOTTIME.store(1_000, Ordering::SeqCst);
        let stop = CancellationToken::new();
        let (dir, stopped) = (node.dir.path().to_owned(), stop.clone());
        let thread = thread::spawn(move || {
            // Its second between two looks passes at once.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let keystore = Arc::new(keystore(&dir));
                let rotator = Rotator::new(Deps {
                    keystore: keystore.clone(),
                    convergence: Arc::default(),
                    roots: tokio::sync::watch::Sender::default().subscribe(),
                    name: "cp1".parse().unwrap(),
                    keyring: dir.join("keyring"),
                    clock: Clock {
                        boottime: || {
                            let step = STEP.load(Ordering::SeqCst);
                            Duration::from_secs(BOOTTIME.fetch_add(step, Ordering::SeqCst))
                        },
                        wall: Timestamp::now,
                    },
                });
                tokio::select! {
                    () = follow(&keystore) => {}
                    () = rotator.run(stopped) => {}
                }
            });
        });
        let timer = Self {
            stop,
            thread: Some(thread),
        };
        timer.says(node, |_| true);
        timer
    }

    /// In ten seconds the date will have been due for an hour, and it has nothing else to do then.
    fn is_nearly_due(&self, node: &Node) {
        BOOTTIME.store(1_000 + HOUR - 10, Ordering::SeqCst);
        self.says(node, |record| record.published.is_some());
    }

    /// Now it has.
    fn is_due(&self) {
        BOOTTIME.store(1_000 + HOUR, Ordering::SeqCst);
    }

    /// From now on its time goes on by itself.
    fn goes_on(&self) {
        STEP.store(5, Ordering::SeqCst);
    }

    /// Waits until its record says so.
    fn says(&self, node: &Node, so: impl Fn(&MemberRecord) -> bool) {
        wait_until("the timer speaks for its member", || {
            assert!(
                !self.thread.as_ref().unwrap().is_finished(),
                "the timer ended"
            );
            let text = fs::read_to_string(node.path("members/cp1.json")).ok()?;
            let (record, _mac) = text.rsplit_once(",\"mac\":")?;
            let record = serde_json::from_str(&format!("{record}}}")).unwrap();
            so(&record).then_some(())
        });
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

/// As the plugin's keeper, without its metrics.
async fn follow(keystore: &Keystore) {
    loop {
        // Where it fails it is tried again.
        let _ = keystore.sync(Timestamp::now()).await;
        // Real time has to pass, or this would take a whole processor.
        let pause = || thread::sleep(Duration::from_millis(2));
        tokio::task::spawn_blocking(pause).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Who said that it took this step.
fn took(step: &str, outputs: [&Output; 2]) -> usize {
    let said = |output: &&Output| String::from_utf8_lossy(&output.stderr).contains(step);
    let by = outputs.iter().filter(|output| said(output)).count();
    assert!(by < 2, "{step} twice: {outputs:?}");
    by
}

#[test]
fn two_commands_and_the_timer_at_once_rotate_once() {
    let (mut staged, mut activated, mut policies) = (0, 0, 0);
    for _ in 0..CONTESTS {
        let node = Node::new();
        let wrapped = node.wrap();
        let timer = Timer::start(&node);
        timer.is_nearly_due(&node);
        let lock = node.lock();
        let commands = [
            node.command(&["rotate", "--timeout", "60s"]),
            node.command(&["rotate", "--timeout", "60s"]),
            node.command(&["policy", "set", "rotateEvery=2d"]),
        ];
        for command in &commands {
            wait_until("a command is at the lock", || {
                (node.at_the_lock(command.id()) > 0).then_some(())
            });
        }
        timer.is_due();
        wait_until("the timer is at the lock", || {
            (node.at_the_lock(std::process::id()) > 1).then_some(())
        });
        drop(lock);
        timer.goes_on();

        let [one, other, policy] = commands.map(Contestant::end);
        let changed = policy.status.code() == Some(0);
        // It says that somebody was first.
        assert!(changed || policy.status.code() == Some(4), "{policy:?}");
        let new = node.rotated_once(u64::from(changed), wrapped);
        let every = header(node.dir.path()).policy.rotate_every;
        assert_eq!(every, if changed { 2 * DAY } else { DAY });
        node.came_to(&one, new);
        node.came_to(&other, new);
        staged += took("1 stage", [&one, &other]);
        activated += took("3 activate", [&one, &other]);
        policies += usize::from(changed);
    }
    eprintln!(
        "of {CONTESTS}: commands staged {staged}, activated {activated}; policies {policies}"
    );
}

#[test]
fn two_commands_at_once_where_no_plugin_runs_rotate_once() {
    for _ in 0..CONTESTS {
        let node = Node::new();
        let wrapped = node.wrap();
        let lock = node.lock();
        let commands = [
            node.command(&["rotate", "--timeout", "60s"]),
            node.command(&["rotate"]),
        ];
        for command in &commands {
            wait_until("a command is at the lock", || {
                (node.at_the_lock(command.id()) > 0).then_some(())
            });
        }
        drop(lock);
        let [one, other] = commands.map(Contestant::end);
        let new = node.rotated_once(0, wrapped);
        node.came_to(&one, new);
        node.came_to(&other, new);
        assert_eq!(took("1 stage", [&one, &other]), 1);
        assert_eq!(took("3 activate", [&one, &other]), 1);
    }
}
