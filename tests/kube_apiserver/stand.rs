//! A cluster with Claviger, ready for use.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;

use claviger_proto::stored::EncryptedObject;
use claviger_proto::v2::{DecryptRequest, EncryptRequest};
use prost::Message;
use tempfile::TempDir;

use crate::cluster::{Apiserver, Etcd, Kind};
use crate::components::component;
use crate::process::folder;
use crate::serve::{self, Claviger};

/// etcd, a kube-apiserver, Claviger, and the folder that all of them work in.
pub(crate) struct Stand {
    pub(crate) claviger: Claviger,
    pub(crate) apiserver: Apiserver,
    pub(crate) etcd: Etcd,
    dir: TempDir,
}

impl Stand {
    /// One of its own for a test that restarts or breaks something. `None` where a component is
    /// missing.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&SECRETS)
    }

    /// One with an EncryptionConfiguration that `claviger print` makes with these arguments.
    pub(crate) fn start_with(print: &[&str]) -> Option<Self> {
        let dir = folder();
        let etcd = Etcd::start(dir.path())?;
        let claviger = Claviger::serve(&dir.path().join("claviger")).ready();
        let config = encryption_config(claviger.dir(), print);
        let apiserver = Apiserver::start(&dir.path().join("apiserver"), &etcd, &config)?;
        apiserver.ready();
        Some(Self {
            claviger,
            apiserver,
            etcd,
            dir,
        })
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("apiserver/kubeconfig")
    }

    /// One that tests share which leave everything as it is.
    pub(crate) fn shared() -> Option<Shared> {
        static STAND: LazyLock<Option<Stand>> = LazyLock::new(Stand::start);
        // Each test says for itself what it lacks.
        component("etcd")?;
        component("kube-apiserver")?;
        STAND.as_ref().map(Shared)
    }

    /// The stored form of an object: the provider's name, and the message.
    pub(crate) fn stored(&self, kind: Kind, name: &str) -> (String, EncryptedObject) {
        decode(&self.etcd.value(&kind.etcd_key(name)))
    }

    /// Makes a ConfigMap of which the apiserver has nothing in memory: the first read of it calls
    /// Decrypt. (A Secret would be in the watch cache at once.)
    ///
    /// Its seed is wrapped a second time, so that it lies in etcd under another ciphertext.
    pub(crate) fn create_cold(&self, name: &str) {
        self.apiserver
            .api()
            .create(Kind::ConfigMap, name, name)
            .is(201);
        let key = Kind::ConfigMap.etcd_key(name);
        let (provider, mut object) = decode(&self.etcd.value(&key));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = self.claviger.client();
            let wrapped = DecryptRequest {
                ciphertext: object.encrypted_dek_source.clone(),
                uid: "a test unwraps".to_owned(),
                key_id: object.key_id.clone(),
                annotations: Default::default(),
            };
            let seed = client.decrypt(wrapped).await.unwrap().plaintext.clone();
            let seed = EncryptRequest {
                plaintext: seed,
                uid: "a test wraps".to_owned(),
            };
            object.encrypted_dek_source = client.encrypt(seed).await.unwrap().ciphertext.clone();
        });
        let mut value = format!("{PREFIX}{provider}:").into_bytes();
        value.extend(object.encode_to_vec());
        self.etcd.put(&key, &value);
    }
}

/// Have Secrets encrypted, and ConfigMaps not.
pub(crate) const SECRETS: [&str; 2] = ["--resources", "secrets"];

const PREFIX: &str = "k8s:enc:kms:v2:";

fn decode(value: &[u8]) -> (String, EncryptedObject) {
    let shown = || String::from_utf8_lossy(&value[..value.len().min(80)]).into_owned();
    let Some(rest) = value.strip_prefix(PREFIX.as_bytes()) else {
        panic!("it is not encrypted by a KMS v2 plugin: {}", shown());
    };
    let end = rest.iter().position(|byte| *byte == b':').unwrap();
    let provider = String::from_utf8(rest[..end].to_vec()).unwrap();
    let object =
        EncryptedObject::decode(&rest[end + 1..]).unwrap_or_else(|e| panic!("{e}: {}", shown()));
    (provider, object)
}

/// What `claviger print` makes with these arguments.
pub(crate) fn encryption_config(dir: &Path, arguments: &[&str]) -> String {
    serve::answer(dir, &[&["print", "encryption-config"], arguments].concat())
}

/// The shared stand in the hands of one test, which shows what was said if it fails.
pub(crate) struct Shared(&'static Stand);

impl Deref for Shared {
    type Target = Stand;

    fn deref(&self) -> &Stand {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if thread::panicking() {
            self.claviger.show_tail();
            self.apiserver.show_tail();
            self.etcd.show_tail();
        }
    }
}
