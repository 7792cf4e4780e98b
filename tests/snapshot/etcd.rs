//! An etcd that is written to, compacted and saved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::BASE64;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::components::component;
use crate::port::Port;
use crate::process::{Process, command};
use crate::web::Http;

/// How many operations one transaction may have.
const OPERATIONS: usize = 128;

/// By key: revision and value.
pub(crate) type Versions = BTreeMap<Vec<u8>, (i64, Vec<u8>)>;

pub(crate) struct Etcd {
    url: String,
    data: PathBuf,
    http: Http,
    process: Process,
    _ports: [Port; 2],
}

impl Etcd {
    /// Starts it in a folder and waits until it is well. `None` where it is not installed.
    pub(crate) fn start(dir: &Path, flags: &[&str]) -> Option<Self> {
        let ports = [Port::reserve(), Port::reserve()];
        let [url, peer] = ports
            .each_ref()
            .map(|port| format!("http://127.0.0.1:{}", port.number()));
        let data = dir.join("etcd");
        let mut etcd = command(component("etcd")?);
        etcd.arg("--data-dir").arg(&data);
        for (flag, value) in [
            ("--listen-client-urls", &url),
            ("--advertise-client-urls", &url),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &format!("default={peer}")),
        ] {
            etcd.arg(flag).arg(value);
        }
        // Nothing of a test has to survive a power loss.
        etcd.args([
            "--socket-reuse-port",
            "--unsafe-no-fsync",
            "--log-level",
            "warn",
        ]);
        etcd.args(flags);
        let process = Process::start("etcd", etcd);
        let http = Http::plain(ports[0].number());
        http.wait_for(&process, "/health", 200, "true");
        Some(Self {
            url,
            data,
            http,
            process,
            _ports: ports,
        })
    }

    /// Puts many keys, as many as possible with each revision.
    pub(crate) fn put(&self, pairs: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let pairs = pairs.into_iter().map(|(key, value)| {
            let put = json!({ "key": base64(key.as_bytes()), "value": base64(&value) });
            json!({ "requestPut": put })
        });
        let pairs: Vec<_> = pairs.collect();
        for some in pairs.chunks(OPERATIONS) {
            self.ask("txn", &json!({ "success": some }));
        }
    }

    /// Puts keys, each with a revision of its own.
    pub(crate) fn put_one_by_one(&self, pairs: impl IntoIterator<Item = (String, Vec<u8>)>) {
        for pair in pairs {
            self.put([pair]);
        }
    }

    /// Deletes a key, or all from it up to another one.
    pub(crate) fn delete(&self, key: &str, end: Option<&str>) {
        let end = end.unwrap_or_default().as_bytes();
        let range = json!({ "key": base64(key.as_bytes()), "range_end": base64(end) });
        let deleted = self.ask("deleterange", &range);
        assert_ne!(number(&deleted["deleted"]), 0, "nothing to delete: {key}");
    }

    /// Compacts, and waits until that is done.
    pub(crate) fn compact(&self, revision: i64) {
        self.ask(
            "compaction",
            &json!({ "revision": revision, "physical": true }),
        );
    }

    /// Orders a compaction, and does not wait for it.
    pub(crate) fn begin_to_compact(&self, revision: i64) {
        self.ask("compaction", &json!({ "revision": revision }));
    }

    /// The revision, and every key now.
    pub(crate) fn all(&self) -> (i64, Versions) {
        let everything = json!({ "key": base64(&[0]), "range_end": base64(&[0]) });
        let answer = self.ask("range", &everything);
        let bytes = |text: &Value| {
            let text = text.as_str().unwrap_or_default();
            BASE64.decode(text.as_bytes()).unwrap()
        };
        let pairs = answer["kvs"].as_array().map_or(&[][..], Vec::as_slice);
        let pairs = pairs.iter().map(|pair| {
            let version = (number(&pair["mod_revision"]), bytes(&pair["value"]));
            (bytes(&pair["key"]), version)
        });
        (number(&answer["header"]["revision"]), pairs.collect())
    }

    /// `etcdctl snapshot save`.
    pub(crate) fn save(&self, path: &Path) {
        let etcdctl = component("etcdctl").unwrap();
        let saved = Command::new(etcdctl)
            .args(["--endpoints", &self.url, "snapshot", "save"])
            .arg(path)
            .output()
            .unwrap();
        assert!(saved.status.success(), "{saved:?}");
    }

    /// Ends it, and returns the path of its database.
    pub(crate) fn stop_and_copy(mut self) -> PathBuf {
        self.process.signal(Signal::TERM);
        self.process.end();
        self.data.join("member/snap/db")
    }

    fn ask(&self, call: &str, request: &Value) -> Value {
        let path = format!("/v3/kv/{call}");
        let request = request.to_string();
        let answer = self.http.call("POST", &path, "application/json", &request);
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{call}: {:.600}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }
}

/// `etcdutl snapshot status`.
pub(crate) fn status(path: &Path) -> Value {
    let etcdutl = component("etcdutl").unwrap();
    let status = Command::new(etcdutl)
        .args(["snapshot", "status", "--write-out", "json"])
        .arg(path)
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
    serde_json::from_slice(&status.stdout).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// JSON of etcd has long numbers as text, and leaves out those that are 0.
fn number(value: &Value) -> i64 {
    value.as_str().map_or(0, |text| text.parse().unwrap())
}
