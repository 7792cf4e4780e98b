//! A real cluster on loopback: etcd, and kube-apiservers on it. It has no nodes, and needs none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::components::component;
use crate::port::Port;
use crate::process::{Process, command};
use crate::web::{Answer, Http, Metrics};

/// What the tests' administrator shows to kube-apiserver.
const TOKEN: &str = "a-token-of-the-tests";

/// etcd, alone.
pub(crate) struct Etcd {
    port: Port,
    http: Http,
    process: Process,
}

impl Etcd {
    /// Starts it in a folder and waits until it is well. `None` where etcd is not installed.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        let (port, peers) = (Port::reserve(), Port::reserve());
        let url = format!("http://127.0.0.1:{}", port.number());
        let peer_url = format!("http://127.0.0.1:{}", peers.number());
        let mut etcd = command(component("etcd")?);
        etcd.arg("--data-dir").arg(dir.join("etcd"));
        etcd.args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ]);
        etcd.args([
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
        ]);
        etcd.args(["--initial-cluster", &format!("default={peer_url}")]);
        // Nothing of a test has to survive a power loss.
        etcd.args([
            "--socket-reuse-port",
            "--unsafe-no-fsync",
            "--log-level",
            "warn",
        ]);
        let process = Process::start("etcd", etcd);
        let http = Http::plain(port.number());
        http.wait_for(&process, "/health", 200, "true");
        Some(Self {
            port,
            http,
            process,
        })
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// The bytes that lie under a key.
    pub(crate) fn value(&self, key: &str) -> Vec<u8> {
        let answer = self.ask("range", &json!({ "key": BASE64.encode(key.as_bytes()) }));
        let value = answer["kvs"][0]["value"]
            .as_str()
            .unwrap_or_else(|| panic!("{key} is absent"));
        BASE64.decode(value.as_bytes()).unwrap()
    }

    /// Puts bytes under a key.
    pub(crate) fn put(&self, key: &str, value: &[u8]) {
        let key = BASE64.encode(key.as_bytes());
        self.ask("put", &json!({ "key": key, "value": BASE64.encode(value) }));
    }

    /// Drops every version of a value but the newest, as kube-apiserver has it do every 5 minutes.
    pub(crate) fn compact(&self) {
        let answer = self.ask("range", &json!({ "key": BASE64.encode(b"x") }));
        let revision = &answer["header"]["revision"];
        self.ask(
            "compaction",
            &json!({ "revision": revision, "physical": true }),
        );
    }

    fn ask(&self, call: &str, request: &Value) -> Value {
        let path = format!("/v3/kv/{call}");
        let answer = self
            .http
            .call("POST", &path, "application/json", &request.to_string());
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Shows the last lines that it said.
    pub(crate) fn show_tail(&self) {
        self.process.show_tail();
    }
}

/// A kube-apiserver. It may be restarted in its place.
pub(crate) struct Apiserver {
    program: PathBuf,
    dir: PathBuf,
    etcd: String,
    port: Port,
    api: Api,
    process: Process,
}

impl Apiserver {
    /// Starts one in a folder, with this EncryptionConfiguration. `None` where it is not installed.
    pub(crate) fn start(dir: &Path, etcd: &Etcd, encryption: &str) -> Option<Self> {
        let program = component("kube-apiserver")?;
        fs::create_dir_all(dir).unwrap();
        let port = Port::reserve();
        let certificate = write_credentials(dir, port.number());
        let api = Api(Http::tls(port.number(), &certificate, TOKEN));
        fs::write(dir.join("encryption.yaml"), encryption).unwrap();
        let (dir, etcd) = (dir.to_owned(), etcd.url());
        let process = run(&program, &dir, &etcd, port.number());
        Some(Self {
            program,
            dir,
            etcd,
            port,
            api,
            process,
        })
    }

    /// Waits until `/readyz` says so.
    pub(crate) fn ready(&self) -> &Self {
        self.answers("/readyz", 200);
        // It makes this namespace a moment after it says that it is ready.
        self.answers("/api/v1/namespaces/default", 200);
        self
    }

    /// Waits until it answers a page with this status, and returns what it answers.
    pub(crate) fn answers(&self, path: &str, status: u16) -> String {
        self.says(path, status, "")
    }

    /// The same, until this text is in it too.
    pub(crate) fn says(&self, path: &str, status: u16, text: &str) -> String {
        self.api.0.wait_for(&self.process, path, status, text).body
    }

    /// Stops it and starts it again, with cold caches, and waits until it is ready.
    pub(crate) fn restart(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.end();
        self.process = run(&self.program, &self.dir, &self.etcd, self.port.number());
        self.ready();
    }

    /// Replaces its EncryptionConfiguration, which it looks at once a minute.
    pub(crate) fn set_encryption(&self, config: &str) {
        let new = self.dir.join("encryption.yaml.new");
        fs::write(&new, config).unwrap();
        fs::rename(new, self.dir.join("encryption.yaml")).unwrap();
    }

