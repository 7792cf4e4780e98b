//! The KMS v2 contract between kube-apiserver and Claviger, and what kube-apiserver stores.
//!
//! - [`v2`]: the service that a plugin serves on its unix socket, and its client.
//! - [`stored`]: the message that lies in etcd, for who counts what still needs a key.
//! - [`Codec`]: protobuf over gRPC with buffers that suit messages of about a hundred bytes.
//!
//! The code of both modules is generated and checked in, so a build needs no protobuf compiler; the
//! test `generated` compares it with the `.proto` files. Messages that can hold a seed wipe it when
//! dropped, and no message prints bytes: its `Debug` shows lengths, the uid and the key id.

mod codec;
mod redacted;
/// What kube-apiserver stores in etcd.
#[rustfmt::skip]
pub mod stored;
/// The service that a plugin serves.
#[rustfmt::skip]
#[expect(clippy::allow_attributes, clippy::too_many_lines, reason = "generated")]
pub mod v2;

pub use codec::Codec;
