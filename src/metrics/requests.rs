//! What happens on the KMS socket, counted. Every series exists from the start, at zero, and the
//! request path finds its own by an index: no look-up of labels, no lock.

use std::time::Duration;

use claviger_keystore::key::KeyId;
use jiff::Timestamp;
use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, Result,
};
use tonic::Code;

use super::Metrics;
use super::family::{Family, Read, seconds};
use super::names::{
    ACCEPT_ERRORS, CONNECTIONS, PANICS, PEER_REJECTED, REFUSALS, REQUEST_DURATION, REQUESTS,
    SOCKET_RESTORED, STATUS_LAST,
};
use crate::observer::{AcceptError, Method, Observer, Reason, Rejection};

/// Upper bounds of the histogram, in seconds: from what one sealing costs to the 3 s after which
/// kube-apiserver gives a call up.
const BUCKETS: &[f64] = &[
    0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
    0.1, 0.2, 0.5, 1.0, 2.0, 3.0,
];

/// The canonical names of the gRPC codes, in the order of their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub(super) struct Requests {
    by_method: Vec<OfMethod>,
    refusals: Vec<IntCounter>,
    status_last: Gauge,
    panics: IntCounter,
    connections: IntGauge,
    peer_rejected: Vec<IntCounter>,
    accept_errors: Vec<IntCounter>,
    socket_restored: IntCounter,
}

struct OfMethod {
    by_code: Vec<IntCounter>,
    duration: Histogram,
}

impl Requests {
    pub(super) fn register(registry: &Registry) -> Result<Self> {
        Ok(Self {
            by_method: by_method(registry)?,
            refusals: counters(registry, &REFUSALS, Reason::ALL.iter().map(|r| r.as_str()))?,
            status_last: status_last(registry)?,
            panics: registered(registry, IntCounter::with_opts(PANICS.opts())?)?,
            connections: registered(registry, IntGauge::with_opts(CONNECTIONS.opts())?)?,
            peer_rejected: {
                let reasons = Rejection::ALL.iter().map(|r| r.as_str());
                counters(registry, &PEER_REJECTED, reasons)?
            },
            accept_errors: {
                let errors = AcceptError::ALL.iter().map(|e| e.as_str());
                counters(registry, &ACCEPT_ERRORS, errors)?
            },
            socket_restored: {
                registered(registry, IntCounter::with_opts(SOCKET_RESTORED.opts())?)?
            },
        })
    }

    fn count_request(&self, method: Method, code: Code, elapsed: Duration) {
        if let Some(of_method) = self.by_method.get(method as usize) {
            count(&of_method.by_code, code as usize);
            of_method.duration.observe(elapsed.as_secs_f64());
        }
    }
}

/// A date that never was is no series, rather than 1970: an alert on its age would fire at every start.
fn status_last(registry: &Registry) -> Result<Gauge> {
    let gauge = Gauge::with_opts(STATUS_LAST.opts())?;
    let date = gauge.clone();
    let read = move || {
        let date = Some(date.get()).filter(|date| *date > 0.0);
        vec![STATUS_LAST.value(date)]
    };
    registry.register(Box::new(Read::new(&[&STATUS_LAST], read)?))?;
    Ok(gauge)
}

impl Metrics {
    /// A Status call was answered at `now`.
    pub fn status_answered_at(&self, now: Timestamp) {
        self.requests.status_last.set(seconds(now));
    }
}

impl Observer for Metrics {
    fn request(&self, method: Method, code: Code, elapsed: Duration) {
        self.requests.count_request(method, code, elapsed);
    }

    fn refused(&self, reason: Reason) {
        count(&self.requests.refusals, reason as usize);
    }

    fn status_answered(&self, _: &KeyId) {
        // The one wall clock of the request path: the metric is a date by its contract.
        self.status_answered_at(Timestamp::now());
    }

    fn connection_opened(&self) {
        self.requests.connections.inc();
    }

    fn connection_closed(&self) {
        self.requests.connections.dec();
    }

    fn peer_rejected(&self, rejection: Rejection) {
        count(&self.requests.peer_rejected, rejection as usize);
    }

    fn accept_error(&self, error: AcceptError) {
        count(&self.requests.accept_errors, error as usize);
    }

    fn panic_caught(&self) {
        self.requests.panics.inc();
    }

    fn socket_restored(&self) {
        self.requests.socket_restored.inc();
    }
}

fn by_method(registry: &Registry) -> Result<Vec<OfMethod>> {
    let requests = IntCounterVec::new(REQUESTS.opts(), REQUESTS.labels)?;
    let requests = registered(registry, requests)?;
    let opts = REQUEST_DURATION.histogram_opts(BUCKETS);
    let durations = registered(registry, HistogramVec::new(opts, REQUEST_DURATION.labels)?)?;
    let of_method = |method: &Method| {
        let method = method.as_str();
        let of_code = |code| requests.get_metric_with_label_values(&[method, code]);
        Ok(OfMethod {
            by_code: CODES.into_iter().map(of_code).collect::<Result<_>>()?,
            duration: durations.get_metric_with_label_values(&[method])?,
        })
    };
    Method::ALL.iter().map(of_method).collect()
}

