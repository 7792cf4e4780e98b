//! Every query of the dashboard, asked while a plugin serves a cluster.

use std::fs;
use std::net::SocketAddr;

use claviger_proto::v2::DecryptRequest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::Kind;
use crate::model::{self, Choice};
use crate::process::folder;
use crate::prometheus::{Prometheus, serve_file};
use crate::serve::answer;
use crate::stand::Stand;

/// A cluster, and the Prometheus that scrapes its plugin, its kube-apiserver and its last audit.
struct Watched {
    prometheus: Prometheus,
    stand: Stand,
    node: String,
    _dir: TempDir,
}

impl Watched {
    fn start() -> Option<Self> {
        let stand = Stand::start()?;
        let dir = folder();
        let textfile = dir.path().join("claviger.prom");
        let kept = textfile.to_str().unwrap();
        let api = stand.apiserver.api();
        api.create(Kind::Secret, "counted", "value").is(201);
        let etcd = stand.etcd.url();
        answer(
            stand.claviger.dir(),
            &["audit", "--endpoints", &etcd, "--textfile", kept],
        );
        let node = fs::read_to_string(stand.claviger.dir().join("metrics.addr")).unwrap();
        let node = node.trim().to_owned();
        let config = scrapes(&stand, &node, serve_file(textfile));
        let prometheus = Prometheus::start(dir.path(), &config)?;
        Some(Self {
            prometheus,
            stand,
            node,
            _dir: dir,
        })
    }

    /// What an administrator and an apiserver do, and a stranger.
    fn is_used(&self) {
        let (stand, dir) = (&self.stand, self.stand.claviger.dir());
        let created = stand.apiserver.api().create(Kind::Secret, "seen", "value");
        created.is(201);
        let backup = dir.join("backup").to_str().unwrap().to_owned();
        answer(dir, &["backup", "--out", &backup]);
        let recovery = dir.join("recovery.key").to_str().unwrap().to_owned();
        answer(
            dir,
            &["slot", "test", "recovery", "--recovery-key", &recovery],
        );
        let foreign = DecryptRequest {
            ciphertext: vec![7; 100],
            uid: "a test".to_owned(),
            key_id: "of-somebody-else".to_owned(),
            annotations: Default::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let refused = runtime.block_on(async { stand.claviger.client().decrypt(foreign).await });
        assert!(refused.is_err());
    }
}

fn scrapes(stand: &Stand, node: &str, audit: SocketAddr) -> Value {
    let kubeconfig = stand.kubeconfig();
    let files = kubeconfig.parent().unwrap();
    let kubeconfig: Value = serde_json::from_slice(&fs::read(&kubeconfig).unwrap()).unwrap();
    let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str();
    let server = server.unwrap().strip_prefix("https://").unwrap();
    let targets = |target: &str| json!([{"targets": [target], "labels": {"cluster": "prod"}}]);
    json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/claviger.rules.yaml")],
        "scrape_configs": [
            {"job_name": "claviger", "static_configs": targets(node)},
            {"job_name": "node", "static_configs": targets(&audit.to_string())},
            {
                "job_name": "apiserver",
                "scheme": "https",
                "authorization": {"credentials": &kubeconfig["users"][0]["user"]["token"]},
                "tls_config": {"ca_file": files.join("tls.crt")},
                "static_configs": targets(server),
            },
        ],
    })
}

#[test]
fn prometheus_answers_every_query() {
    let Some(watched) = Watched::start() else {
        return;
    };
    let prometheus = &watched.prometheus;
    // A rate sees what happens after the first scrape.
    for job in ["claviger", "node", "apiserver"] {
        prometheus.series(&format!("up{{job=\"{job}\"}} == 1"));
    }
    watched.is_used();

    let one = Choice {
        cluster: "prod",
        job: "claviger",
        node: &watched.node,
    };
    let choices = model::choices();
    assert_eq!(choices.len(), 3, "{choices:?}");
    for choice in [Choice::ALL, one] {
        for query in model::queries() {
            prometheus.series(&choice.in_place(&query));
        }
        for (metric, label) in &choices {
            let metric = choice.in_place(metric);
            let values = prometheus.series(&format!("count by ({label}) ({metric})"));
            assert_eq!(values.len(), 1, "{values:?}");
            assert!(values[0]["metric"][label].is_string(), "{values:?}");
        }
    }
}
