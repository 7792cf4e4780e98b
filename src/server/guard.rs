//! What stands around every call: a limit of calls at a time, a deadline, a catcher of panics, and
//! the count of how it ended.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::accept::Caller;
use super::observer::{Method, Observer, Reason};
use crate::service::printable;

/// The metadata of a refused call's answer that holds the reason's name ([`Reason::as_str`]).
pub const REASON_METADATA: &str = "claviger-reason";

/// How much is logged of what tonic says about a call, in characters: it may quote the call.
const MAX_MESSAGE: usize = 200;

/// Puts a [`Guard`] around a service.
#[derive(Clone)]
pub(super) struct GuardLayer {
    observer: Arc<dyn Observer>,
    deadline: Duration,
}

impl GuardLayer {
    pub(super) fn new(observer: Arc<dyn Observer>, deadline: Duration) -> Self {
        Self { observer, deadline }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service that always answers, in time, and counts.
#[derive(Clone)]
pub(super) struct Guard<S> {
    inner: S,
    layer: GuardLayer,
}

type Answer = http::Response<Body>;

impl<S> Service<http::Request<Body>> for Guard<S>
where
    S: Service<http::Request<Body>, Response = Answer, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let GuardLayer { observer, deadline } = self.layer.clone();
        let mut inner = self.inner.clone();
        let caller = request.extensions_mut().remove::<Caller>();
        let peer_uid = caller.as_ref().map(|caller| caller.connection.peer_uid);
        let mut call = Call::begin(observer, method(request.uri().path()), peer_uid);
        Box::pin(async move {
            let permit = caller.as_ref().map(|caller| caller.calls.try_acquire());
            if let Some(Err(_)) = permit {
                return Ok(call.refuse(Reason::Overload));
            }
            if let Some(caller) = &caller {
                request.extensions_mut().insert(caller.connection.clone());
            }
            // The deadline covers the arrival of the body too, which the inner service awaits.
            // A panic leaves nothing half-done that anybody sees: a call changes no shared state
            // but atomics.
            let answer = AssertUnwindSafe(async { inner.call(request).await }).catch_unwind();
            Ok(match tokio::time::timeout(deadline, answer).await {
                Ok(Ok(Ok(answer))) => call.end(answer),
                Ok(Err(_panic)) => {
                    call.observer.panic_caught();
                    call.refuse(Reason::Fault)
                }
                Err(_elapsed) => call.refuse(Reason::Deadline),
            })
        })
    }
}

fn method(path: &str) -> Method {
    match path {
        "/v2.KeyManagementService/Status" => Method::Status,
        "/v2.KeyManagementService/Encrypt" => Method::Encrypt,
        "/v2.KeyManagementService/Decrypt" => Method::Decrypt,
        _ => Method::Unknown,
    }
}

/// One call, counted when it is dropped.
struct Call {
    observer: Arc<dyn Observer>,
    method: Method,
    peer_uid: Option<u32>,
    began: Instant,
    code: Code,
}

impl Call {
    fn begin(observer: Arc<dyn Observer>, method: Method, peer_uid: Option<u32>) -> Self {
        // A call that is dropped before it ends was cancelled by its client.
        let code = Code::Cancelled;
        Self {
            observer,
            method,
            peer_uid,
            began: Instant::now(),
            code,
        }
    }

    /// The inner service answered. It names and logs the reason of a refusal itself; what has no
    /// reason was refused before it got there, because it was no call of the contract.
    fn end(&mut self, answer: Answer) -> Answer {
        let Some(status) = Status::from_header_map(answer.headers()) else {
            self.code = Code::Ok;
            return answer;
        };
        self.code = status.code();
        if self.code != Code::Ok {
            let named = status
                .metadata()
                .get(REASON_METADATA)
                .and_then(|name| name.to_str().ok());
            let reason = Reason::ALL
                .iter()
                .find(|reason| Some(reason.as_str()) == named);
            match reason {
                Some(reason) => self.observer.refused(*reason),
                None => self.refused(Reason::Protocol, status.message()),
            }
        }
        answer
    }

    /// Answers in the place of the inner service.
    fn refuse(&mut self, reason: Reason) -> Answer {
        let mut status = match reason {
            Reason::Overload => {
                Status::resource_exhausted("too many calls at a time on this connection; try again")
            }
            Reason::Deadline => Status::deadline_exceeded(
                "the call did not arrive or finish in time; look at the load of this node",
            ),
            _ => Status::internal("a fault in claviger; its log says where"),
        };
        self.code = status.code();
        self.refused(reason, status.message());
        let name = tonic::metadata::MetadataValue::from_static(reason.as_str());
        status.metadata_mut().insert(REASON_METADATA, name);
        status.into_http()
    }

    fn refused(&self, reason: Reason, message: &str) {
        tracing::warn!(
            method = self.method.as_str(),
            reason = reason.as_str(),
            code = ?self.code,
            peer_uid = self.peer_uid,
            message = printable(message, MAX_MESSAGE),
            "request refused"
        );
        self.observer.refused(reason);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.observer
            .request(self.method, self.code, self.began.elapsed());
    }
}
