//! Claviger's keys at rest, in memory and in time. It knows no gRPC, no commands, no metrics.
//!
//! ```text
//! root  ──wraps──▶  keyring key  ──seals──▶  KEKs  ──wrap──▶  seeds  ──encrypt──▶  objects in etcd
//! (outside)         (one slot per root)      (the keyring)    (kube-apiserver)
//! ```
//!
//! A root is asked when the keyring is opened, and then in the background; never by a request.
//! Changing a root touches a slot and no object. A remote root that is away stops nothing.
//!
//! # Layout
//!
//! From what everything uses to what uses everything; imports point up this list only:
//!
//! - `key_id`, `limits`: what errors may name
//! - [`error`]: every cause by its own name
//! - [`secret`]: 32 bytes in locked memory, and how others derive from them
//! - [`key`]: a KEK, and what the header says of it
//! - [`header`]: what the document says in the clear
//! - [`keyring`]: the immutable set of keys and its legal changes
//! - `xaes`: XAES-256-GCM
//! - [`envelope`]: one sealed seed
//! - [`document`]: the keyring as two lines of text
//! - [`durable`]: replacing a file so that a crash leaves one whole
//! - [`mark`], [`successor`]: what was seen, and what may follow it
//! - `proof`: that whoever held one keyring key made the next one
//! - [`member`]: what one running plugin tells the others
//! - [`merge`]: one keyring from several: restore, accepted rollback, fork
//! - [`rotation`]: what happens next, and what may; pure
//! - [`storage`]: where documents lie; [`root`]: what wraps the keyring key
//! - [`snapshot`]: what a request sees
//! - [`kube_object`]: an object in etcd, authenticated for an audit
//! - [`store`]: the [`Keystore`], which joins them
//! - [`testing`]: the contracts that storages and roots are held to
//!
//! # Guarantees
//!
//! - A key id is derived from its key, never used twice, and never goes back.
//! - No ciphertext leaves under a KEK that is not durable, nor before it was opened again.
//! - A keyring follows another only as its successor; an older or foreign one is refused.
//! - A failed change leaves the old keyring in memory and in the storage.

pub mod document;
pub mod durable;
pub mod envelope;
pub mod error;
pub mod header;
pub mod key;
mod key_id;
pub mod keyring;
pub mod kube_object;
mod limits;
pub mod mark;
pub mod member;
pub mod merge;
mod proof;
pub mod root;
pub mod rotation;
pub mod secret;
pub mod snapshot;
pub mod storage;
pub mod store;
pub mod successor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod vectors;
mod xaes;

pub use store::Keystore;
