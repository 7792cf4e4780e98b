//! A KMS v2 plugin that misbehaves on request. Without faults it is a perfect one: what it wraps is
//! a name under which it remembers the seed, so nothing but exactly what it answered can be opened.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use claviger_proto::v2::key_management_service_server::{
    KeyManagementService, KeyManagementServiceServer,
};
use claviger_proto::v2::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use http::HeaderValue;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Request, Response, Status};
use tower::util::{MapRequest, MapResponse};

/// The key id of a plugin without faults.
pub(crate) const KEY_ID: &str = "double-1";

/// How a hook ends a call without an answer.
pub(crate) enum Fail {
    /// With an error.
    Error(Status),
    /// Never.
    Hang,
}

impl From<Status> for Fail {
    fn from(status: Status) -> Self {
        Self::Error(status)
    }
}

type Wrapped = (EncryptResponse, Vec<u8>);
type OnStatus = dyn Fn(usize, &mut StatusResponse) -> Result<(), Fail> + Send + Sync;
type OnEncrypt = dyn Fn(usize, &[u8], &mut EncryptResponse) -> Result<(), Fail> + Send + Sync;
type OnRequest = dyn Fn(usize, &mut DecryptRequest) -> Result<(), Fail> + Send + Sync;
type Opened = Result<Vec<u8>, Status>;
type OnDecrypt = dyn Fn(usize, Opened) -> Result<Vec<u8>, Fail> + Send + Sync;

/// What is wrong with the plugin. Each hook is given how many calls of its method came before, and
/// spoils a good answer.
pub(crate) struct Faults {
    on_status: Box<OnStatus>,
    on_encrypt: Box<OnEncrypt>,
    on_request: Box<OnRequest>,
    on_decrypt: Box<OnDecrypt>,
    raw_message: Option<&'static str>,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self {
            on_status: Box::new(|_, _| Ok(())),
            on_encrypt: Box::new(|_, _, _| Ok(())),
            on_request: Box::new(|_, _| Ok(())),
            on_decrypt: Box::new(|_, opened| Ok(opened?)),
            raw_message: None,
        }
    }

    /// Spoils answers of Status.
    pub(crate) fn status(
        mut self,
        hook: impl Fn(usize, &mut StatusResponse) -> Result<(), Fail> + Send + Sync + 'static,
    ) -> Self {
        self.on_status = Box::new(hook);
        self
    }

    /// Spoils answers of Encrypt; gets the seed.
    pub(crate) fn encrypt<H>(mut self, hook: H) -> Self
    where
        H: Fn(usize, &[u8], &mut EncryptResponse) -> Result<(), Fail> + Send + Sync + 'static,
    {
        self.on_encrypt = Box::new(hook);
        self
    }

    /// Changes what Decrypt is asked.
    pub(crate) fn request(
        mut self,
        hook: impl Fn(usize, &mut DecryptRequest) -> Result<(), Fail> + Send + Sync + 'static,
    ) -> Self {
        self.on_request = Box::new(hook);
        self
    }

    /// Spoils answers of Decrypt, errors too.
    pub(crate) fn decrypt(
        mut self,
        hook: impl Fn(usize, Opened) -> Result<Vec<u8>, Fail> + Send + Sync + 'static,
    ) -> Self {
        self.on_decrypt = Box::new(hook);
        self
    }

    /// Sends these percent-encoded bytes as every error's message.
    pub(crate) fn raw_message(mut self, message: &'static str) -> Self {
        self.raw_message = Some(message);
        self
    }
}

struct Double {
    faults: Faults,
    calls: [AtomicUsize; 3],
    /// By ciphertext: what was answered, and the seed.
    wrapped: Mutex<HashMap<Vec<u8>, Wrapped>>,
}

impl Double {
    fn count(&self, method: usize) -> usize {
        self.calls[method].fetch_add(1, Ordering::SeqCst)
    }

