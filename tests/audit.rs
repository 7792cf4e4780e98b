//! `claviger audit` counts what protects what, exactly, whatever protects it; and never says that
//! nothing does over something that it could not read.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

#[path = "common/cluster.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod cluster;
#[path = "audit/clusters.rs"]
mod clusters;
#[path = "common/components.rs"]
mod components;
#[path = "audit/etcds.rs"]
mod etcds;
#[path = "audit/plaintext.rs"]
mod plaintext;
#[path = "common/port.rs"]
mod port;
#[path = "common/process.rs"]
mod process;
#[path = "audit/progress.rs"]
mod progress;
#[path = "audit/reach.rs"]
mod reach;
#[path = "common/serve.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod serve;
#[path = "audit/values.rs"]
mod values;
#[path = "audit/verify.rs"]
mod verify;
#[path = "common/web.rs"]
mod web;
