//! What stands around every call: a limit of calls at a time, a deadline, a catcher of panics, and
//! the count of how it ended.

use std::convert::Infallible;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

use super::accept::Caller;
use crate::observer::{Method, Observer, REASON_METADATA, Reason};
use crate::service::printable;

/// How much is logged of what tonic says about a call, in characters: it may quote the call.
const MAX_MESSAGE: usize = 200;

type Answer = http::Response<Body>;

/// Makes the service of one connection always answer, in time, and counts.
pub(super) struct Guard<S> {
    service: S,
    caller: Caller,
    observer: Arc<dyn Observer>,
    deadline: Duration,
}

impl<S> Guard<S> {
    pub(super) fn new(
        service: S,
        caller: Caller,
        observer: Arc<dyn Observer>,
        deadline: Duration,
    ) -> Self {
        Self {
            service,
            caller,
            observer,
            deadline,
        }
    }

    pub(super) fn call<B>(
        &self,
        request: http::Request<B>,
    ) -> impl Future<Output = Result<Answer, Infallible>> + use<S, B>
    where
        S: Service<http::Request<B>, Response = Answer, Error = Infallible> + Clone,
    {
        let peer_uid = self.caller.connection.peer_uid;
        let mut call = Call::begin(
            self.observer.clone(),
            method(request.uri().path()),
            peer_uid,
        );
        // The deadline covers the arrival of the body too, which the service awaits.
        let deadline = call.began + self.deadline;
        let permit = self.caller.calls.clone().try_acquire_owned();
        // A panic leaves nothing half-done that anybody sees: a call changes no shared state but
        // atomics.
        let answering = permit.is_ok().then(|| {
            let mut service = self.service.clone();
            panic::catch_unwind(AssertUnwindSafe(|| service.call(request)))
        });
        async move {
            let answer = match answering {
                None => return Ok(call.refuse(Reason::Overload)),
                Some(Err(panic)) => Ok(Err(panic)),
                Some(Ok(answering)) => {
                    let answering = AssertUnwindSafe(answering).catch_unwind();
                    tokio::time::timeout_at(deadline, answering).await
                }
            };
            drop(permit);
            Ok(match answer {
                Ok(Ok(Ok(answer))) => call.end(answer),
                Ok(Err(_panic)) => {
                    call.observer.panic_caught();
                    call.refuse(Reason::Fault)
                }
                Err(_elapsed) => call.refuse(Reason::Deadline),
            })
        }
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
    peer_uid: u32,
    began: Instant,
    code: Code,
}

impl Call {
    fn begin(observer: Arc<dyn Observer>, method: Method, peer_uid: u32) -> Self {
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tonic::metadata::MetadataValue;

    use super::*;
    use crate::observer::{AcceptError, Rejection};

    /// Remembers requests, refusals and panics; nothing else happens behind a guard.
    #[derive(Default)]
    struct Heard {
        requests: Mutex<Vec<(Method, Code)>>,
        refusals: Mutex<Vec<Reason>>,
        panics: Mutex<usize>,
    }

    impl Observer for Heard {
        fn request(&self, method: Method, code: Code, _elapsed: Duration) {
            self.requests.lock().unwrap().push((method, code));
        }
        fn refused(&self, reason: Reason) {
            self.refusals.lock().unwrap().push(reason);
        }
        fn panic_caught(&self) {
            *self.panics.lock().unwrap() += 1;
        }
        fn status_answered(&self, _: &claviger_keystore::key::KeyId) {}
        fn connection_opened(&self) {}
        fn connection_closed(&self) {}
        fn peer_rejected(&self, _: Rejection) {}
        fn accept_error(&self, _: AcceptError) {}
        fn socket_restored(&self) {}
    }

    fn guarded<F, R>(
        observer: &Arc<Heard>,
        answer: F,
    ) -> Guard<impl Service<http::Request<Body>, Response = Answer, Error = Infallible> + Clone>
    where
        F: Fn(http::Request<Body>) -> R + Clone + Send + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let service = tower::service_fn(move |request| {
            let answering = answer(request);
            async move { Ok::<_, Infallible>(answering.await) }
        });
        Guard::new(
            service,
            Caller::new(1, 0, 1),
            observer.clone(),
            Duration::from_millis(2500),
        )
    }

    fn encrypt() -> http::Request<Body> {
        http::Request::post("/v2.KeyManagementService/Encrypt")
            .body(Body::empty())
            .unwrap()
    }

    fn status_of(answer: &Answer) -> Status {
        Status::from_header_map(answer.headers()).unwrap()
    }

    #[tokio::test]
    async fn row_113_a_panic_is_answered_internal_and_counted() {
        let heard = Arc::new(Heard::default());
        let when_polled = guarded(&heard, |_| async { panic!("a seed: 0707") });
        let status = status_of(&when_polled.call(encrypt()).await.unwrap());
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("0707"));
        let when_called = guarded(&heard, |_| -> std::future::Ready<Answer> {
            panic!("at once")
        });
        let status = status_of(&when_called.call(encrypt()).await.unwrap());
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(*heard.panics.lock().unwrap(), 2);
        assert_eq!(*heard.refusals.lock().unwrap(), [Reason::Fault; 2]);
        assert_eq!(
            *heard.requests.lock().unwrap(),
            [(Method::Encrypt, Code::Internal); 2]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_ends_is_answered_at_the_deadline() {
        let heard = Arc::new(Heard::default());
        let service = guarded(&heard, |_| std::future::pending());
        let began = tokio::time::Instant::now();
        let status = status_of(&service.call(encrypt()).await.unwrap());
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(began.elapsed().as_millis(), 2500);
        assert_eq!(*heard.refusals.lock().unwrap(), [Reason::Deadline]);
    }

    #[tokio::test]
    async fn a_call_whose_client_goes_away_counts_as_cancelled() {
        let heard = Arc::new(Heard::default());
        let service = guarded(&heard, |_| std::future::pending());
        drop(service.call(encrypt()));
        assert_eq!(
            *heard.requests.lock().unwrap(),
            [(Method::Encrypt, Code::Cancelled)]
        );
        assert_eq!(*heard.refusals.lock().unwrap(), []);
    }

    #[tokio::test]
    async fn a_refusal_counts_once_by_the_reason_that_the_service_gave() {
        let heard = Arc::new(Heard::default());
        let service = guarded(&heard, |_| async {
            let mut status = Status::not_found("no such key");
            let reason = MetadataValue::from_static(Reason::UnknownKey.as_str());
            status.metadata_mut().insert(REASON_METADATA, reason);
            status.into_http()
        });
        service.call(encrypt()).await.unwrap();
        assert_eq!(*heard.refusals.lock().unwrap(), [Reason::UnknownKey]);
        assert_eq!(
            *heard.requests.lock().unwrap(),
            [(Method::Encrypt, Code::NotFound)]
        );
    }

    #[tokio::test]
    async fn calls_beyond_the_limit_of_a_connection_are_shed() {
        let heard = Arc::new(Heard::default());
        let service = guarded(&heard, |_| std::future::pending());
        let mut running = Box::pin(service.call(encrypt()));
        assert!((&mut running).now_or_never().is_none());
        let status = status_of(&service.call(encrypt()).await.unwrap());
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(*heard.refusals.lock().unwrap(), [Reason::Overload]);
    }
}
