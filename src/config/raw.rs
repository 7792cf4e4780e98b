//! The configuration as people write it: every field optional, nothing checked beyond its type.
//!
//! The JSON schema for editors is made from these structs, and its descriptions from their comments.
//! What the schema says beyond types stands in `schemars` attributes; the rules decide.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::fields::{At, Field};

/// The configuration of one Claviger node.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
#[serde(rename_all = "camelCase")]
pub(super) struct RawConfig {
    /// The version of this form.
    #[cfg_attr(test, schemars(required, extend("const" = super::rules::API_VERSION)))]
    pub(super) api_version: Field<String>,
    /// What the file is.
    #[cfg_attr(test, schemars(required, extend("const" = super::rules::KIND)))]
    pub(super) kind: Field<String>,
    /// This node's name among those that serve one cluster. Default: the host's name.
    pub(super) member: Field<String>,
    /// The KMS socket and who may connect to it.
    pub(super) server: Field<RawServer>,
    /// Where the keyring lies.
    #[cfg_attr(test, schemars(required))]
    pub(super) storage: Field<RawStorage>,
    /// The roots that open the keyring; names match slots. `init` uses the first.
    #[cfg_attr(test, schemars(required, extend("minItems" = 1)))]
    pub(super) roots: Field<Vec<At<RawRoot>>>,
    /// How the cluster is reached. All of it is optional where the apiserver's manifest says it.
    pub(super) kubernetes: Field<RawKubernetes>,
    /// The listener of /metrics, /livez and /readyz.
    pub(super) metrics: Field<RawMetrics>,
    /// The log.
    pub(super) log: Field<RawLog>,
}

/// The KMS socket and who may connect to it.
#[derive(Deserialize, Default)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
#[serde(rename_all = "camelCase")]
pub(super) struct RawServer {
    /// The socket's absolute path, or `@` and the name of an abstract socket (Kubernetes 1.29 to
    /// 1.31). Default: /run/claviger/kms.sock.
    pub(super) socket: Field<String>,
    /// The socket file's mode: octal digits in quotes, from "0600" (the default) to "0666".
    pub(super) mode: Field<String>,
    /// The socket file's group, a name or a number in quotes. Default: the process's own.
    pub(super) group: Field<String>,
    /// The users that may connect, whatever the mode allows. Default: root.
    #[cfg_attr(test, schemars(extend("minItems" = 1)))]
    #[serde(rename = "allowUIDs")]
    pub(super) allow_uids: Field<Vec<At<u32>>>,
    /// The version of the KMS API: v2 (the default), or v2beta1 for Kubernetes 1.27 and 1.28.
    #[cfg_attr(test, schemars(extend("enum" = ["v2", "v2beta1", null])))]
    pub(super) status_version: Field<String>,
}

/// Where the keyring lies.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) struct RawStorage {
    /// In a file of this node.
    #[cfg_attr(test, schemars(required))]
    pub(super) file: Field<RawFile>,
    #[cfg_attr(test, schemars(skip))]
    pub(super) etcd: Field<IgnoredAny>,
}

/// A file of this node.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) struct RawFile {
    /// The keyring's absolute path.
    #[cfg_attr(test, schemars(required))]
    pub(super) path: Field<String>,
    /// Whether this is a copy of another node's; not in this version.
    #[cfg_attr(test, schemars(extend("enum" = [false, null])))]
    pub(super) replica: Field<bool>,
}

/// A root of exactly one kind, and the name of its slot.
#[derive(Deserialize)]
#[cfg_attr(
    test,
    derive(schemars::JsonSchema),
    schemars(
        deny_unknown_fields,
        extend("oneOf" = [{"required": ["keyFile"]}, {"required": ["recovery"]}])
    )
)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRoot {
    /// The name of the root's slot.
    #[cfg_attr(test, schemars(required))]
    pub(super) name: Field<String>,
    /// 32 random bytes in a file.
    pub(super) key_file: Field<RawKeyFile>,
    /// A recovery key, only while it is used.
    pub(super) recovery: Field<RawRecovery>,
    #[cfg_attr(test, schemars(skip))]
    pub(super) vault: Field<IgnoredAny>,
    #[cfg_attr(test, schemars(skip))]
    pub(super) pkcs11: Field<IgnoredAny>,
    #[cfg_attr(test, schemars(skip))]
    #[serde(rename = "awsKMS")]
    pub(super) aws_kms: Field<IgnoredAny>,
    #[cfg_attr(test, schemars(skip))]
    pub(super) azure_key_vault: Field<IgnoredAny>,
    #[cfg_attr(test, schemars(skip))]
    #[serde(rename = "gcpKMS")]
    pub(super) gcp_kms: Field<IgnoredAny>,
    #[cfg_attr(test, schemars(skip))]
    pub(super) passphrase: Field<IgnoredAny>,
    #[cfg_attr(test, schemars(skip))]
    pub(super) max_staleness: Field<IgnoredAny>,
    #[cfg_attr(test, schemars(skip))]
    pub(super) on_denied: Field<IgnoredAny>,
    #[cfg_attr(test, schemars(skip))]
    pub(super) wipe_after: Field<IgnoredAny>,
}

