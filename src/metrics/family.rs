//! One metric family: its name, type, labels and help, and its samples.

use std::collections::HashMap;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{HistogramOpts, Opts, Result};

/// What a family is called and what it means. All of them stand in [`super::names`].
#[derive(Debug)]
pub struct Family {
    /// The full name.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricType,
    /// The label names; the values of each are a closed set or bounded by the configuration.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// The label values of a sample, in the order of [`Family::labels`], and its value.
pub(super) type Sample = (Vec<String>, f64);

/// 1 or 0.
pub(super) fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

/// Seconds since the Unix epoch.
pub(super) fn seconds(date: Timestamp) -> f64 {
    date.as_duration().as_secs_f64()
}

impl Family {
    pub(super) fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    pub(super) fn histogram_opts(&self, buckets: &[f64]) -> HistogramOpts {
        HistogramOpts::new(self.name, self.help).buckets(buckets.to_vec())
    }

    fn desc(&self) -> Result<Desc> {
        let labels = self.labels.iter().map(ToString::to_string).collect();
        Desc::new(
            self.name.to_owned(),
            self.help.to_owned(),
            labels,
            HashMap::new(),
        )
    }

    /// The family with these samples. Without any it does not appear at all.
    pub(super) fn with(&self, samples: impl IntoIterator<Item = Sample>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(
            samples
                .into_iter()
                .map(|sample| self.metric(sample))
                .collect(),
        );
        family
    }

    /// The family with one sample that has no labels, or with none.
    pub(super) fn value(&self, value: Option<f64>) -> MetricFamily {
        self.with(value.map(|value| (Vec::new(), value)))
    }

    fn metric(&self, (values, value): Sample) -> Metric {
        let pairs = self.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value);
            pair
        });
        let mut metric = Metric::default();
        metric.set_label(pairs.collect());
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }
}

/// Families that change together: a scrape sees all of one change or nothing of it, and a series
/// that is no longer given is gone.
pub(super) struct Group {
    descs: Vec<Desc>,
    families: ArcSwap<Vec<MetricFamily>>,
}

impl Group {
    pub(super) fn new(families: &[&Family]) -> Result<Self> {
        let descs = families
            .iter()
            .map(|family| family.desc())
            .collect::<Result<_>>()?;
        Ok(Self {
            descs,
            families: ArcSwap::default(),
        })
    }

    pub(super) fn set(&self, families: Vec<MetricFamily>) {
        self.families.store(families.into());
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.families.load().to_vec()
    }
}

/// A group as the registry takes it.
pub(super) struct Registered(pub(super) std::sync::Arc<Group>);

impl Collector for Registered {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.collect()
    }
}

/// Families whose values are read when they are asked for.
pub(super) struct Read<F> {
    descs: Vec<Desc>,
    read: F,
}

impl<F> Read<F>
where
    F: Fn() -> Vec<MetricFamily> + Send + Sync,
{
    pub(super) fn new(families: &[&Family], read: F) -> Result<Self> {
        let descs = families
            .iter()
            .map(|family| family.desc())
            .collect::<Result<_>>()?;
        Ok(Self { descs, read })
    }
}

impl<F> Collector for Read<F>
where
    F: Fn() -> Vec<MetricFamily> + Send + Sync,
{
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.read)()
    }
}
