//! Row 113: a fault of our own in a call, in the keyring's writer, and in what runs beside the server.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use claviger::observer::{Method, Reason};
use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::error::StorageError;
use claviger_keystore::header::DocumentHash;
use claviger_keystore::member::MemberName;
use claviger_keystore::storage::Storage;
use claviger_keystore::storage::memory::MemoryStorage;
use claviger_keystore::store::{self, Synced};
use claviger_keystore::testing::{NOW, test_root};
use claviger_proto::v2::StatusRequest;
use tonic::Code;

use crate::connections::seed;
use crate::frames::{DECRYPT, ENCRYPT, STATUS, call};
use crate::plugin::{Calls, PANIC, PATIENCE, Plugin, client_of};
use crate::random::tracer;
use crate::starved::{Serving, serve};

#[tokio::test]
async fn row_113_a_panic_in_a_call_is_answered_and_harms_nobody_else() {
    let plugin = Plugin::start().await;
    let mut bystander = plugin.client().await;
    let sealed = bystander.seal(&[7; 32]).await;
    let paths = [
        (STATUS, Method::Status),
        (ENCRYPT, Method::Encrypt),
        (DECRYPT, Method::Decrypt),
    ];
    for (path, method) in paths {
        for when in ["at once", "later"] {
            let answer = call(&plugin, path, &[(PANIC, when)], &seed())
                .await
                .unwrap();
            assert_eq!(answer.code, Code::Internal, "{method:?} {when}: {answer:?}");
            assert_eq!(answer.reason.as_deref(), Some("fault"));
            let tally = plugin.tally();
            assert_eq!(tally.requests.last(), Some(&(method, Code::Internal)));
            assert_eq!(tally.refusals.last(), Some(&Reason::Fault));
        }
    }
    assert_eq!(plugin.tally().panics, 6);
    // The connection that was open goes on, and so do others.
    for mut client in [bystander, plugin.client().await] {
        let opened = client.open(&sealed.key_id, &sealed.ciphertext).await;
        assert_eq!(opened.unwrap(), [7; 32]);
    }
    plugin.stop();
    let tally = plugin.stopped().await;
    assert_eq!((tally.panics, tally.opened), (6, tally.closed));
}

/// A storage whose next commit panics, before it took effect or after.
struct Panics {
    inner: Arc<MemoryStorage>,
    next: Arc<AtomicU8>,
}

const BEFORE: u8 = 1;
const AFTER: u8 = 2;

#[async_trait]
impl Storage for Panics {
    fn place(&self) -> String {
        self.inner.place()
    }
    async fn load(&self) -> Result<Vec<u8>, StorageError> {
        self.inner.load().await
    }
    async fn commit(
        &self,
        new: &Document,
        expected: Option<DocumentHash>,
    ) -> Result<(), StorageError> {
        let panics = self.next.swap(0, Ordering::Relaxed);
        assert_ne!(panics, BEFORE, "a fault of the test's own");
        let committed = self.inner.commit(new, expected).await;
        assert_ne!(panics, AFTER, "a fault of the test's own");
        committed
    }
    async fn kept(&self) -> Result<Vec<(u64, Vec<u8>)>, StorageError> {
        self.inner.kept().await
    }
    async fn put_kept(&self, revision: u64, new: Option<&Document>) -> Result<(), StorageError> {
        self.inner.put_kept(revision, new).await
    }
    async fn put_member(&self, name: &MemberName, record: &[u8]) -> Result<(), StorageError> {
        self.inner.put_member(name, record).await
    }
    async fn members(&self) -> Result<Vec<(MemberName, Vec<u8>)>, StorageError> {
        self.inner.members().await
    }
    async fn changed(&self) {
        self.inner.changed().await;
    }
}

