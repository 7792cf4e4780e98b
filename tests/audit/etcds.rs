//! What the tests of `audit` do with an etcd, and the command itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use data_encoding::BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::Etcd;
use crate::process::folder;
use crate::web::Http;

/// Runs `claviger audit` without a configuration, whatever this machine has.
pub(crate) fn audit(arguments: &[&str]) -> Output {
    let mut claviger = Command::new(env!("CARGO_BIN_EXE_claviger"));
    for variable in ["ENDPOINTS", "CACERT", "CERT", "KEY"] {
        claviger.env_remove(format!("ETCDCTL_{variable}"));
    }
    claviger.arg("audit").args(arguments).output().unwrap()
}

/// The exit code and the answer of an audit.
pub(crate) struct Audited {
    pub(crate) code: i32,
    pub(crate) answer: Value,
    pub(crate) said: String,
}

impl Audited {
    pub(crate) fn of(output: &Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let answer = serde_json::from_slice(&output.stdout);
        Self {
            code: output.status.code().unwrap(),
            answer: answer.unwrap_or_else(|e| panic!("{e}: {output:?}")),
            said,
        }
    }

    /// Current and history of what is protected like this, all resources together.
    pub(crate) fn counts(&self, kind: &str, key: &str) -> (u64, u64) {
        let rows = self.answer["rows"].as_array().unwrap();
        let mut counts = (0, 0);
        for row in rows {
            let protection = &row["protection"];
            if protection["kind"] == kind && protection["key"].as_str().unwrap_or("") == key {
                counts.0 += row["current"].as_u64().unwrap();
                counts.1 += row["history"].as_u64().unwrap();
            }
        }
        counts
    }
}

/// An etcd alone, with what a test puts into it.
pub(crate) struct Store {
    pub(crate) etcd: Etcd,
    http: Http,
    dir: TempDir,
}

impl Store {
    /// `None` where etcd is not installed.
    pub(crate) fn start() -> Option<Self> {
        let dir = folder();
        let etcd = Etcd::start(dir.path())?;
        let http = gateway(&etcd);
        Some(Self { etcd, http, dir })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn put(&self, key: &str, value: &[u8]) {
        self.etcd.put(key, value);
    }

    pub(crate) fn delete(&self, key: &str) {
        let key = BASE64.encode(key.as_bytes());
        ask(&self.http, "/v3/kv/deleterange", &json!({ "key": key }));
    }

    /// Compacts everything up to now, and returns the revision.
    pub(crate) fn compact(&self) -> i64 {
        compact(&self.http)
    }

    /// Audits it, with these arguments as well.
    pub(crate) fn audit(&self, arguments: &[&str]) -> Audited {
        let url = self.etcd.url();
        let all = [&["--endpoints", &url, "-o", "json"], arguments].concat();
        Audited::of(&audit(&all))
    }
}

/// The JSON gateway of an etcd.
pub(crate) fn gateway(etcd: &Etcd) -> Http {
    let url = etcd.url();
    let port = url.rsplit(':').next().unwrap();
    Http::plain(port.parse().unwrap())
}

pub(crate) fn compact(http: &Http) -> i64 {
    let now = ask(http, "/v3/kv/range", &json!({ "key": "AA==" }));
    let revision = now["header"]["revision"].as_str().unwrap().to_owned();
    ask(
        http,
        "/v3/kv/compaction",
        &json!({ "revision": revision, "physical": true }),
    );
    revision.parse().unwrap()
}

fn ask(http: &Http, path: &str, request: &Value) -> Value {
    let answer = http.call("POST", path, "application/json", &request.to_string());
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// Writes a file and returns its path as an argument.
pub(crate) fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.into_os_string().into_string().unwrap()
}
