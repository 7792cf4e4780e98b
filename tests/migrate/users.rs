//! A real kube-apiserver, asked by somebody whose token changes: in a file, or as a credential
//! program says.

use std::fs;
use std::path::PathBuf;

use claviger::migrate::api::{Api, CallError, TIMEOUT};
use claviger::migrate::kubeconfig::{self, Place};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Apiserver, Etcd, Kind};
use crate::process::folder;

const SECRET: &str = "/api/v1/namespaces/default/secrets/a";

const IN_THE_CLEAR: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers: [{identity: {}}]
";

/// A kube-apiserver with one Secret, and a folder.
struct Server {
    dir: TempDir,
    _apiserver: Apiserver,
    _etcd: Etcd,
}

impl Server {
    fn start() -> Option<Self> {
        let dir = folder();
        let etcd = Etcd::start(dir.path())?;
        let apiserver = Apiserver::start(&dir.path().join("apiserver"), &etcd, IN_THE_CLEAR)?;
        apiserver.ready();
        apiserver.api().create(Kind::Secret, "a", "value").is(201);
        Some(Self {
            dir,
            _apiserver: apiserver,
            _etcd: etcd,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("apiserver").join(name)
    }

    /// The administrator's kubeconfig and token.
    fn admin(&self) -> (Value, String) {
        let config = fs::read_to_string(self.path("kubeconfig")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        let token = config["users"][0]["user"]["token"].as_str().unwrap();
        let token = token.to_owned();
        (config, token)
    }

    /// The administrator's client, who says in another way who they are.
    async fn client(&self, user: Value) -> Api {
        let (mut config, _) = self.admin();
        config["users"][0]["user"] = user;
        let file = self.path("another");
        fs::write(&file, config.to_string()).unwrap();
        let place = Place {
            files: vec![file],
            by: "the test",
        };
        kubeconfig::open(&place, TIMEOUT).await.unwrap().api
    }

    /// A user whose program notes each run, and prints a token that is good from the second one on.
    fn forgetful(&self, expires: &str) -> Value {
        let (_, token) = self.admin();
        let runs = self.path("runs");
        if runs.exists() {
            fs::remove_file(&runs).unwrap();
        }
        let runs = runs.display();
        let script = format!(
            r#"echo run >> '{runs}'
            token=stale; [ "$(grep -c run '{runs}')" -gt 1 ] && token='{token}'
            printf '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",
                "status":{{"token":"%s"{expires}}}}}' "$token""#
        );
        json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "sh",
            "args": ["-c", script],
        }})
    }

    /// How often the program ran.
    fn runs(&self) -> usize {
        let runs = fs::read_to_string(self.path("runs"));
        runs.unwrap().lines().count()
    }
}

#[test]
fn tokens_of_files_and_programs_are_taken_and_renewed() {
    let Some(server) = Server::start() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        by_a_file(&server).await;
        by_a_program(&server).await;
    });
}

async fn by_a_file(server: &Server) {
    let (_, token) = server.admin();
    fs::write(server.path("token"), "stale\n").unwrap();
    let api = server.client(json!({"tokenFile": "token"})).await;
    match api.rewrite(SECRET).await {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.status, 401, "{refusal:?}"),
        other => panic!("{other:?}"),
    }
    fs::write(server.path("token"), format!("{token}\n")).unwrap();
    assert_eq!(api.rewrite(SECRET).await, Ok(()));
}

async fn by_a_program(server: &Server) {
    // Refused at first, then asked once more, and believed from then on.
    let api = server.client(server.forgetful("")).await;
    for _ in 0..3 {
        assert_eq!(api.rewrite(SECRET).await, Ok(()));
    }
    assert_eq!(server.runs(), 2);

    // What it prints has expired at once, so each call asks anew.
    let long_ago = r#","expirationTimestamp":"2020-01-01T00:00:00Z""#;
    let api = server.client(server.forgetful(long_ago)).await;
    for _ in 0..3 {
        assert_eq!(api.rewrite(SECRET).await, Ok(()));
    }
    assert_eq!(server.runs(), 4);
}
