//! An EncryptionConfiguration as people write it: `apiserver.config.k8s.io/v1`, type by type as in
//! `k8s.io/apiserver/pkg/apis/apiserver/v1/types_encryption.go`.

use serde::Deserialize;

use crate::config::fields::{At, Field};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawConfiguration {
    pub(super) api_version: Field<String>,
    pub(super) kind: Field<String>,
    pub(super) resources: Field<Vec<At<RawBlock>>>,
}

#[derive(Deserialize)]
pub(super) struct RawBlock {
    pub(super) resources: Field<Vec<At<String>>>,
    pub(super) providers: Field<Vec<At<RawProvider>>>,
}

#[derive(Deserialize)]
pub(super) struct RawProvider {
    pub(super) aesgcm: Field<RawKeys>,
    pub(super) aescbc: Field<RawKeys>,
    pub(super) secretbox: Field<RawKeys>,
    pub(super) identity: Field<RawIdentity>,
    pub(super) kms: Field<RawKms>,
}

#[derive(Deserialize)]
pub(super) struct RawKeys {
    pub(super) keys: Field<Vec<At<RawKey>>>,
}

/// A key of the file. It has no `Debug`, and no message repeats its secret.
#[derive(Deserialize)]
pub(super) struct RawKey {
    pub(super) name: Field<String>,
    pub(super) secret: Field<String>,
}

#[derive(Deserialize)]
pub(super) struct RawIdentity {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawKms {
    pub(super) api_version: Field<String>,
    pub(super) name: Field<String>,
    // Kubernetes spells it in one word.
    #[serde(rename = "cachesize")]
    pub(super) cache_size: Field<i32>,
    pub(super) endpoint: Field<String>,
    pub(super) timeout: Field<String>,
}
