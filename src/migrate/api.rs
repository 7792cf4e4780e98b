//! Calls to kube-apiserver: what it serves, and one empty patch for one object.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::timeout;

use super::session::{Pass, Session, SessionError};

/// The content type of a JSON merge patch (RFC 7396), of which `{}` changes nothing.
const MERGE_PATCH: &str = "application/merge-patch+json";

/// Metadata alone, so that no data of an object leaves kube-apiserver.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// The longest answer that is kept, in bytes: discovery of thousands of custom resources.
const LONGEST: usize = 64 << 20;

/// How long kube-apiserver may take for one answer: its own limit for a patch is 34 s, and 60 s for
/// anything else.
pub const TIMEOUT: Duration = Duration::from_secs(75);

/// A client of one cluster's kube-apiserver. Clones share its connections.
#[derive(Clone)]
pub struct Api {
    session: Arc<Session>,
    timeout: Duration,
}

/// What kube-apiserver answered to a call that it did not carry out, as the API's `Status` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Its message, on one line.
    pub message: String,
    /// When it wants to be asked again, if it says so.
    pub retry_after: Option<Duration>,
    /// Whether it names the object: a 404 without a name is about the resource.
    pub names_object: bool,
}

/// Why a call brought no answer at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// No connection: refused, no route, no TLS.
    #[error("{0}")]
    Unreachable(String),
    /// A connection, and no whole answer on it.
    #[error("{0}")]
    Broken(String),
    /// Nothing within [`TIMEOUT`].
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It was refused.
    #[error("{} {}", .0.status, .0.message)]
    Refused(Refusal),
    /// There was no answer.
    #[error("{0}")]
    NoAnswer(#[from] NoAnswer),
}

impl From<SessionError> for NoAnswer {
    fn from(error: SessionError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// What is asked of kube-apiserver.
struct Call<'a> {
    method: Method,
    path: &'a str,
    accept: &'static str,
    patch: Option<&'static [u8]>,
}

impl Api {
    /// A client that asks as this session says.
    pub(super) fn new(session: Session, timeout: Duration) -> Self {
        Self {
            session: Arc::new(session),
            timeout,
        }
    }

    /// The server's URL.
    pub fn server(&self) -> &str {
        self.session.server()
    }

    /// Reads a page.
    ///
    /// # Errors
    /// Where it is refused, or there is no whole answer.
    pub async fn get(&self, path: &str, accept: &'static str) -> Result<Bytes, CallError> {
        let call = Call {
            method: Method::GET,
            path,
            accept,
            patch: None,
        };
        self.call(call, |body| async {
            let whole = Limited::new(body, LONGEST).collect().await;
            whole.map(http_body_util::Collected::to_bytes)
        })
        .await
    }

    /// Has the object at this path stored anew, without a change.
    ///
    /// # Errors
    /// Where it is refused, or there is no whole answer; then it may have been stored all the same.
    pub async fn rewrite(&self, path: &str) -> Result<(), CallError> {
        let call = Call {
            method: Method::PATCH,
            path,
            accept: METADATA,
            patch: Some(b"{}"),
        };
        // What it answers is thrown away as it comes, but read to its end: only then is the
        // connection free for the next call.
        self.call(call, |mut body| async move {
            while let Some(frame) = body.frame().await {
                frame?;
            }
            Ok(())
        })
        .await
    }

    async fn call<T, F>(
        &self,
        call: Call<'_>,
        read: impl FnOnce(Incoming) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Box<dyn Error + Send + Sync>>>,
    {
        let exchange = async {
            let answer = self.answer(&call).await?;
            if answer.status().is_success() {
                let read = read(answer.into_body()).await;
                return read.map_err(|error| NoAnswer::Broken(cause(&*error)).into());
            }
            Err(CallError::Refused(refusal(answer).await?))
        };
        match timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(NoAnswer::Late(self.timeout).into()),
        }
    }

    /// The answer; where kube-apiserver does not know us, the one to who we are by now.
    async fn answer(&self, call: &Call<'_>) -> Result<Response<Incoming>, NoAnswer> {
        let pass = self.session.pass(Timestamp::now()).await?;
        let answer = self.send(call, &pass).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        match self.session.after_refusal(&pass).await? {
            Some(renewed) => self.send(call, &renewed).await,
            None => Ok(answer),
        }
    }

