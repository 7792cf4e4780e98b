//! The Grafana dashboard: made by its generator, in words that exist, and every query of it answered
//! by a real Prometheus beside a real cluster.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

#[expect(dead_code, reason = "others use more of it")]
#[path = "common/cluster.rs"]
mod cluster;
#[path = "common/components.rs"]
mod components;
#[path = "dashboard/keys.rs"]
mod keys;
#[path = "dashboard/model.rs"]
mod model;
#[path = "common/port.rs"]
mod port;
#[path = "common/process.rs"]
mod process;
#[path = "dashboard/prometheus.rs"]
mod prometheus;
#[path = "dashboard/queries.rs"]
mod queries;
#[expect(dead_code, reason = "others use more of it")]
#[path = "common/serve.rs"]
mod serve;
#[expect(dead_code, reason = "others use more of it")]
#[path = "kube_apiserver/stand.rs"]
mod stand;
#[path = "common/web.rs"]
mod web;
