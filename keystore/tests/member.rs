//! What a member does at its start, and over time, with whatever its storage holds: rows 66, 67,
//! 72 to 75 and 79 of the faults. `file_storage.rs` has what is special about files.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "member/commits.rs"]
mod commits;
#[path = "common/folder.rs"]
mod folder;
#[path = "member/history.rs"]
mod history;
#[path = "common/node.rs"]
mod node;
#[path = "member/records.rs"]
mod records;
#[path = "member/refresh.rs"]
mod refresh;
#[path = "member/running.rs"]
mod running;
#[path = "member/start.rs"]
mod start;
