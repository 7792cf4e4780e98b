//! Rows 64, 65, 68, 69 and 70 of the faults: the real code under real faults of the system calls
//! that it makes, one after the other, by strace.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests"
)]

#[path = "crash/after.rs"]
mod after;
#[path = "crash/child.rs"]
mod child;
#[path = "crash/errors.rs"]
mod errors;
#[path = "common/folder.rs"]
mod folder;
#[path = "crash/full_disk.rs"]
mod full_disk;
#[path = "crash/kills.rs"]
mod kills;
#[path = "crash/life.rs"]
mod life;
#[path = "common/not_run.rs"]
mod not_run;
#[path = "crash/order.rs"]
mod order;
#[path = "crash/restore.rs"]
mod restore;
#[path = "crash/strace.rs"]
mod strace;
