//! A KMS v2 client over a unix socket that behaves as kube-apiserver's: authority `localhost`, one
//! connection for all calls, a time limit for each call that includes connecting.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use claviger_proto::v2::key_management_service_client::KeyManagementServiceClient;
use claviger_proto::v2::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// How long kube-apiserver waits for each answer unless its configuration says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// Between two attempts to connect while a call waits. grpc-go backs off from 1 s to 120 s.
const REDIAL: Duration = Duration::from_millis(50);

/// Where a plugin listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket file.
    Path(PathBuf),
    /// A name in the abstract namespace of this network namespace, without its `@`.
    Abstract(String),
}

/// Why a text names no socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Nothing was given.
    #[error("it is empty")]
    Empty,
    /// kube-apiserver speaks to unix sockets only.
    #[error("kube-apiserver refuses the scheme {0:?}: it wants unix:///PATH")]
    Scheme(String),
    /// Only the URL's path counts, and there is none.
    #[error("it has no path: kube-apiserver wants unix:///PATH, with three slashes")]
    NoPath,
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are not UTF-8.
    #[error("its %-escapes are wrong")]
    Escape,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads a path, `@name`, or the URL of an EncryptionConfiguration as `ParseEndpoint` of
    /// k8s.io/kms does: scheme `unix`, and of the rest only the path, where `/@name` is abstract.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text.split_once(':') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("unix") => Self::from_url(rest),
            Some((scheme, rest)) if rest.starts_with("//") => {
                Err(EndpointError::Scheme(scheme.to_owned()))
            }
            _ => Self::from_name(text),
        }
    }
}

impl Endpoint {
    fn from_url(rest: &str) -> Result<Self, EndpointError> {
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let path = match rest.strip_prefix("//") {
            Some(host_and_path) => host_and_path.find('/').map(|at| &host_and_path[at..]),
            None => rest.starts_with('/').then_some(rest),
        };
        let path = unescape(path.ok_or(EndpointError::NoPath)?)?;
        match path.strip_prefix("/@") {
            Some(name) => Self::from_abstract(name),
            None => Self::from_name(&path),
        }
    }

    fn from_name(name: &str) -> Result<Self, EndpointError> {
        match name.strip_prefix('@') {
            Some(name) => Self::from_abstract(name),
            None if name.is_empty() => Err(EndpointError::Empty),
            None => Ok(Self::Path(PathBuf::from(name))),
        }
    }

    fn from_abstract(name: &str) -> Result<Self, EndpointError> {
        if name.is_empty() {
            return Err(EndpointError::Empty);
        }
        Ok(Self::Abstract(name.to_owned()))
    }

    async fn dial(&self) -> io::Result<UnixStream> {
        match self {
            Self::Path(path) => UnixStream::connect(path).await,
            Self::Abstract(name) => UnixStream::connect(format!("\0{name}")).await,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// Decodes `%41`, and refuses what Go's `net/url` refuses.
fn unescape(text: &str) -> Result<String, EndpointError> {
    let well_formed = text.split('%').skip(1).all(|after| {
        after.len() >= 2 && after.bytes().take(2).all(|digit| digit.is_ascii_hexdigit())
    });
    if !well_formed {
        return Err(EndpointError::Escape);
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(EndpointError::Escape),
    }
}

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
        let channel = tonic::transport::Endpoint::from_static("http://localhost")
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

    fn path(text: &str) -> Result<Endpoint, EndpointError> {
        Ok(Endpoint::Path(PathBuf::from(text)))
    }

    fn name(text: &str) -> Result<Endpoint, EndpointError> {
        Ok(Endpoint::Abstract(text.to_owned()))
    }

    #[test]
    fn endpoints_are_read_as_kube_apiserver_reads_them() {
        let scheme = |s: &str| Err(EndpointError::Scheme(s.to_owned()));
        for (text, wanted) in [
            ("/run/kms.sock", path("/run/kms.sock")),
            ("kms.sock", path("kms.sock")),
            ("./odd:name", path("./odd:name")),
            ("@kms", name("kms")),
            ("unix:///run/kms.sock", path("/run/kms.sock")),
            ("UNIX:///run/kms.sock", path("/run/kms.sock")),
            ("unix:/run/kms.sock", path("/run/kms.sock")),
            ("unix://host/run/kms.sock", path("/run/kms.sock")),
            ("unix:///run/kms.sock?a=b#c", path("/run/kms.sock")),
            ("unix:///run/a%20b.sock", path("/run/a b.sock")),
            ("unix:///@kms", name("kms")),
            ("unix:///%40kms", name("kms")),
            ("unix:///@kms/a", name("kms/a")),
            ("unix://run", Err(EndpointError::NoPath)),
            ("unix:run/kms.sock", Err(EndpointError::NoPath)),
            ("unix:", Err(EndpointError::NoPath)),
            ("unix:///%4", Err(EndpointError::Escape)),
            ("unix:///%zz", Err(EndpointError::Escape)),
            ("unix:///%ff", Err(EndpointError::Escape)),
            ("unix:///@", Err(EndpointError::Empty)),
            ("@", Err(EndpointError::Empty)),
            ("", Err(EndpointError::Empty)),
            ("http://localhost/run", scheme("http")),
            ("tcp://127.0.0.1:1", scheme("tcp")),
        ] {
            assert_eq!(text.parse::<Endpoint>(), wanted, "{text}");
        }
    }

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
