//! A cluster with Claviger, in which everything of use can be encrypted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use claviger::audit::object::{Header, Protection};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Apiserver, Etcd};
use crate::process::folder;
use crate::serve::{self, Claviger};
use crate::web::wait_until;

/// What is encrypted in it.
pub(crate) const RESOURCES: &str =
    "secrets,configmaps,events,widgets.example.com,planets.example.com";

/// etcd, a kube-apiserver, Claviger, and the folder that all of them work in.
pub(crate) struct Stand {
    pub(crate) claviger: Claviger,
    pub(crate) apiserver: Apiserver,
    pub(crate) etcd: Etcd,
    pub(crate) dir: TempDir,
}

impl Stand {
    /// Starts it, with an EncryptionConfiguration of this phase. `None` where a component is
    /// missing.
    pub(crate) fn start(phase: &str) -> Option<Self> {
        let dir = folder();
        let etcd = Etcd::start(dir.path())?;
        let claviger = Claviger::serve(&dir.path().join("claviger")).ready();
        let config = encryption(claviger.dir(), phase);
        let apiserver = Apiserver::start(&dir.path().join("apiserver"), &etcd, &config)?;
        apiserver.ready();
        let stand = Self {
            claviger,
            apiserver,
            etcd,
            dir,
        };
        for (plural, scope) in [("widgets", "Namespaced"), ("planets", "Cluster")] {
            stand.define(plural, scope);
        }
        Some(stand)
    }

    fn define(&self, plural: &str, scope: &str) {
        let definition = json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {
                "group": "example.com", "scope": scope,
                "names": {"plural": plural, "kind": format!("Kind{plural}")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                    "openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    },
                }}],
            },
        });
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        self.post(definitions, &definition);
        self.apiserver
            .answers(&format!("/apis/example.com/v1/{plural}"), 200);
    }

    /// Makes an object.
    pub(crate) fn post(&self, collection: &str, object: &Value) {
        self.send("POST", collection, "application/json", &object.to_string());
    }

    /// Sends something that must succeed.
    pub(crate) fn send(&self, method: &str, path: &str, content: &str, body: &str) {
        let answer = self.apiserver.api().call(method, path, content, body);
        assert!(answer.status < 300, "{method} {path}: {answer:?}");
    }

    /// An object as the API shows it.
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self
            .apiserver
            .api()
            .call("GET", path, "application/json", "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    /// What protects a key's value in etcd.
    pub(crate) fn protection(&self, key: &str) -> Protection {
        Header::parse(&self.etcd.value(key))
            .unwrap()
            .to_protection()
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("apiserver/kubeconfig")
    }

    /// A kubeconfig of somebody else.
    pub(crate) fn kubeconfig_as(&self, user: &str) -> PathBuf {
        let mut config: Value =
            serde_json::from_str(&fs::read_to_string(self.kubeconfig()).unwrap()).unwrap();
        config["users"][0]["user"]["as"] = user.into();
        let path = self.dir.path().join("apiserver").join(user);
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// A kubeconfig of the administrator's, whose token a credential program prints.
    pub(crate) fn kubeconfig_of_a_program(&self) -> PathBuf {
        let mut config: Value =
            serde_json::from_str(&fs::read_to_string(self.kubeconfig()).unwrap()).unwrap();
        let version = "client.authentication.k8s.io/v1";
        let printed = json!({
            "apiVersion": version, "kind": "ExecCredential",
            "status": {"token": config["users"][0]["user"]["token"]},
        });
        config["users"][0]["user"] = json!({"exec": {
            "apiVersion": version, "command": "echo", "args": [printed.to_string()],
        }});
        let path = self.dir.path().join("apiserver/program");
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Runs `claviger migrate` with the node's configuration.
    pub(crate) fn migrate(&self, kubeconfig: &Path, arguments: &[&str]) -> Migrated {
        migrate(self.claviger.dir(), &self.etcd.url(), kubeconfig, arguments)
    }

    /// Rotates, and waits until every apiserver has moved on.
    pub(crate) fn rotate(&self) -> String {
        let old = self.claviger.key("primary");
        serve::answer(self.claviger.dir(), &["rotate"]);
        wait_until("there is another primary", || {
            self.claviger
                .key("primary")
                .filter(|new| Some(new) != old.as_ref())
        })
    }

    /// Waits until the plugin says that every apiserver has moved on.
    pub(crate) fn converged(&self) {
        wait_until("the apiserver has converged", || {
            // Asked whether it is ready, an apiserver asks Status sooner than by itself.
            self.apiserver.answers("/readyz", 200);
            let members = serve::answer(self.claviger.dir(), &["-o", "json", "member", "list"]);
            let members: Value = serde_json::from_str(&members).unwrap();
            let members = members["members"].as_array().unwrap().clone();
            let all = members.iter().all(|member| !member["converged"].is_null());
            all.then_some(())
        });
    }
}

/// What `claviger print` makes.
pub(crate) fn encryption(dir: &Path, phase: &str) -> String {
    let resources = ["--resources", RESOURCES, "--phase", phase];
    serve::answer(
        dir,
        &[&["print", "encryption-config"], &resources[..]].concat(),
    )
}

/// How a `claviger migrate` ended.
#[derive(Debug)]
pub(crate) struct Migrated {
    pub(crate) code: Option<i32>,
    /// Its answer; null where it gave none.
    pub(crate) answer: Value,
    pub(crate) stderr: String,
}

impl Migrated {
    /// How many objects were rewritten, failed, and are left.
    pub(crate) fn counts(&self) -> (u64, u64, Option<u64>) {
        let count = |field: &str| self.answer[field].as_u64();
        let counted = |field| count(field).unwrap_or_else(|| panic!("{self:?}"));
        (counted("rewritten"), counted("failed"), count("left"))
    }

    /// It must have ended so.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Everything of this must stand in its errors.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{text}: {}", self.stderr);
        }
        self
    }
}

/// Runs `claviger migrate` with a folder's configuration.
pub(crate) fn migrate(dir: &Path, etcd: &str, kubeconfig: &Path, arguments: &[&str]) -> Migrated {
    let mut all = vec!["-o", "json", "migrate", "--endpoints", etcd, "--kubeconfig"];
    all.push(kubeconfig.to_str().unwrap());
    all.extend(arguments);
    let Output {
        status,
        stdout,
        stderr,
    } = serve::run(dir, &all);
    Migrated {
        code: status.code(),
        answer: serde_json::from_slice(&stdout).unwrap_or_default(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}
