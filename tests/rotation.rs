//! Rotations that are killed, contested or run out of disk, under calls that never stop: what was
//! wrapped opens, no key id goes back, and no call fails but for a plugin that is not there.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

#[path = "common/components.rs"]
mod components;
#[path = "rotation/contest.rs"]
mod contest;
#[path = "rotation/disks.rs"]
mod disks;
#[path = "rotation/evidence.rs"]
mod evidence;
#[path = "rotation/kills.rs"]
mod kills;
#[path = "rotation/load.rs"]
mod load;
#[path = "common/process.rs"]
mod process;
#[expect(dead_code, reason = "others use more of it")]
#[path = "common/serve.rs"]
mod serve;
#[expect(dead_code, reason = "others use more of it")]
#[path = "common/web.rs"]
mod web;

use std::path::Path;

use process::{Process, command};

/// `claviger rotate`, which goes on by itself.
fn rotate(dir: &Path, arguments: &[&str]) -> Process {
    let mut rotate = command(env!("CARGO_BIN_EXE_claviger"));
    rotate.arg("--config").arg(dir.join("config.yaml"));
    rotate.arg("rotate").args(arguments);
    Process::start("claviger rotate", rotate)
}
