//! A KMS v2 client over a unix socket that behaves as kube-apiserver's: authority `localhost`, one
//! connection for all calls, a time limit for each call that includes connecting.

mod endpoint;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use claviger_proto::v2::key_management_service_client::KeyManagementServiceClient;
use claviger_proto::v2::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

pub use endpoint::{Endpoint, EndpointError, SocketUrl};

/// How long kube-apiserver waits for each answer unless its configuration says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// Between two attempts to connect while a call waits. grpc-go backs off from 1 s to 120 s.
const REDIAL: Duration = Duration::from_millis(50);

impl Endpoint {
    async fn dial(&self) -> io::Result<UnixStream> {
        match self {
            Self::Path(path) => UnixStream::connect(path).await,
            Self::Abstract(name) => UnixStream::connect(format!("\0{name}")).await,
        }
    }
}

/// Who calls: a plugin of ours does not take its own commands for a kube-apiserver.
const USER_AGENT: &str = concat!("claviger/", env!("CARGO_PKG_VERSION"));

/// A connection to a plugin. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    grpc: KeyManagementServiceClient<Channel>,
    timeout: Duration,
    dial_error: Arc<ArcSwapOption<io::Error>>,
}

impl Client {
    /// A client that connects when it is first used. While nobody listens, calls wait for somebody
    /// until their time is up, as kube-apiserver's do (gRPC's `WaitForReady`).
    pub fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        Self::with(endpoint, timeout, None)
    }

    /// A client that is connected already, so that "nobody listens" is told apart from "answers
    /// badly". Where the connection is lost later, calls wait as those of [`Client::new`] do.
    ///
    /// # Errors
    /// What connecting to the socket said; `TimedOut` where its backlog stayed full for `timeout`.
    pub async fn connect(endpoint: Endpoint, timeout: Duration) -> io::Result<Self> {
        let stream = tokio::time::timeout(timeout, endpoint.dial()).await??;
        Ok(Self::with(endpoint, timeout, Some(stream)))
    }

    fn with(endpoint: Endpoint, timeout: Duration, connected: Option<UnixStream>) -> Self {
        let dial_error = Arc::new(ArcSwapOption::empty());
        let (errors, connected) = (Arc::clone(&dial_error), Mutex::new(connected));
        let connector = tower::service_fn(move |_| {
            let connected = connected
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let (endpoint, errors) = (endpoint.clone(), Arc::clone(&errors));
            async move {
                let stream = match connected {
                    Some(stream) => stream,
                    None => dial_until_somebody_listens(&endpoint, &errors).await,
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        // The URI is only the authority; the connector ignores it.
        let origin = tonic::transport::Endpoint::from_static("http://localhost");
        let channel = origin
            .clone()
            .user_agent(USER_AGENT)
            .unwrap_or(origin)
            .connect_with_connector_lazy(connector);
        Self {
            grpc: KeyManagementServiceClient::new(channel),
            timeout,
            dial_error,
        }
    }

    /// How long each call may take, connecting included.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether the plugin is well, and which key it would use.
    ///
    /// # Errors
    /// The plugin's own gRPC status, `DEADLINE_EXCEEDED`, or what went wrong on the connection.
    pub async fn status(&self) -> Result<StatusResponse, Status> {
        let mut grpc = self.grpc.clone();
        self.within_timeout(StatusRequest {}, async |request| grpc.status(request).await)
            .await
    }

    /// Has a seed wrapped.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn encrypt(&self, request: EncryptRequest) -> Result<EncryptResponse, Status> {
        let mut grpc = self.grpc.clone();
        self.within_timeout(request, async |request| grpc.encrypt(request).await)
            .await
    }

    /// Has a wrapped seed opened.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn decrypt(&self, request: DecryptRequest) -> Result<DecryptResponse, Status> {
        let mut grpc = self.grpc.clone();
        self.within_timeout(request, async |request| grpc.decrypt(request).await)
            .await
    }

    async fn within_timeout<Q, A>(
        &self,
        message: Q,
        call: impl AsyncFnOnce(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Status> {
        let started = Instant::now();
        let mut request = Request::new(message);
        // Tells the plugin how long somebody waits, as grpc-go does.
        request.set_timeout(self.timeout);
        match tokio::time::timeout(self.timeout, call(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            // tonic's own timer and the plugin's end at the same moment and say CANCELLED.
            Ok(Err(status)) if started.elapsed() < self.timeout => Err(status),
            Ok(Err(_)) | Err(_) => Err(self.too_late()),
        }
    }

    fn too_late(&self) -> Status {
        let dial = match &*self.dial_error.load() {
            Some(error) => format!("; connecting said: {error}"),
            None => String::new(),
        };
        Status::new(
            Code::DeadlineExceeded,
            format!("no answer within {:?}{dial}", self.timeout),
        )
    }
}

async fn dial_until_somebody_listens(
    endpoint: &Endpoint,
    errors: &ArcSwapOption<io::Error>,
) -> UnixStream {
    loop {
        match endpoint.dial().await {
            Ok(stream) => {
                errors.store(None);
                return stream;
            }
            Err(error) => errors.store(Some(Arc::new(error))),
        }
        tokio::time::sleep(REDIAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connecting_to_nobody_fails_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Path(dir.path().join("kms.sock"));
        let error = Client::connect(endpoint, TIMEOUT).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_to_nobody_waits_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Path(dir.path().join("kms.sock"));
        let status = Client::new(endpoint, TIMEOUT).status().await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("no answer within 3s"), "{status}");
        assert!(status.message().contains("No such file"), "{status}");
    }
}
