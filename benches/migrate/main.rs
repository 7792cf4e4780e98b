//! How fast `claviger migrate` moves Secrets through a real kube-apiserver, beside the way that
//! Kubernetes' documentation shows, `kubectl get … | kubectl replace -f -`, on the same Secrets.
//!
//! ```console
//! $ tests/components/install kube etcd && cargo bench --bench migrate
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a bench fails as tests do, and prints what it measured"
)]

#[path = "../../tests/common/cluster.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod cluster;
#[path = "../../tests/common/components.rs"]
mod components;
#[path = "../../tests/common/port.rs"]
mod port;
#[path = "../../tests/common/process.rs"]
mod process;
#[path = "../../tests/common/serve.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod serve;
#[path = "../../tests/migrate/stand.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod stand;
#[path = "../../tests/common/web.rs"]
mod web;

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use components::component;
use serde_json::json;
use stand::Stand;

/// How many Secrets there are.
const SECRETS: usize = 5_000;

fn main() {
    let (Some(kubectl), Some(stand)) = (component("kubectl"), Stand::start("write")) else {
        return;
    };
    thread::scope(|scope| {
        for writer in 0..4 {
            let stand = &stand;
            scope.spawn(move || (writer..SECRETS).step_by(4).for_each(|i| make(stand, i)));
        }
    });

    stand.rotate();
    stand.converged();
    let begun = Instant::now();
    let moved = stand.migrate(&stand.kubeconfig(), &[]).exits(0);
    let whole = begun.elapsed();
    let (rewritten, failed, left) = moved.counts();
    assert!(rewritten >= SECRETS as u64, "{moved:?}");
    assert_eq!((failed, left), (0, Some(0)));
    let ours = say("claviger migrate, both audits included", whole);

    stand.rotate();
    stand.converged();
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new(&kubectl);
        command.arg("--kubeconfig").arg(stand.kubeconfig());
        command.args(arguments).stderr(Stdio::inherit());
        command
    };
    let begun = Instant::now();
    let mut get = kubectl(&["get", "secrets", "-n", "default", "-o", "json"]);
    let mut get = get.stdout(Stdio::piped()).spawn().unwrap();
    let mut replace = kubectl(&["replace", "-f", "-"]);
    let replace = replace.stdin(get.stdout.take().unwrap());
    assert!(replace.stdout(Stdio::null()).status().unwrap().success());
    assert!(get.wait().unwrap().success());
    let theirs = say("kubectl get | kubectl replace", begun.elapsed());
    println!("ratio: {:.1}", ours / theirs);
}

fn make(stand: &Stand, i: usize) {
    let data = json!({
        "metadata": {"name": format!("secret-{i}")},
        "data": {"value": "bm90IGEgc2VjcmV0IGF0IGFsbCwgYnV0IGFzIGxvbmcgYXMgb25l"},
    });
    stand.post("/api/v1/namespaces/default/secrets", &data);
}

/// Says how fast that was, in Secrets a second.
fn say(what: &str, took: Duration) -> f64 {
    let rate = SECRETS as f64 / took.as_secs_f64();
    println!(
        "{what}: {SECRETS} Secrets in {:.1} s, {rate:.0} a second",
        took.as_secs_f64()
    );
    rate
}
