//! What is special about a keyring in a file: rows 66 to 68, 71, 73 and 76 to 81 of the faults.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "file_storage/backup.rs"]
mod backup;
#[path = "file_storage/bombs.rs"]
mod bombs;
#[path = "file_storage/copies.rs"]
mod copies;
#[path = "common/files.rs"]
mod files;
#[path = "common/folder.rs"]
mod folder;
#[path = "file_storage/members.rs"]
mod members;
#[path = "common/node.rs"]
#[expect(dead_code, reason = "nodes in memory are for other tests")]
mod node;
#[path = "common/not_run.rs"]
mod not_run;
#[path = "file_storage/owners.rs"]
mod owners;
#[path = "file_storage/places.rs"]
mod places;
#[path = "file_storage/tools.rs"]
mod tools;
