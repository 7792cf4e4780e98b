//! A plugin in this process: a real socket in a directory of its own, a keystore in memory, and an
//! observer that remembers.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use claviger::config::{ServerConfig, SocketAddress, StatusVersion};
use claviger::observer::{AcceptError, Method, Observer, Reason, Rejection};
use claviger::server::socket::Socket;
use claviger::server::{self, Deps, Limits, ServeError};
use claviger::service::{Clock, Kms};
use claviger_keystore::Keystore;
use claviger_keystore::key::KeyId;
use claviger_keystore::storage::memory::MemoryStorage;
use claviger_keystore::testing;
use claviger_proto::v2::key_management_service_client::KeyManagementServiceClient;
use claviger_proto::v2::{
    DecryptRequest, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response};
use tower::Service;

/// Long enough for any machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// kube-apiserver's client.
pub(crate) type Client = KeyManagementServiceClient<Channel>;

/// What the observer heard.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) requests: Vec<(Method, Code)>,
    pub(crate) refusals: Vec<Reason>,
    pub(crate) rejections: Vec<Rejection>,
    pub(crate) accept_errors: Vec<AcceptError>,
    pub(crate) status_answers: Vec<KeyId>,
    pub(crate) opened: usize,
    pub(crate) closed: usize,
    pub(crate) panics: usize,
    pub(crate) restored: usize,
}

struct Recorder(watch::Sender<Tally>);

impl Observer for Recorder {
    fn request(&self, method: Method, code: Code, _elapsed: Duration) {
        self.0
            .send_modify(|tally| tally.requests.push((method, code)));
    }
    fn refused(&self, reason: Reason) {
        self.0.send_modify(|tally| tally.refusals.push(reason));
    }
    fn status_answered(&self, id: &KeyId) {
        self.0.send_modify(|tally| tally.status_answers.push(*id));
    }
    fn connection_opened(&self) {
        self.0.send_modify(|tally| tally.opened += 1);
    }
    fn connection_closed(&self) {
        self.0.send_modify(|tally| tally.closed += 1);
    }
    fn peer_rejected(&self, rejection: Rejection) {
        self.0.send_modify(|tally| tally.rejections.push(rejection));
    }
    fn accept_error(&self, error: AcceptError) {
        self.0.send_modify(|tally| tally.accept_errors.push(error));
    }
    fn panic_caught(&self) {
        self.0.send_modify(|tally| tally.panics += 1);
    }
    fn socket_restored(&self) {
        self.0.send_modify(|tally| tally.restored += 1);
    }
}

/// How a plugin is to be.
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) allowed_uids: Vec<u32>,
    pub(crate) clock: Clock,
    pub(crate) version: StatusVersion,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            allowed_uids: vec![own_uid()],
            clock: Clock {
                boottime: || Duration::from_secs(1_000),
                wall: || testing::NOW,
            },
            version: StatusVersion::V2,
        }
    }
}

impl Setup {
    /// Production's values but for what `change` changes.
    pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> Self {
        let mut setup = Self::default();
        change(&mut setup.limits);
        setup
    }
}

/// A plugin that runs.
pub(crate) struct Plugin {
    dir: TempDir,
    pub(crate) keystore: Arc<Keystore>,
    pub(crate) storage: Arc<MemoryStorage>,
    tally: watch::Receiver<Tally>,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Plugin {
    pub(crate) async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    pub(crate) async fn start_with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = Socket::make(&socket_in(dir.path())).unwrap();
        Self::start_on(socket, dir, setup).await
    }