    /// Its API.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// Its metrics now.
    pub(crate) fn metrics(&self) -> Metrics {
        self.api.0.metrics()
    }

    /// Shows the last lines that it said.
    pub(crate) fn show_tail(&self) {
        self.process.show_tail();
    }
}

fn run(program: &Path, dir: &Path, etcd: &str, port: u16) -> Process {
    let mut apiserver = command(program);
    apiserver.current_dir(dir).args([
        "--bind-address=127.0.0.1",
        "--permit-port-sharing",
        "--tls-cert-file=tls.crt",
        "--tls-private-key-file=tls.key",
        "--cert-dir=.",
        "--token-auth-file=tokens.csv",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://claviger.test",
        "--service-account-key-file=service-accounts.pub",
        "--service-account-signing-key-file=service-accounts.key",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
        // What is in the watch cache has been decrypted before anybody reads it.
        "--watch-cache-sizes=configmaps#0",
        "--encryption-provider-config=encryption.yaml",
        "--encryption-provider-config-automatic-reload",
    ]);
    apiserver.arg(format!("--secure-port={port}"));
    apiserver.arg(format!("--etcd-servers={etcd}"));
    Process::start("kube-apiserver", apiserver)
}

/// Keys, certificate and token of an apiserver in its folder, and its administrator's kubeconfig.
/// Returns the certificate.
fn write_credentials(dir: &Path, port: u16) -> String {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let service_accounts = KeyPair::generate().unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": "tls.crt",
        }}],
        "users": [{"name": "admin", "user": { "token": TOKEN }}],
        "contexts": [{"name": "test", "context": { "cluster": "test", "user": "admin" }}],
    });
    let files = [
        ("kubeconfig", kubeconfig.to_string()),
        ("tls.crt", cert.pem()),
        ("tls.key", signing_key.serialize_pem()),
        ("service-accounts.key", service_accounts.serialize_pem()),
        ("service-accounts.pub", service_accounts.public_key_pem()),
        ("tokens.csv", format!("{TOKEN},admin,1,system:masters\n")),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    cert.pem()
}

/// The API of one kube-apiserver, as its administrator. Clones may be used by several threads.
#[derive(Clone)]
pub(crate) struct Api(Http);

impl Api {
    /// Makes an object that holds one value: a Secret or a ConfigMap.
    pub(crate) fn create(&self, kind: Kind, name: &str, value: &str) -> Answer {
        let object = json!({ "metadata": { "name": name }, "data": kind.data(value) }).to_string();
        self.0
            .call("POST", &kind.collection(), "application/json", &object)
            .unwrap()
    }

    /// Gives it another value.
    pub(crate) fn update(&self, kind: Kind, name: &str, value: &str) -> Answer {
        let patch = json!({ "data": kind.data(value) }).to_string();
        self.patch(kind, name, &patch)
    }

    fn patch(&self, kind: Kind, name: &str, patch: &str) -> Answer {
        let path = format!("{}/{name}", kind.collection());
        self.call("PATCH", &path, "application/merge-patch+json", patch)
    }

    /// Sends anything.
    pub(crate) fn call(&self, method: &str, path: &str, content_type: &str, body: &str) -> Answer {
        self.0.call(method, path, content_type, body).unwrap()
    }

    /// Reads it from etcd, not from a cache.
    pub(crate) fn get(&self, kind: Kind, name: &str) -> Answer {
        self.0
            .get(&format!("{}/{name}", kind.collection()))
            .unwrap()
    }

    /// Makes kube-apiserver store it anew, without a change.
    pub(crate) fn rewrite(&self, kind: Kind, name: &str) {
        self.patch(kind, name, "{}").is(200);
    }

    /// Deletes it.
    pub(crate) fn delete(&self, kind: Kind, name: &str) -> Answer {
        let path = format!("{}/{name}", kind.collection());
        self.0
            .call("DELETE", &path, "application/json", "")
            .unwrap()
    }
}

impl Answer {
    /// An answer that must have this status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// What a test writes. All of it lies in the namespace `default`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Secret,
    ConfigMap,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
        }
    }

    fn collection(self) -> String {
        format!("/api/v1/namespaces/default/{}", self.plural())
    }

    /// Where kube-apiserver puts it in etcd.
    pub(crate) fn etcd_key(self, name: &str) -> String {
        format!("/registry/{}/default/{name}", self.plural())
    }

    fn data(self, value: &str) -> Value {
        match self {
            Self::Secret => json!({ "value": BASE64.encode(value.as_bytes()) }),
            Self::ConfigMap => json!({ "value": value }),
        }
    }

    /// The value in an answer of the API.
    pub(crate) fn value(self, object: &str) -> String {
        let object: Value = serde_json::from_str(object).unwrap();
        let value = object["data"]["value"]
            .as_str()
            .unwrap_or_else(|| panic!("{object}"));
        match self {
            Self::Secret => String::from_utf8(BASE64.decode(value.as_bytes()).unwrap()).unwrap(),
            Self::ConfigMap => value.to_owned(),
        }
    }
}