#[tokio::test]
async fn row_113_a_panic_in_the_keyrings_writer_loses_no_key_and_stops_no_call() {
    for when in [BEFORE, AFTER] {
        let (inner, next) = (Arc::<MemoryStorage>::default(), Arc::<AtomicU8>::default());
        let storage = Panics {
            inner: inner.clone(),
            next: next.clone(),
        };
        let root = test_root();
        store::init(&storage, &[&*root], "test", NOW).await.unwrap();
        let keystore = Arc::new(Keystore::new(Box::new(storage), vec![root], None));
        keystore.sync(NOW).await.unwrap();
        let view = keystore.view().clone();
        let primary = view.snapshot().unwrap().primary().unwrap();
        let sealed = view.snapshot().unwrap().seal(&primary, &[7; 32]).unwrap();

        next.store(when, Ordering::Relaxed);
        let writer = keystore.clone();
        let stage = async move { writer.commit(NOW, |keyring| keyring.stage(NOW)).await };
        let panicked = tokio::spawn(stage).await.unwrap_err();
        assert!(panicked.is_panic());
        // What calls see is what it was.
        let now = keystore.view().clone();
        assert_eq!(now.snapshot().unwrap().primary(), Ok(primary));
        // The next look finds what was committed, if it was, and nothing holds a lock.
        let synced = keystore.sync(NOW).await.unwrap();
        assert_eq!(synced == Synced::Opened, when == AFTER);
        let staged = keystore.keyring().await.unwrap().staged();
        assert_eq!(staged.is_some(), when == AFTER);
        if staged.is_none() {
            let stage = keystore.commit(NOW, |keyring| keyring.stage(NOW));
            stage.await.unwrap();
        }
        let staged = keystore.keyring().await.unwrap().staged().unwrap();
        let activate = keystore.commit(NOW, |keyring| Ok(keyring.activate(&staged, NOW)?));
        activate.await.unwrap();
        let view = keystore.view().clone();
        let snapshot = view.snapshot().unwrap();
        assert_eq!(snapshot.primary(), Ok(staged));
        assert_eq!(*snapshot.open(&primary, &sealed).unwrap(), [7; 32]);
    }
}

/// Starts a plugin whose thread number `thread` the kernel does not make. Returns how it ended, or
/// nothing where it answered Status; what it said; and whether the kernel was asked for so many.
fn start_without_thread(
    strace: &Path,
    dir: &Path,
    thread: usize,
) -> (Option<Option<i32>>, String, bool) {
    let (said, trace) = (dir.with_extension("log"), dir.with_extension("trace"));
    let mut command = Command::new(strace);
    // Behind the plugin, so that it is our child.
    command.args(["-D", "-f", "-qq", "-e", "trace=clone,clone3", "-o"]);
    command.arg(&trace).arg("-e");
    command.arg(format!("inject=clone,clone3:error=EAGAIN:when={thread}"));
    command.arg(env!("CARGO_BIN_EXE_claviger"));
    // A try-out would open its keyring before there is anything beside the server.
    command
        .arg("--config")
        .arg(dir.join("config.yaml"))
        .arg("serve");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(&said).unwrap());
    let mut serving = Serving(command.spawn().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let until = Instant::now() + PATIENCE;
    let ended = loop {
        if let Some(ended) = serving.0.try_wait().unwrap() {
            break Some(ended.code());
        }
        let status = runtime.block_on(async {
            let mut client = client_of(&dir.join("kms.sock")).await.ok()?;
            client.status(StatusRequest {}).await.ok()
        });
        if status.is_some() {
            break None;
        }
        let text = fs::read_to_string(&said).unwrap();
        assert!(Instant::now() < until, "it neither serves nor ends: {text}");
    };
    drop(serving);
    let injected = fs::read_to_string(trace).unwrap().contains("(INJECTED)");
    (ended, fs::read_to_string(said).unwrap(), injected)
}

#[test]
fn row_113_a_fault_beside_the_server_ends_the_plugin_and_the_next_start_is_clean() {
    let Some(strace) = tracer() else {
        return;
    };
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    drop(serve(&dir, "unlimited").unwrap());
    let keyring = fs::read(dir.join("keyring")).unwrap();
    let mut beside = 0;
    for thread in 1.. {
        let (ended, said, injected) = start_without_thread(&strace, &dir, thread);
        match ended {
            Some(Some(1)) => {
                assert!(said.contains("error: "), "thread {thread}: {said}");
                assert!(said.contains("\nnext:  "), "thread {thread}: {said}");
                beside += usize::from(said.contains("a panic: "));
            }
            // A library's own way to say that it cannot start.
            Some(Some(101)) => assert!(said.contains("panicked"), "thread {thread}: {said}"),
            Some(code) => panic!("thread {thread}: {code:?} {said}"),
            None => {}
        }
        assert!(fs::read(dir.join("keyring")).unwrap() == keyring);
        if !injected {
            assert_eq!(ended, None, "{said}");
            break;
        }
    }
    assert!(beside > 0, "nothing beside the server failed");
}
