//! `/metrics`, `/livez` and `/readyz`: what stands there, who may ask, and whom nobody disturbs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

#[path = "common/components.rs"]
mod components;
#[path = "metrics/page.rs"]
mod page;
#[path = "metrics/prometheus.rs"]
mod prometheus;
#[path = "metrics/scrapers.rs"]
mod scrapers;
#[path = "metrics/socket.rs"]
mod socket;
#[path = "metrics/support.rs"]
mod support;
#[path = "metrics/tls.rs"]
mod tls;
