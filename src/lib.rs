//! Claviger: a KMS v2 encryption plugin for Kubernetes.
//!
//! This crate is the process around the keystore: sockets, requests, metrics, commands. What
//! happens to keys is in `claviger-keystore`; `ARCHITECTURE.md` is the map.

pub mod app;
pub mod audit;
pub mod cli;
pub mod client;
pub mod config;
pub mod convergence;
pub mod encryption_config;
pub mod footprint;
pub mod hygiene;
pub mod keeper;
pub mod member_lock;
pub mod metrics;
pub mod metrics_server;
pub mod migrate;
pub mod notes;
pub mod observer;
pub mod probe;
pub mod publication;
pub mod rotator;
#[cfg(test)]
mod schema;
pub mod server;
pub mod service;
pub mod telemetry;
