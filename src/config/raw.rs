//! The configuration as people write it: every field optional, nothing checked beyond its type.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::fields::{At, Field};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawConfig {
    pub(super) api_version: Field<String>,
    pub(super) kind: Field<String>,
    pub(super) member: Field<String>,
    pub(super) server: Field<RawServer>,
    pub(super) storage: Field<RawStorage>,
    pub(super) roots: Field<Vec<At<RawRoot>>>,
    pub(super) kubernetes: Field<RawKubernetes>,
    pub(super) metrics: Field<RawMetrics>,
    pub(super) log: Field<RawLog>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawServer {
    pub(super) socket: Field<String>,
    pub(super) mode: Field<String>,
    pub(super) group: Field<String>,
    #[serde(rename = "allowUIDs")]
    pub(super) allow_uids: Field<Vec<At<u32>>>,
    pub(super) status_version: Field<String>,
}

#[derive(Deserialize)]
pub(super) struct RawStorage {
    pub(super) file: Field<RawFile>,
    pub(super) etcd: Field<IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct RawFile {
    pub(super) path: Field<String>,
    pub(super) replica: Field<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRoot {
    pub(super) name: Field<String>,
    pub(super) key_file: Field<RawKeyFile>,
    pub(super) recovery: Field<RawRecovery>,
    pub(super) vault: Field<IgnoredAny>,
    pub(super) pkcs11: Field<IgnoredAny>,
    #[serde(rename = "awsKMS")]
    pub(super) aws_kms: Field<IgnoredAny>,
    pub(super) azure_key_vault: Field<IgnoredAny>,
    #[serde(rename = "gcpKMS")]
    pub(super) gcp_kms: Field<IgnoredAny>,
    pub(super) passphrase: Field<IgnoredAny>,
    pub(super) max_staleness: Field<IgnoredAny>,
    pub(super) on_denied: Field<IgnoredAny>,
    pub(super) wipe_after: Field<IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct RawKeyFile {
    pub(super) path: Field<String>,
    pub(super) credential: Field<String>,
}

#[derive(Deserialize)]
pub(super) struct RawRecovery {
    pub(super) file: Field<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawKubernetes {
    pub(super) apiserver_manifest: Field<String>,
    pub(super) kubeconfig: Field<String>,
    pub(super) encryption_config: Field<String>,
    pub(super) etcd: Field<RawEtcd>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawEtcd {
    pub(super) endpoints: Field<Vec<At<String>>>,
    pub(super) ca_file: Field<String>,
    pub(super) cert_file: Field<String>,
    pub(super) key_file: Field<String>,
    pub(super) prefix: Field<String>,
}

#[derive(Deserialize)]
pub(super) struct RawMetrics {
    pub(super) listen: Field<String>,
    pub(super) tls: Field<RawTls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTls {
    pub(super) cert_file: Field<String>,
    pub(super) key_file: Field<String>,
}

#[derive(Deserialize)]
pub(super) struct RawLog {
    pub(super) format: Field<String>,
    pub(super) level: Field<String>,
}
