//! A plain HTTP client for metrics, etcd and kube-apiserver, and readers of what they answer.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::crypto::ring;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::process::{PATIENCE, Process};

/// Between two looks at what can only be asked.
const LOOK: Duration = Duration::from_millis(25);

/// A client of one server. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Http {
    agent: Agent,
    base: String,
    token: Option<String>,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Http {
    /// A client of a server on this loopback port.
    pub(crate) fn plain(port: u16) -> Self {
        Self {
            agent: agent(None),
            base: format!("http://127.0.0.1:{port}"),
            token: None,
        }
    }

    /// A client of a server that has this certificate, in PEM, and wants this token.
    pub(crate) fn tls(port: u16, certificate: &str, token: &str) -> Self {
        let certificate = Certificate::from_pem(certificate.as_bytes()).unwrap();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[certificate]))
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .build();
        let base = format!("https://127.0.0.1:{port}");
        Self {
            agent: agent(Some(tls)),
            base,
            token: Some(token.to_owned()),
        }
    }

    /// Asks once. No answer at all is an error.
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &str,
    ) -> Result<Answer, ureq::Error> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", content_type);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = match body {
            "" => self.agent.run(request.body(()).unwrap())?,
            body => self.agent.run(request.body(body).unwrap())?,
        };
        let status = response.status().as_u16();
        // A LIST of all that a test writes is larger than the client's usual limit.
        let body = response
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_string()?;
        Ok(Answer { status, body })
    }

    /// Asks for a page.
    pub(crate) fn get(&self, path: &str) -> Result<Answer, ureq::Error> {
        self.call("GET", path, "application/json", "")
    }

    /// Asks for a page that is there.
    pub(crate) fn page(&self, path: &str) -> String {
        let answer = self.get(path).unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    /// Asks for a page of this process until it has this status and this text in it, and returns it.
    pub(crate) fn wait_for(
        &self,
        process: &Process,
        path: &str,
        status: u16,
        text: &str,
    ) -> Answer {
        wait_until(&format!("{path} is answered {status} {text}"), || {
            process.must_run();
            let answer = self.get(path).ok()?;
            (answer.status == status && answer.body.contains(text)).then_some(answer)
        })
    }

    /// The metrics of this server now.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics(self.page("/metrics"))
    }
}

fn agent(tls: Option<TlsConfig>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(PATIENCE));
    match tls {
        Some(tls) => config.tls_config(tls).build().into(),
        None => config.build().into(),
    }
}

/// Looks again and again until there is something to see.
pub(crate) fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "it never happened that {what}");
        thread::sleep(LOOK);
    }
}

/// Metrics in Prometheus's text format.
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of a metric's samples that have all these labels; 0 where there are none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).map(|(_, value)| value).sum()
    }

    /// The values of one label of a metric's samples that have all these labels and are not 0.
    pub(crate) fn values(&self, name: &str, labels: &[(&str, &str)], label: &str) -> Vec<&str> {
        let present = self
            .samples(name, labels)
            .filter(|(_, value)| *value != 0.0);
        let start = format!("{label}=\"");
        present
            .filter_map(|(text, _)| text.split_once(&start)?.1.split('"').next())
            .collect()
    }

    /// Samples: the text of their labels, and their value. No label of ours has a quote in it.
    fn samples(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = (&str, f64)> {
        let labels: Vec<_> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        self.0.lines().filter_map(move |line| {
            let sample = line.strip_prefix(name)?;
            let (text, value) = match sample.strip_prefix('{') {
                Some(sample) => sample.split_once("} ")?,
                None => ("", sample.strip_prefix(' ')?),
            };
            labels
                .iter()
                .all(|label| text.contains(label))
                .then(|| (text, value.parse().unwrap()))
        })
    }
}
