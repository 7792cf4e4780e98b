//! Metrics: what is counted, under which names, and how it reads in Prometheus's text format.
//!
//! | module | has |
//! |---|---|
//! | [`names`] | every metric: name, type, labels, help |
//! | `requests` | what happens on the KMS socket (the server's `Observer`) |
//! | `keyring` | the keyring and its keys |
//! | `life` | a rotation, the last backup and the last use of a recovery key |
//! | `roots` | the roots |
//! | `process` | figures of this process |
//!
//! Label values are closed sets, the names of configured roots, or key ids (at most as many as a
//! keyring may hold), so no peer can make series grow.

use std::sync::Arc;

use jiff::Timestamp;
use prometheus::{Encoder, Registry, Result, TextEncoder};

mod family;
mod keyring;
mod life;
pub mod names;
mod process;
mod requests;
mod roots;

pub use family::Family;
pub use keyring::Condition;
pub use roots::{RootFacts, RootState};

use family::{Group, Read, Registered};
use requests::Requests;

/// The `Content-Type` of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is counted in this process. There is one, shared; all methods take `&self`.
pub struct Metrics {
    registry: Registry,
    requests: Requests,
    keyring: Arc<Group>,
    roots: Arc<Group>,
    rotation: Arc<Group>,
    done: Arc<Group>,
}

impl Metrics {
    /// All metrics at zero, of a process that started at `started`. `dropped_log_lines` is asked
    /// at each scrape.
    ///
    /// # Errors
    /// Only if two metrics have one name, which a test excludes.
    pub fn new(
        started: Timestamp,
        dropped_log_lines: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            requests: Requests::register(&registry)?,
            keyring: group(&registry, keyring::KEYRING)?,
            roots: group(&registry, roots::ROOTS)?,
            rotation: group(&registry, life::ROTATION)?,
            done: group(&registry, life::DONE)?,
            registry,
        };
        metrics.register_process(started, dropped_log_lines)?;
        metrics.keyring_closed(Condition::Starting);
        Ok(metrics)
    }

    /// All metrics in Prometheus's text format, version 0.0.4.
    ///
    /// # Errors
    /// Only if a family is not one, which a test excludes.
    pub fn text(&self) -> Result<Vec<u8>> {
        let mut text = Vec::with_capacity(32 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn register_process(
        &self,
        started: Timestamp,
        dropped_log_lines: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<()> {
        let build = move || {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            vec![
                names::BUILD.with([(vec![version], 1.0)]),
                names::LOG_LINES_DROPPED.value(Some(dropped_log_lines() as f64)),
            ]
        };
        let build = Read::new(&[&names::BUILD, &names::LOG_LINES_DROPPED], build)?;
        self.registry.register(Box::new(build))?;
        let process = Read::new(process::FAMILIES, move || process::read(started))?;
        self.registry.register(Box::new(process))
    }
}

fn group(registry: &Registry, families: &[&Family]) -> Result<Arc<Group>> {
    let group = Arc::new(Group::new(families)?);
    registry.register(Box::new(Registered(group.clone())))?;
    Ok(group)
}

#[cfg(test)]
mod testing {
    //! What the tests of several modules need.

    use super::Metrics;

    pub(super) fn metrics() -> Metrics {
        Metrics::new("2026-09-14T08:00:00Z".parse().unwrap(), || 7).unwrap()
    }

    /// The series whose text in the text format begins so, with their values.
    pub(super) fn series(metrics: &Metrics, prefix: &str) -> Vec<(String, f64)> {
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        let samples = text.lines().filter(|line| line.starts_with(prefix));
        let samples = samples.map(|line| line.rsplit_once(' ').unwrap());
        samples
            .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// The value of one series, written as in the text format.
    pub(super) fn value(metrics: &Metrics, wanted: &str) -> Option<f64> {
        let mut found = series(metrics, wanted);
        found.retain(|(series, _)| series == wanted);
        assert!(found.len() < 2, "{wanted} stands there twice");
        found.pop().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{metrics, value};

    #[test]
    fn what_is_read_at_each_scrape() {
        let metrics = metrics();
        assert_eq!(
            value(&metrics, "claviger_log_lines_dropped_total"),
            Some(7.0)
        );
        assert_eq!(
            value(&metrics, "process_start_time_seconds"),
            Some(1_789_372_800.0)
        );
        let build = format!(
            r#"claviger_build_info{{version="{}"}}"#,
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(value(&metrics, &build), Some(1.0));
    }

    #[test]
    fn before_the_keyring_was_read() {
        let metrics = metrics();
        assert_eq!(value(&metrics, "claviger_keyring_open"), Some(0.0));
        let starting = r#"claviger_keyring_condition{condition="starting"}"#;
        assert_eq!(value(&metrics, starting), Some(1.0));
        assert_eq!(value(&metrics, "claviger_keyring_revision"), None);
    }
}
