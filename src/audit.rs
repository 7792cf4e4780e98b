//! What every key, every other provider and plaintext still protects: in a live etcd, in its old
//! revisions, and in snapshot files. Reads headers only, needs no key, and works on clusters that run
//! any plugin or none.
//!
//! - [`bolt`], [`snapshot`]: etcd's snapshot files
//! - [`etcd`], [`keyspace`], `fetch`, `history`: a live etcd
//! - [`ledger`]: every object that an audit saw, in a file
//! - [`object`]: what one stored value says of itself
//! - [`tally`]: the counts

pub mod bolt;
pub mod etcd;
mod fetch;
mod history;
pub mod keyspace;
pub mod ledger;
pub mod object;
pub mod snapshot;
pub mod tally;
