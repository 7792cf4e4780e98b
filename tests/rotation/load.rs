//! Callers that do all the time what kube-apiservers do, and remember what they were answered.

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use claviger_proto::v2::key_management_service_client::KeyManagementServiceClient;
use claviger_proto::v2::{DecryptRequest, EncryptRequest, StatusRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::process::PATIENCE;

/// Each with a connection of its own.
const CALLERS: usize = 3;
/// Between two calls of one caller: steady, and the machine has other tests to run.
const PAUSE: Duration = Duration::from_millis(2);
/// How long kube-apiserver waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A seed that was wrapped.
#[derive(Debug, Clone)]
pub(crate) struct Wrapped {
    pub(crate) key_id: String,
    pub(crate) ciphertext: Vec<u8>,
    pub(crate) seed: Vec<u8>,
}

/// What was answered since it was last taken.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) wrapped: Vec<Wrapped>,
    /// The key ids that each caller was given, by Status or Encrypt, in their order.
    pub(crate) ids: [Vec<String>; CALLERS],
    /// Pairs of Status answers: the second was asked for after the first had come.
    pub(crate) statuses: Vec<(String, String)>,
    /// Calls that failed although a plugin was there all the time.
    pub(crate) failures: Vec<String>,
    last_status: Option<String>,
}

impl Log {
    /// Goes on with what was answered later.
    pub(crate) fn add(&mut self, later: Self) {
        self.wrapped.extend(later.wrapped);
        for (ids, later) in self.ids.iter_mut().zip(later.ids) {
            ids.extend(later);
        }
        self.statuses.extend(later.statuses);
    }
}

/// Callers at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    socket: PathBuf,
    stop: AtomicBool,
    /// One more whenever the plugin goes, and whenever it is back: odd while it is away.
    changes: AtomicUsize,
    seeds: AtomicUsize,
    answered: Mutex<usize>,
    more: Condvar,
    log: Mutex<Log>,
}

impl Load {
    /// Starts them on a plugin's socket.
    pub(crate) fn start(socket: &Path) -> Self {
        let shared = Arc::new(Shared {
            socket: socket.to_owned(),
            stop: AtomicBool::new(false),
            changes: AtomicUsize::new(0),
            seeds: AtomicUsize::new(0),
            answered: Mutex::default(),
            more: Condvar::new(),
            log: Mutex::default(),
        });
        let theirs = shared.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let callers = (0..CALLERS).map(|caller| Caller::new(theirs.clone(), caller).run());
                futures_util::future::join_all(callers).await;
            });
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Waits until so many calls more were answered well. None may have failed.
    #[track_caller]
    pub(crate) fn go_on(&self, calls: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut answered = self.shared.answered.lock().unwrap();
        let enough = *answered + calls;
        while *answered < enough {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nobody is answered");
            answered = self.shared.more.wait_timeout(answered, left).unwrap().0;
            assert_none(&self.log().failures);
        }
    }

    /// Calls may fail while the plugin goes and comes back.
    pub(crate) fn away(&self, plugin: impl FnOnce()) {
        self.shared.changes.fetch_add(1, Ordering::SeqCst);
        plugin();
        self.shared.changes.fetch_add(1, Ordering::SeqCst);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.shared.log.lock().unwrap()
    }

    /// What was answered since the last time. No call may have failed.
    #[track_caller]
    pub(crate) fn take(&self) -> Log {
        let mut log = self.log();
        let last_status = log.last_status.clone();
        let log = mem::replace(
            &mut *log,
            Log {
                last_status,
                ..Log::default()
            },
        );
        assert_none(&log.failures);
        log
    }

    /// Stops them, and returns what was answered since the last time.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Log {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        self.take()
    }
}

