//! What every key, every other provider and plaintext still protects: in a live etcd, in its old
//! revisions, and in snapshot files. Reads headers only, unless
//! asked to [`verify`], needs no key, and works on clusters that run
//! any plugin or none.
//!
//! - [`bolt`], [`snapshot`]: etcd's snapshot files
//! - `changes`: what etcd's history has since an earlier audit
//! - [`discovery`]: where the cluster's etcd is
//! - [`etcd`], [`keyspace`], `fetch`, `history`: a live etcd
//! - [`ledger`]: every object that an audit saw, in a file
//! - [`object`]: what one stored value says of itself
//! - [`scope`]: what should be protected otherwise
//! - [`subject`]: what a person means by `--key`
//! - [`tally`]: the counts
//! - [`verify`]: that objects of our keys open

pub mod bolt;
mod changes;
pub mod discovery;
pub mod etcd;
mod fetch;
mod history;
pub mod keyspace;
pub mod ledger;
pub mod object;
pub mod scope;
pub mod snapshot;
pub mod subject;
pub mod tally;
pub mod verify;
