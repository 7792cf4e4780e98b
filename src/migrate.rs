//! Rewriting what an old key, another provider or nothing protects: one empty patch for each object,
//! through kube-apiserver, which stores it anew under the key that it writes with now.
//!
//! ```text
//! keys in etcd ──▶ discovery: the object's path ──▶ rewrite: PATCH {} ──▶ a tally of outcomes
//!                                                      │ pace: so many in flight, so many a second,
//!                                                      │ and none while kube-apiserver says "later"
//! ```
//!
//! - [`kubeconfig`]: which cluster, and as whom
//! - `session`: who we are to kube-apiserver, and the connections to it
//! - [`api`]: the calls to kube-apiserver
//! - [`discovery`]: which resources it serves, and under which path an object lies
//! - [`stale`]: which objects these are
//! - [`rewrite`]: every stale object once
//! - [`rights`]: the ClusterRole that this needs
//!
//! Nothing in an object changes, and no secret is read: kube-apiserver is asked to answer with
//! metadata alone, and the answer is thrown away. Whether an object was rewritten, only an audit
//! proves; an apiserver that lags behind answers 200 and writes with the old key.

pub mod api;
pub mod discovery;
pub mod kubeconfig;
mod pace;
pub mod rewrite;
pub mod rights;
mod session;
pub mod stale;