/// 32 random bytes, in a file or a systemd credential.
#[derive(Deserialize)]
#[cfg_attr(
    test,
    derive(schemars::JsonSchema),
    schemars(
        deny_unknown_fields,
        extend("oneOf" = [{"required": ["path"]}, {"required": ["credential"]}])
    )
)]
pub(super) struct RawKeyFile {
    /// The file's absolute path; mode 0400.
    pub(super) path: Field<String>,
    /// The name of a credential that systemd decrypts for the service.
    pub(super) credential: Field<String>,
}

/// A recovery key, written for people.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) struct RawRecovery {
    /// The file's absolute path.
    #[cfg_attr(test, schemars(required))]
    pub(super) file: Field<String>,
}

/// How the cluster is reached.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
#[serde(rename_all = "camelCase")]
pub(super) struct RawKubernetes {
    /// The apiserver's static-pod manifest.
    pub(super) apiserver_manifest: Field<String>,
    /// A kubeconfig that may patch what `migrate` rewrites.
    pub(super) kubeconfig: Field<String>,
    /// The EncryptionConfiguration.
    pub(super) encryption_config: Field<String>,
    /// The cluster's etcd, which `audit` reads.
    pub(super) etcd: Field<RawEtcd>,
}

/// The cluster's etcd.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
#[serde(rename_all = "camelCase")]
pub(super) struct RawEtcd {
    /// `https://HOST:PORT` or `http://HOST:PORT`.
    #[cfg_attr(test, schemars(required, extend("minItems" = 1)))]
    pub(super) endpoints: Field<Vec<At<String>>>,
    /// The authority that signed etcd's certificate.
    pub(super) ca_file: Field<String>,
    /// The client certificate; with `keyFile`.
    pub(super) cert_file: Field<String>,
    /// Its private key.
    pub(super) key_file: Field<String>,
    /// The prefix of Kubernetes' keys. Default: /registry.
    pub(super) prefix: Field<String>,
}

/// The listener of /metrics, /livez and /readyz.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) struct RawMetrics {
    /// IP address and port; port 0 is any free one. Default: 127.0.0.1:9465.
    pub(super) listen: Field<String>,
    /// TLS, where it is wanted.
    pub(super) tls: Field<RawTls>,
}

/// A certificate and its key.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTls {
    /// The certificate, with its chain, in PEM.
    #[cfg_attr(test, schemars(required))]
    pub(super) cert_file: Field<String>,
    /// Its private key, in PEM.
    #[cfg_attr(test, schemars(required))]
    pub(super) key_file: Field<String>,
}

/// The log.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) struct RawLog {
    /// The form of a line. Default: json.
    #[cfg_attr(test, schemars(extend("enum" = ["json", "text", null])))]
    pub(super) format: Field<String>,
    /// The least severe level that is written. Default: info.
    #[cfg_attr(test, schemars(extend("enum" = ["error", "warn", "info", "debug", "trace", null])))]
    pub(super) level: Field<String>,
}

#[cfg(test)]
mod tests {
    use schemars::generate::SchemaSettings;

    use super::*;
    use crate::config::rules::KIND;
    use crate::schema::assert_checked_in;

    #[test]
    fn the_schema_for_editors_is_checked_in() {
        let generator = SchemaSettings::draft2020_12().into_generator();
        let mut schema = generator.into_root_schema_for::<RawConfig>();
        schema.insert("title".to_owned(), KIND.into());
        assert_checked_in(KIND, &schema);
    }
}
