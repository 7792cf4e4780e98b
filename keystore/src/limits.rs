//! How large a keyring may be. Errors quote these, so they stand below them.

/// The most bytes of a document. etcd refuses requests over 1.5 MiB.
pub const MAX_DOCUMENT_LEN: usize = 512 * 1024;

/// The most KEKs that one keyring keeps.
pub const MAX_KEYS: usize = 1000;
