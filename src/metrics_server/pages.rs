//! The three pages.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;

use crate::metrics::{self, Metrics};

/// What the pages are made of.
#[derive(Clone)]
pub struct Pages {
    metrics: Arc<Metrics>,
    ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

type Answer = Response<Full<Bytes>>;

impl Pages {
    /// `ready` says whether a request would be served now, or why not, in one line. It is asked at
    /// each `/readyz` and must not block.
    pub fn new(
        metrics: Arc<Metrics>,
        ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            metrics,
            ready: Arc::new(ready),
        }
    }

    pub(super) fn answer<B>(&self, request: &Request<B>) -> Result<Answer, Infallible> {
        let page: fn(&Self) -> Answer = match request.uri().path() {
            "/metrics" => Self::metrics,
            "/livez" => |_| text(StatusCode::OK, "ok"),
            "/readyz" => Self::ready,
            _ => |_| {
                text(
                    StatusCode::NOT_FOUND,
                    "there are /metrics, /livez and /readyz",
                )
            },
        };
        // hyper leaves the body of an answer to HEAD away.
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(page(self));
        }
        let mut answer = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered",
        );
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        Ok(answer)
    }

    fn metrics(&self) -> Answer {
        match self.metrics.text() {
            Ok(text) => page(StatusCode::OK, metrics::CONTENT_TYPE, text.into()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }

    fn ready(&self) -> Answer {
        match (self.ready)() {
            Ok(()) => text(StatusCode::OK, "ok"),
            Err(why) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                why.replace(['\r', '\n'], " "),
            ),
        }
    }
}

fn text(status: StatusCode, line: impl Display) -> Answer {
    page(
        status,
        "text/plain; charset=utf-8",
        format!("{line}\n").into(),
    )
}

fn page(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn pages(ready: Result<(), String>) -> Pages {
        let metrics = Metrics::new("2026-09-14T08:00:00Z".parse().unwrap(), || 0).unwrap();
        Pages::new(Arc::new(metrics), move || ready.clone())
    }

    fn ask(pages: &Pages, method: &str, target: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .body(())
            .unwrap();
        let answer = pages.answer(&request).unwrap();
        let status = answer.status().as_u16();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let body = runtime
            .block_on(answer.into_body().collect())
            .unwrap()
            .to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn pages_and_what_is_none() {
        let pages = pages(Ok(()));
        assert_eq!(ask(&pages, "GET", "/livez"), (200, "ok\n".into()));
        assert_eq!(ask(&pages, "GET", "/readyz?verbose"), (200, "ok\n".into()));
        let (status, text) = ask(&pages, "GET", "/metrics");
        assert_eq!(status, 200);
        assert!(text.contains("\nclaviger_build_info{"), "{text}");
        for none in [
            "/",
            "/metrics/",
            "//metrics",
            "/Metrics",
            "/debug",
            "/livez/x",
        ] {
            assert_eq!(ask(&pages, "GET", none).0, 404, "{none}");
        }
    }

    #[test]
    fn only_get_and_head() {
        let pages = pages(Ok(()));
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "BREW"] {
            assert_eq!(ask(&pages, method, "/metrics").0, 405, "{method}");
        }
        assert_eq!(ask(&pages, "HEAD", "/metrics").0, 200);
    }

    #[test]
    fn not_ready_gives_one_line_of_reason() {
        let pages = pages(Err("the keyring is not open:\r\nno slot opens".into()));
        let (status, text) = ask(&pages, "GET", "/readyz");
        assert_eq!(
            (status, text.as_str()),
            (503, "the keyring is not open:  no slot opens\n")
        );
        assert_eq!(ask(&pages, "GET", "/livez").0, 200);
    }
}