    /// A plugin whose keyring was never opened.
    pub(crate) async fn start_closed() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = Socket::make(&socket_in(dir.path())).unwrap();
        let storage = Arc::new(MemoryStorage::default());
        let keystore = Keystore::new(Box::new(storage.clone()), vec![testing::test_root()], None);
        Self::serve(socket, dir, Setup::default(), Arc::new(keystore), storage)
    }

    /// A plugin of a new cluster, whose primary key is this one.
    pub(crate) async fn start_with_kek(kek: [u8; 32]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = Socket::make(&socket_in(dir.path())).unwrap();
        let storage = Arc::new(MemoryStorage::default());
        let root = testing::test_root();
        testing::init_with_keks(&*storage, &*root, &[kek]).await;
        let keystore = Keystore::new(Box::new(storage.clone()), vec![root], None);
        keystore.sync(testing::NOW).await.unwrap();
        Self::serve(socket, dir, Setup::default(), Arc::new(keystore), storage)
    }

    pub(crate) async fn start_on(socket: Socket, dir: TempDir, setup: Setup) -> Self {
        let (keystore, storage) = testing::open_keystore().await;
        Self::serve(socket, dir, setup, keystore, storage)
    }

    fn serve(
        socket: Socket,
        dir: TempDir,
        setup: Setup,
        keystore: Arc<Keystore>,
        storage: Arc<MemoryStorage>,
    ) -> Self {
        let (recorder, tally) = watch::channel(Tally::default());
        let observer: Arc<dyn Observer> = Arc::new(Recorder(recorder));
        let Setup {
            limits,
            allowed_uids,
            clock,
            version,
        } = setup;
        let kms = Kms::new(
            keystore.clone(),
            version,
            observer.clone(),
            Arc::default(),
            clock,
        );
        let services = kms.into_services();
        let deps = Deps {
            services: move |connection| panicking(services(connection)),
            allowed_uids,
            observer,
            limits,
        };
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server::run(socket, deps, stop.clone().cancelled_owned()));
        Self {
            dir,
            keystore,
            storage,
            tally,
            stop,
            serving,
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("kms.sock")
    }

    /// A client on a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        client_of(&self.path()).await.unwrap()
    }

    /// A connection that says nothing by itself.
    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path()).await.unwrap()
    }

    /// What the observer heard until now.
    pub(crate) fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    /// Waits until what the observer heard is enough.
    pub(crate) async fn heard(&self, enough: impl FnMut(&Tally) -> bool) -> Tally {
        let mut tally = self.tally.clone();
        let heard = tokio::time::timeout(PATIENCE, tally.wait_for(enough)).await;
        match heard {
            Ok(tally) => tally.unwrap().clone(),
            Err(_) => panic!("heard only {:#?}", self.tally()),
        }
    }

    /// Begins a graceful stop.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the server and its last connection have ended after [`Plugin::stop`].
    pub(crate) async fn stopped(mut self) -> Tally {
        tokio::time::timeout(PATIENCE, &mut self.serving)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.heard(|tally| tally.opened == tally.closed).await
    }

    /// What must hold after every fault: Status is answered, nothing panicked, no connection
    /// is left open, and the server stops.
    pub(crate) async fn ends_unharmed(self) -> Tally {
        self.client().await.answer_status().await;
        self.heard(|tally| tally.opened == tally.closed).await;
        self.stop();
        let tally = self.stopped().await;
        assert_eq!(tally.panics, 0);
        assert_eq!(tally.opened, tally.closed);
        tally
    }
}

/// A header that makes the service panic.
pub(crate) const PANIC: &str = "x-test-panic";

/// The service, but for calls with [`PANIC`]: `at once`, or while they are being answered.
fn panicking<S>(
    service: S,
) -> impl Service<
    http::Request<Incoming>,
    Response = http::Response<Body>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ 'static
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    tower::service_fn(move |request: http::Request<Incoming>| {
        let panics = request.headers().get(PANIC).cloned();
        assert!(
            panics.as_ref().is_none_or(|when| when != "at once"),
            "a fault of the test's own"
        );
        let answer = service.clone().call(request);
        async move {
            assert!(panics.is_none(), "a fault of the test's own");
            answer.await
        }
    })
}

/// The configuration of a socket `kms.sock` in this directory.
pub(crate) fn socket_in(dir: &Path) -> ServerConfig {
    ServerConfig {
        socket: SocketAddress::Path(dir.join("kms.sock")),
        mode: 0o600,
        group: None,
        allow_uids: vec![own_uid()],
        status_version: StatusVersion::V2,
    }
}

pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A client of the socket at this path.
pub(crate) async fn client_of(path: &Path) -> Result<Client, tonic::transport::Error> {
    let path = path.to_owned();
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(connect)
        .await?;
    Ok(KeyManagementServiceClient::new(channel))
}

/// The three calls as tests say them.
pub(crate) trait Calls {
    async fn answer_status(&mut self) -> StatusResponse;
    async fn seal(&mut self, seed: &[u8]) -> EncryptResponse;
    async fn open(&mut self, key_id: &str, ciphertext: &[u8]) -> Result<Vec<u8>, tonic::Status>;
}

impl Calls for Client {
    async fn answer_status(&mut self) -> StatusResponse {
        answered(self.status(StatusRequest {})).await.unwrap()
    }

    async fn seal(&mut self, seed: &[u8]) -> EncryptResponse {
        let request = EncryptRequest {
            plaintext: seed.to_vec(),
            uid: "seal".to_owned(),
        };
        answered(self.encrypt(request)).await.unwrap()
    }

    async fn open(&mut self, key_id: &str, ciphertext: &[u8]) -> Result<Vec<u8>, tonic::Status> {
        let request = DecryptRequest {
            ciphertext: ciphertext.to_vec(),
            uid: "open".to_owned(),
            key_id: key_id.to_owned(),
            annotations: Default::default(),
        };
        Ok(answered(self.decrypt(request)).await?.plaintext.clone())
    }
}

/// A test must fail rather than wait for an answer for ever.
async fn answered<T>(
    call: impl Future<Output = Result<Response<T>, tonic::Status>>,
) -> Result<T, tonic::Status> {
    let answer = tokio::time::timeout(PATIENCE, call)
        .await
        .expect("an answer comes");
    Ok(answer?.into_inner())
}

/// Reads until the peer closes; what it said before that.
pub(crate) async fn until_closed(stream: &mut UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    match tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await {
        Err(_) => panic!("the connection stayed open"),
        Ok(Err(error)) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        Ok(_) => said,
    }
}
