//! A kube-apiserver's double on loopback: a real one cannot be told to answer 409, or not at all.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use claviger::migrate::api::Api;
use claviger::migrate::discovery::Apis;
use claviger::migrate::kubeconfig::{self, Place};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What the double does with one call.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Rewrites the object.
    Ok,
    /// This status, with a `Status` of the API that names the object.
    Refuse(u16, &'static str),
    /// 429, and when to come again.
    Later(&'static str),
    /// A status and a body in somebody else's words.
    Page(u16, &'static str),
    /// Nothing, for ever.
    Silence,
    /// The connection ends in the middle of the answer.
    Cut,
    /// Rewrites the object once this was notified.
    When(Arc<Notify>),
}

/// Decides by the path, and how often it was called before.
type Script = dyn Fn(&str, usize) -> Reply + Send + Sync;

/// One call that came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Bytes,
}

#[derive(Default)]
struct Seen {
    calls: Vec<Call>,
    now: usize,
    most: usize,
}

/// The double. It ends with the test's runtime.
pub(crate) struct Double {
    pub(crate) api: Api,
    pub(crate) apis: Apis,
    pub(crate) port: u16,
    seen: Arc<Mutex<Seen>>,
    came: Arc<Notify>,
    _dir: TempDir,
}

impl Double {
    /// Starts one that answers patches by this script.
    pub(crate) async fn start(
        script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::with_timeout(script, Duration::from_secs(30)).await
    }

    /// The same, and its client waits no longer than this.
    pub(crate) async fn with_timeout(
        script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static,
        timeout: Duration,
    ) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, came) = (Arc::<Mutex<Seen>>::default(), Arc::<Notify>::default());
        tokio::spawn(serve(
            listener,
            Arc::new(script),
            seen.clone(),
            came.clone(),
        ));
        let dir = tempfile::tempdir().unwrap();
        let api = client(&dir, port, timeout).await;
        let apis = Apis::discover(&api).await.unwrap();
        seen.lock().unwrap().calls.clear();
        Self {
            api,
            apis,
            port,
            seen,
            came,
            _dir: dir,
        }
    }

    /// Every patch that came.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.seen.lock().unwrap().calls.clone()
    }

    /// How many came at once, at most.
    pub(crate) fn most_at_once(&self) -> usize {
        self.seen.lock().unwrap().most
    }

    /// Waits until so many patches came.
    pub(crate) async fn came(&self, calls: usize) {
        while self.calls().len() < calls {
            self.came.notified().await;
        }
    }
}

/// A client of a server on this port, by a kubeconfig.
pub(crate) async fn client(dir: &TempDir, port: u16, timeout: Duration) -> Api {
    let file = dir.path().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "test", "user": {"token": "t"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    std::fs::write(&file, text.to_string()).unwrap();
    let place = Place {
        files: vec![file],
        by: "the test",
    };
    kubeconfig::open(&place, timeout).await.unwrap().api
}

/// Tells everybody who waits, and who will.
pub(crate) async fn tell(told: &Notify) {
    loop {
        told.notify_waiters();
        tokio::task::yield_now().await;
    }
}

async fn serve(
    listener: TcpListener,
    script: Arc<Script>,
    seen: Arc<Mutex<Seen>>,
    came: Arc<Notify>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (script, seen, came) = (script.clone(), seen.clone(), came.clone());
        let service =
            service_fn(move |request| answer(request, script.clone(), seen.clone(), came.clone()));
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        // A client that goes away is part of the tests.
        tokio::spawn(async move { connection.await.ok() });
    }
}

/// A body that ends before its time where it says so.
struct Broken;

impl hyper::body::Body for Broken {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, &'static str>>> {
        std::task::Poll::Ready(Some(Err("cut off on purpose")))
    }
}

type AnswerBody = http_body_util::Either<Full<Bytes>, Broken>;

fn page(status: u16, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let body = AnswerBody::Left(Full::new(body.into()));
    Response::builder().status(status).body(body).unwrap()
}

async fn answer(
    request: Request<Incoming>,
    script: Arc<Script>,
    seen: Arc<Mutex<Seen>>,
    came: Arc<Notify>,
) -> Result<Response<AnswerBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    match path.as_str() {
        "/api" => return Ok(page(200, CORE)),
        "/apis" => return Ok(page(200, GROUPS)),
        _ => {}
    }
    let body = body.collect().await.unwrap().to_bytes();
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    let call = Call {
        method: parts.method,
        path: path.clone(),
        headers: parts.headers.iter().map(header).collect(),
        body,
    };
    let before = {
        let mut seen = seen.lock().unwrap();
        let before = seen.calls.iter().filter(|call| call.path == path).count();
        seen.calls.push(call);
        seen.now += 1;
        seen.most = seen.most.max(seen.now);
        before
    };
    came.notify_one();
    // Others that are under way come first, so that as many are here as the client sends.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let answer = carry_out(&path, script(&path, before)).await;
    seen.lock().unwrap().now -= 1;
    Ok(answer)
}

async fn carry_out(path: &str, reply: Reply) -> Response<AnswerBody> {
    let name = path.rsplit('/').next().unwrap();
    let status = |code: u16, message: &str| {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
            "details": {"name": name, "kind": "secrets"}, "code": code,
        });
        page(code, status.to_string())
    };
    match reply {
        Reply::Ok => page(200, r#"{"kind":"PartialObjectMetadata"}"#),
        Reply::Refuse(code, message) => status(code, message),
        Reply::Later(after) => {
            let mut answer = status(429, "too many requests, please try again later");
            answer
                .headers_mut()
                .insert("retry-after", after.parse().unwrap());
            answer
        }
        Reply::Page(code, text) => page(code, text),
        Reply::Silence => std::future::pending().await,
        Reply::Cut => Response::new(AnswerBody::Right(Broken)),
        Reply::When(told) => {
            told.notified().await;
            page(200, "{}")
        }
    }
}

const CORE: &str = r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","items":[
    {"metadata":{},"versions":[{"version":"v1","resources":[
        {"resource":"secrets","scope":"Namespaced","verbs":["patch"]},
        {"resource":"configmaps","scope":"Namespaced","verbs":["patch"]}]}]}]}"#;

const GROUPS: &str =
    r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","items":[]}"#;