/// One counter for each value of the family's only label, in the order of `values`.
fn counters<'a>(
    registry: &Registry,
    family: &Family,
    values: impl Iterator<Item = &'a str>,
) -> Result<Vec<IntCounter>> {
    let counters = registered(registry, IntCounterVec::new(family.opts(), family.labels)?)?;
    values
        .map(|value| counters.get_metric_with_label_values(&[value]))
        .collect()
}

fn registered<C>(registry: &Registry, collector: C) -> Result<C>
where
    C: prometheus::core::Collector + Clone + 'static,
{
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn count(counters: &[IntCounter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testing::{metrics, value};

    #[test]
    fn codes_have_their_canonical_names() {
        for (number, name) in (0..).zip(CODES) {
            // tonic's Debug is the name in camel case.
            let said = format!("{:?}", Code::from_i32(number));
            assert_eq!(said.to_uppercase(), name.replace('_', ""));
        }
    }

    #[test]
    fn each_event_moves_its_own_series() {
        let metrics = metrics();
        for (i, method) in Method::ALL.iter().enumerate() {
            assert_eq!(*method as usize, i, "the index is the place in ALL");
            for number in 0..17 {
                let code = Code::from_i32(number);
                for _ in 0..=(number as usize + i) {
                    metrics.request(*method, code, Duration::from_micros(15));
                }
                let series = format!(
                    r#"claviger_requests_total{{code="{}",method="{}"}}"#,
                    CODES[number as usize],
                    method.as_str()
                );
                assert_eq!(
                    value(&metrics, &series),
                    Some((number as usize + i + 1) as f64),
                    "{series}"
                );
            }
        }
        for (i, reason) in Reason::ALL.iter().enumerate() {
            (0..=i).for_each(|_| metrics.refused(*reason));
            let series = format!(r#"claviger_refusals_total{{reason="{}"}}"#, reason.as_str());
            assert_eq!(value(&metrics, &series), Some((i + 1) as f64), "{series}");
        }
        for (i, reason) in Rejection::ALL.iter().enumerate() {
            (0..=i).for_each(|_| metrics.peer_rejected(*reason));
            let series = format!(
                r#"claviger_peer_rejected_total{{reason="{}"}}"#,
                reason.as_str()
            );
            assert_eq!(value(&metrics, &series), Some((i + 1) as f64), "{series}");
        }
        for (i, error) in AcceptError::ALL.iter().enumerate() {
            (0..=i).for_each(|_| metrics.accept_error(*error));
            let series = format!(
                r#"claviger_accept_errors_total{{error="{}"}}"#,
                error.as_str()
            );
            assert_eq!(value(&metrics, &series), Some((i + 1) as f64), "{series}");
        }
    }

    #[test]
    fn plain_series() {
        let metrics = metrics();
        metrics.connection_opened();
        metrics.connection_opened();
        metrics.connection_closed();
        metrics.panic_caught();
        metrics.socket_restored();
        metrics.socket_restored();
        let last = "claviger_status_last_timestamp_seconds";
        assert_eq!(value(&metrics, last), None);
        metrics.status_answered_at("2026-09-14T08:00:00.25Z".parse().unwrap());
        assert_eq!(value(&metrics, last), Some(1_789_372_800.25));
        assert_eq!(value(&metrics, "claviger_connections"), Some(1.0));
        assert_eq!(value(&metrics, "claviger_panics_total"), Some(1.0));
        assert_eq!(value(&metrics, "claviger_socket_restored_total"), Some(2.0));
    }

    #[test]
    fn a_duration_falls_into_its_bucket() {
        let metrics = metrics();
        metrics.request(Method::Encrypt, Code::Ok, Duration::from_micros(15));
        metrics.request(Method::Encrypt, Code::Ok, Duration::from_secs(60));
        let bucket = |le: &str| {
            let series = "claviger_request_duration_seconds_bucket";
            value(
                &metrics,
                &format!(r#"{series}{{method="Encrypt",le="{le}"}}"#),
            )
        };
        assert_eq!(bucket("0.00001"), Some(0.0));
        assert_eq!(bucket("0.00002"), Some(1.0));
        assert_eq!(bucket("3"), Some(1.0));
        assert_eq!(bucket("+Inf"), Some(2.0));
        let sum = value(
            &metrics,
            r#"claviger_request_duration_seconds_sum{method="Encrypt"}"#,
        );
        assert_eq!(sum, Some(60.000_015));
    }
}