    async fn send(&self, call: &Call<'_>, pass: &Pass) -> Result<Response<Incoming>, NoAnswer> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.session.server(), call.path))
            .body(Full::from(call.patch.unwrap_or_default()))
            .map_err(|error| NoAnswer::Broken(error.to_string()))?;
        let headers = request.headers_mut();
        headers.extend(self.session.headers().clone());
        let agent = concat!("claviger/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(header::ACCEPT, HeaderValue::from_static(call.accept));
        if call.patch.is_some() {
            let patch = HeaderValue::from_static(MERGE_PATCH);
            headers.insert(header::CONTENT_TYPE, patch);
        }
        if let Some(authorization) = &pass.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let answer = pass.http.request(request).await;
        answer.map_err(|error| no_answer(&error))
    }
}

/// The API's `Status`, as far as it says why.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    name: String,
    retry_after_seconds: u64,
}

async fn refusal(answer: Response<Incoming>) -> Result<Refusal, NoAnswer> {
    let (parts, body) = answer.into_parts();
    let whole = Limited::new(body, LONGEST).collect().await;
    let bytes = whole
        .map_err(|error| NoAnswer::Broken(cause(&*error)))?
        .to_bytes();
    Ok(read_refusal(parts.status, &parts.headers, &bytes))
}

fn read_refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let said: Status = serde_json::from_slice(body).unwrap_or_else(|_| Status {
        // What stands before kube-apiserver, a load balancer for example, answers in its own words.
        message: String::from_utf8_lossy(body).into_owned(),
        ..Status::default()
    });
    let after = headers.get(header::RETRY_AFTER);
    let after = after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let after = after.or(match said.details.retry_after_seconds {
        0 => None,
        seconds => Some(seconds),
    });
    Refusal {
        status: status.as_u16(),
        message: one_line(&said.message, status),
        retry_after: after.map(Duration::from_secs),
        names_object: !said.details.name.is_empty(),
    }
}

/// The most of a message that is shown, in characters.
const LONGEST_MESSAGE: usize = 500;

fn one_line(message: &str, status: StatusCode) -> String {
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = words
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_MESSAGE)
        .collect();
    if shown.is_empty() {
        return status
            .canonical_reason()
            .unwrap_or("no reason given")
            .to_owned();
    }
    shown
}

fn no_answer(error: &legacy::Error) -> NoAnswer {
    match error.is_connect() {
        true => NoAnswer::Unreachable(cause(error)),
        false => NoAnswer::Broken(cause(error)),
    }
}

/// What lies at the bottom of an error: `connection refused`, not `client error (Connect)`.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(deeper) = deepest.source() {
        deepest = deeper;
    }
    match deepest.downcast_ref::<io::Error>() {
        Some(error) => match error.get_ref() {
            Some(inner) => inner.to_string(),
            None => error.to_string(),
        },
        None => deepest.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Refusal {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        read_refusal(StatusCode::from_u16(status).unwrap(), &map, body.as_bytes())
    }

    #[test]
    fn a_status_is_read() {
        let body = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
            "message":"secrets \"db\" not found","reason":"NotFound",
            "details":{"name":"db","kind":"secrets"},"code":404}"#;
        let refusal = read(404, &[], body);
        assert_eq!(refusal.message, "secrets \"db\" not found");
        assert!(refusal.names_object);
        assert_eq!(refusal.retry_after, None);
    }

    #[test]
    fn the_wait_is_the_headers_else_the_bodys() {
        let body = r#"{"kind":"Status","message":"busy","details":{"retryAfterSeconds":7}}"#;
        let seconds = |refusal: Refusal| refusal.retry_after.map(|after| after.as_secs());
        assert_eq!(seconds(read(429, &[("retry-after", "3")], body)), Some(3));
        assert_eq!(seconds(read(429, &[], body)), Some(7));
        let date = [("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")];
        assert_eq!(seconds(read(429, &date, body)), Some(7));
        assert_eq!(seconds(read(429, &date, "{}")), None);
    }

    #[test]
    fn what_is_no_status_is_shown_as_it_is() {
        let page = "<html>\n<h1>502</h1>\u{1b}[31m\n</html>";
        assert_eq!(
            read(502, &[], page).message,
            "<html> <h1>502</h1>[31m </html>"
        );
        assert_eq!(read(502, &[], "").message, "Bad Gateway");
        assert!(!read(404, &[], "404 page not found").names_object);
        assert_eq!(
            read(500, &[], &"long ".repeat(1000)).message.len(),
            LONGEST_MESSAGE
        );
    }
}
