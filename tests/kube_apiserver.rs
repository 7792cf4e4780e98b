//! Claviger serves a real kube-apiserver on a real etcd. Whatever happens to the plugin, the cluster
//! does not notice; and nothing lies in etcd that could be read without our keys.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

#[path = "common/cluster.rs"]
mod cluster;
#[path = "kube_apiserver/cold_cache.rs"]
mod cold_cache;
#[path = "common/components.rs"]
mod components;
#[path = "kube_apiserver/compromised.rs"]
mod compromised;
#[path = "kube_apiserver/demo.rs"]
mod demo;
#[path = "kube_apiserver/destroy.rs"]
mod destroy;
#[path = "kube_apiserver/kills.rs"]
mod kills;
#[path = "kube_apiserver/members.rs"]
mod members;
#[path = "kube_apiserver/phases.rs"]
mod phases;
#[path = "common/port.rs"]
mod port;
#[path = "common/process.rs"]
mod process;
#[path = "kube_apiserver/readiness.rs"]
mod readiness;
#[path = "kube_apiserver/reload.rs"]
mod reload;
#[path = "kube_apiserver/restart.rs"]
mod restart;
#[path = "kube_apiserver/rotation.rs"]
mod rotation;
#[path = "common/serve.rs"]
mod serve;
#[path = "kube_apiserver/stand.rs"]
mod stand;
#[path = "kube_apiserver/stored.rs"]
mod stored;
#[path = "common/web.rs"]
mod web;
#[path = "kube_apiserver/writers.rs"]
mod writers;