#[track_caller]
fn assert_none(failures: &[String]) {
    let failed = failures.len();
    assert!(failed == 0, "{failed} calls failed: {failures:#?}");
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

struct Caller {
    shared: Arc<Shared>,
    number: usize,
    connected: Option<(usize, KeyManagementServiceClient<Channel>)>,
    mine: Vec<Wrapped>,
}

impl Caller {
    fn new(shared: Arc<Shared>, number: usize) -> Self {
        Self {
            shared,
            number,
            connected: None,
            mine: Vec::new(),
        }
    }

    async fn run(mut self) {
        for turn in 0.. {
            if self.shared.stop.load(Ordering::SeqCst) {
                return;
            }
            let before = self.shared.changes.load(Ordering::SeqCst);
            let called = tokio::time::timeout(TIMEOUT, self.call(before, turn)).await;
            match called.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok(()) => {
                    *self.shared.answered.lock().unwrap() += 1;
                    self.shared.more.notify_all();
                }
                Err(why) => {
                    self.connected = None;
                    let after = self.shared.changes.load(Ordering::SeqCst);
                    let was_there = before.is_multiple_of(2) && before == after;
                    if was_there {
                        self.shared.log.lock().unwrap().failures.push(why);
                        self.shared.more.notify_all();
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks Status, has two seeds wrapped, and an earlier one unwrapped, each in its turn.
    async fn call(&mut self, change: usize, turn: usize) -> Result<(), String> {
        let mut client = self.client(change).await?;
        match turn % 4 {
            0 => self.status(&mut client).await,
            3 => self.unwrap(&mut client, turn).await,
            _ => self.wrap(&mut client).await,
        }
    }

    /// A connection to the plugin that runs; one that was killed leaves a dead one behind.
    async fn client(
        &mut self,
        change: usize,
    ) -> Result<KeyManagementServiceClient<Channel>, String> {
        if let Some((made, client)) = &self.connected
            && *made == change
        {
            return Ok(client.clone());
        }
        let socket = self.shared.socket.clone();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(connect)
            .await
            .map_err(|e| format!("connecting: {e:?}"))?;
        let client = KeyManagementServiceClient::new(channel);
        self.connected = Some((change, client.clone()));
        Ok(client)
    }

    async fn status(
        &mut self,
        client: &mut KeyManagementServiceClient<Channel>,
    ) -> Result<(), String> {
        let before = self.shared.log.lock().unwrap().last_status.clone();
        let answer = client.status(StatusRequest {}).await;
        let id = answer
            .map_err(|e| format!("Status: {e}"))?
            .into_inner()
            .key_id;
        let mut log = self.shared.log.lock().unwrap();
        log.ids[self.number].push(id.clone());
        log.last_status = Some(id.clone());
        if let Some(before) = before {
            log.statuses.push((before, id));
        }
        Ok(())
    }

    async fn wrap(
        &mut self,
        client: &mut KeyManagementServiceClient<Channel>,
    ) -> Result<(), String> {
        let number = self.shared.seeds.fetch_add(1, Ordering::SeqCst);
        let mut seed = vec![7; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let request = EncryptRequest {
            plaintext: seed.clone(),
            uid: format!("wrap {number}"),
        };
        let answer = client.encrypt(request).await;
        let answer = answer.map_err(|e| format!("Encrypt: {e}"))?.into_inner();
        let wrapped = Wrapped {
            key_id: answer.key_id.clone(),
            ciphertext: answer.ciphertext.clone(),
            seed,
        };
        self.mine.push(wrapped.clone());
        let mut log = self.shared.log.lock().unwrap();
        log.ids[self.number].push(wrapped.key_id.clone());
        log.wrapped.push(wrapped);
        Ok(())
    }

    async fn unwrap(
        &mut self,
        client: &mut KeyManagementServiceClient<Channel>,
        turn: usize,
    ) -> Result<(), String> {
        // From all ages alike.
        let Some(wrapped) = self.mine.get(turn * 7919 % self.mine.len().max(1)) else {
            return Ok(());
        };
        let request = DecryptRequest {
            ciphertext: wrapped.ciphertext.clone(),
            uid: "unwrap".to_owned(),
            key_id: wrapped.key_id.clone(),
            annotations: Default::default(),
        };
        let answer = client.decrypt(request).await;
        let answer = answer.map_err(|e| format!("Decrypt of {}: {e}", wrapped.key_id))?;
        match answer.into_inner().plaintext == wrapped.seed {
            true => Ok(()),
            false => Err(format!("another seed of {}", wrapped.key_id)),
        }
    }
}