    fn wrap(&self, nth: usize, seed: &[u8]) -> Result<EncryptResponse, Fail> {
        let mut answer = EncryptResponse {
            ciphertext: format!("{nth:04} is the wrapped seed").into_bytes(),
            key_id: KEY_ID.to_owned(),
            annotations: BTreeMap::new(),
        };
        (self.faults.on_encrypt)(nth, seed, &mut answer)?;
        let kept = (answer.clone(), seed.to_vec());
        self.wrapped
            .lock()
            .unwrap()
            .entry(answer.ciphertext.clone())
            .or_insert(kept);
        Ok(answer)
    }

    fn open(&self, asked: &DecryptRequest) -> Opened {
        let wrapped = self.wrapped.lock().unwrap();
        let Some((answered, seed)) = wrapped.get(&asked.ciphertext) else {
            return Err(Status::invalid_argument("this was never wrapped here"));
        };
        if (&answered.key_id, &answered.annotations) != (&asked.key_id, &asked.annotations) {
            return Err(Status::invalid_argument("this was wrapped otherwise"));
        }
        Ok(seed.clone())
    }
}

async fn end<T>(result: Result<T, Fail>) -> Result<Response<T>, Status> {
    match result {
        Ok(answer) => Ok(Response::new(answer)),
        Err(Fail::Error(status)) => Err(status),
        Err(Fail::Hang) => std::future::pending().await,
    }
}

#[tonic::async_trait]
impl KeyManagementService for Double {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let mut answer = StatusResponse {
            version: "v2".to_owned(),
            healthz: "ok".to_owned(),
            key_id: KEY_ID.to_owned(),
        };
        end((self.faults.on_status)(self.count(0), &mut answer).map(|()| answer)).await
    }

    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        let request = request.into_inner();
        assert!(
            !request.uid.is_empty(),
            "kube-apiserver always names its calls"
        );
        end(self.wrap(self.count(1), &request.plaintext)).await
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        let (mut request, nth) = (request.into_inner(), self.count(2));
        assert!(
            !request.uid.is_empty(),
            "kube-apiserver always names its calls"
        );
        let opened = (self.faults.on_request)(nth, &mut request)
            .and_then(|()| (self.faults.on_decrypt)(nth, self.open(&request)));
        end(opened.map(|plaintext| DecryptResponse { plaintext })).await
    }
}

/// A plugin that listens until it is stopped or dropped.
pub(crate) struct Plugin {
    pub(crate) socket: PathBuf,
    accepting: JoinHandle<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Plugin {
    /// Listens on a path; one that starts with a NUL is an abstract name.
    pub(crate) fn start(socket: &Path, faults: Faults) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let (accepted, incoming) = tokio::sync::mpsc::channel(8);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if accepted
                    .send(Ok::<_, std::io::Error>(stream))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        let raw_message = faults.raw_message;
        let double = Double {
            faults,
            calls: Default::default(),
            wrapped: Mutex::new(HashMap::new()),
        };
        let service = KeyManagementServiceServer::from_arc(Arc::new(double));
        let service = MapRequest::new(service, |request: http::Request<Body>| {
            assert_eq!(request.uri().authority().unwrap(), "localhost");
            assert!(request.headers().contains_key("grpc-timeout"));
            request
        });
        let service = MapResponse::new(service, move |mut response: http::Response<_>| {
            if let (Some(raw), Some(message)) =
                (raw_message, response.headers_mut().get_mut("grpc-message"))
            {
                *message = HeaderValue::from_static(raw);
            }
            response
        });
        let serving = tokio::spawn(
            // Ends, and ends its connections, when nothing is accepted any more.
            tonic::transport::Server::builder().serve_with_incoming_shutdown(
                service,
                ReceiverStream::new(incoming),
                std::future::pending(),
            ),
        );
        Self {
            socket: socket.to_owned(),
            accepting,
            serving,
        }
    }

    /// Stops listening and ends every connection.
    pub(crate) async fn stop(mut self) {
        self.accepting.abort();
        let _ = (&mut self.serving).await;
        std::fs::remove_file(&self.socket).unwrap();
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.accepting.abort();
        self.serving.abort();
    }
}
