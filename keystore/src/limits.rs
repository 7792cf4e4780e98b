//! How large a keyring may be. Errors quote these, so they stand below them.

/// The most bytes of a document. etcd refuses requests over 1.5 MiB.
pub const MAX_DOCUMENT_LEN: usize = 512 * 1024;

/// The most KEKs whose bytes one keyring keeps. Tombstones are only bounded by the document's length.
pub const MAX_KEYS: usize = 1000;

/// The most bytes of a member's record: some 70 for each of its keys, in three lists.
pub const MAX_MEMBER_LEN: usize = 256 * 1024;
