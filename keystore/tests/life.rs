//! The life of a keyring through the keystore: rotation, another keyring key, destruction, restore.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "life/destroy.rs"]
mod destroy;
#[path = "common/files.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod files;
#[path = "common/folder.rs"]
mod folder;
#[path = "common/node.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod node;
#[path = "life/rekey.rs"]
mod rekey;
#[path = "life/restore.rs"]
mod restore;
#[path = "life/roots.rs"]
mod roots;
#[path = "life/rotate.rs"]
mod rotate;
