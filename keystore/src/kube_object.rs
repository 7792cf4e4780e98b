//! One object as kube-apiserver stores it under a seed of ours, authenticated and never shown.
//!
//! ```text
//! seed kind 0 (Kubernetes 1.27)    ┌──────────┬───────────────┬─────────┐
//! key = seed                       │ nonce 12 │ under AES-GCM │ tag, 16 │
//!                                  └──────────┴───────────────┴─────────┘
//! seed kind 1 (since 1.28)         ┌──────────┬──────────┬───────────────┬─────────┐
//! key = HKDF-Expand-SHA-256(       │ info, 32 │ nonce 12 │ under AES-GCM │ tag, 16 │
//!         seed, info, 32)          └──────────┴──────────┴───────────────┴─────────┘
//! AAD = the object's key in etcd
//! ```
//!
//! Source: k8s.io/apiserver 0.37, `storage/value/encrypt/aes/aes.go` and `aes_extended_nonce.go`,
//! `envelope/kmsv2/envelope.go`. What was opened is wiped before anything returns: an audit learns
//! that an object opens, and nothing of what is in it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aes::Aes192;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::envelope::EnvelopeError;
use crate::key::{KeyId, KeyState};
use crate::secret::with_clean_stack;
use crate::snapshot::Snapshot;

const INFO_LEN: usize = 32;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// So many seeds are kept at once. A kube-apiserver makes one whenever it starts, so a cluster has few.
const SEEDS: usize = 1024;

/// What lies in etcd for one object.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The object's key in etcd, its prefix included.
    pub etcd_key: &'a [u8],
    /// The key that wraps its seed.
    pub key_id: KeyId,
    /// The wrapped seed (`encryptedDEKSource`).
    pub seed: &'a [u8],
    /// How the seed encrypts (`encryptedDEKSourceType`): 0, it is the key; 1, keys derive from it.
    pub seed_kind: i32,
    /// The encrypted object (`encryptedData`), which is opened in its place and wiped.
    pub data: Vec<u8>,
}

/// Why kube-apiserver could not read an object.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum ObjectError {
    /// The keyring does not know the key.
    #[error("the keyring has no key {0}")]
    UnknownKey(KeyId),
    /// The key is disabled or destroyed.
    #[error("its key {0} is {1}")]
    KeyState(KeyId, KeyState),
    /// The seed does not open under its key.
    #[error("its seed does not open: {0}")]
    Seed(EnvelopeError),
    /// A seed of a kind that kube-apiserver does not know.
    #[error("its seed is of an unknown kind")]
    SeedKind,
    /// A seed that opens, and that kube-apiserver could not use.
    #[error("its seed opens, and has {0} bytes, with which kube-apiserver cannot decrypt")]
    SeedLength(usize),
    /// Too short to have been encrypted.
    #[error("its data is cut short")]
    DataLength,
    /// The tag of the data did not verify.
    #[error(
        "its data does not authenticate: it was changed, or is not of this seed, or was moved from another key in etcd"
    )]
    Authentication,
}

/// Opens seeds, each once, and authenticates objects under them.
pub struct Objects {
    keyring: Arc<Snapshot>,
    seeds: Mutex<Seeds>,
}

/// What became of wrapped seeds, by the hash of key id and wrapped seed.
type Seeds = HashMap<[u8; 32], Result<Arc<Zeroizing<Vec<u8>>>, ObjectError>>;

impl Objects {
    /// Objects whose seeds this keyring opens.
    pub fn new(keyring: Arc<Snapshot>) -> Self {
        Self {
            keyring,
            seeds: Mutex::default(),
        }
    }

    /// Whether kube-apiserver could read the object, if it asked a plugin with this keyring.
    ///
    /// # Errors
    /// Why it could not.
    pub fn authenticate(&self, object: Stored<'_>) -> Result<(), ObjectError> {
        let data = Zeroizing::new(object.data);
        let seed = self.seed(&object.key_id, object.seed)?;
        with_clean_stack(|| match object.seed_kind {
            0 => open_under_key(&seed, object.etcd_key, data),
            1 => open_under_seed(&seed, object.etcd_key, data),
            _ => Err(ObjectError::SeedKind),
        })
    }

    /// The seed, which is opened at most once while it is remembered.
    fn seed(&self, id: &KeyId, wrapped: &[u8]) -> Result<Arc<Zeroizing<Vec<u8>>>, ObjectError> {
        let hash = Sha256::new().chain_update(id.as_bytes());
        let hash = hash.chain_update(wrapped).finalize().into();
        let mut seeds = self.seeds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seed) = seeds.get(&hash) {
            return seed.clone();
        }
        let seed = with_clean_stack(|| self.open(id, wrapped)).map(Arc::new);
        if seeds.len() >= SEEDS {
            seeds.clear();
        }
        seeds.insert(hash, seed.clone());
        seed
    }

    fn open(&self, id: &KeyId, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, ObjectError> {
        let key = self.keyring.keys.get(id);
        let key = key.ok_or(ObjectError::UnknownKey(*id))?;
        let state = ObjectError::KeyState(*id, key.state);
        let seed_key = key.seed_key.as_ref().ok_or(state)?;
        seed_key.open(wrapped).map_err(ObjectError::Seed)
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects")
            .field("keyring", &self.keyring)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Stored<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Kind 1: each object has a key of its own, derived from the seed.
fn open_under_seed(
    seed: &[u8],
    etcd_key: &[u8],
    mut data: Zeroizing<Vec<u8>>,
) -> Result<(), ObjectError> {
    let derive = Hkdf::<Sha256>::from_prk(seed);
    let derive = derive.map_err(|_| ObjectError::SeedLength(seed.len()))?;
    let (info, sealed) = data
        .split_first_chunk_mut::<INFO_LEN>()
        .ok_or(ObjectError::DataLength)?;
    let mut key = Zeroizing::new([0; 32]);
    // It fails for more than 255 hashes of output, which 32 bytes are not.
    let derived = derive.expand(info, &mut *key);
    derived.map_err(|_| ObjectError::SeedLength(seed.len()))?;
    open::<Aes256Gcm>(&*key, etcd_key, sealed)
}

/// Kind 0: the seed is the key of all objects.
fn open_under_key(
    key: &[u8],
    etcd_key: &[u8],
    mut data: Zeroizing<Vec<u8>>,
) -> Result<(), ObjectError> {
    match key.len() {
        16 => open::<Aes128Gcm>(key, etcd_key, &mut data),
        24 => open::<AesGcm<Aes192, U12>>(key, etcd_key, &mut data),
        32 => open::<Aes256Gcm>(key, etcd_key, &mut data),
        other => Err(ObjectError::SeedLength(other)),
    }
}

/// Opens in place. The caller wipes.
fn open<A: KeyInit + AeadInOut>(
    key: &[u8],
    etcd_key: &[u8],
    sealed: &mut [u8],
) -> Result<(), ObjectError> {
    let cipher = A::new_from_slice(key).map_err(|_| ObjectError::SeedLength(key.len()))?;
    let (nonce, rest) = sealed
        .split_first_chunk_mut::<NONCE_LEN>()
        .ok_or(ObjectError::DataLength)?;
    let (body, tag) = rest
        .split_last_chunk_mut::<TAG_LEN>()
        .ok_or(ObjectError::DataLength)?;
    let (Ok(nonce), Ok(tag)) = (nonce.as_slice().try_into(), tag.as_slice().try_into()) else {
        return Err(ObjectError::DataLength);
    };
    cipher
        .decrypt_inout_detached(nonce, etcd_key, body.into(), tag)
        .map_err(|_| ObjectError::Authentication)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::Keystore;
    use crate::testing::{NOW, open_keystore, rotate};

    /// One of `tests/vectors/kube_object.json`, which kube-apiserver's own code made.
    struct Vector {
        name: String,
        seed: Vec<u8>,
        kind: i32,
        etcd_key: String,
        data: Vec<u8>,
    }

    fn vectors() -> Vec<Vector> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/kube_object.json");
        let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let vectors = vectors["valid"].as_array().unwrap().iter();
        let text = |vector: &Value, field: &str| vector[field].as_str().unwrap().to_owned();
        let hex = |vector, field| HEXLOWER.decode(text(vector, field).as_bytes()).unwrap();
        vectors
            .map(|vector| Vector {
                name: text(vector, "name"),
                seed: hex(vector, "seed"),
                kind: i32::try_from(vector["seedKind"].as_i64().unwrap()).unwrap(),
                etcd_key: text(vector, "etcdKey"),
                data: hex(vector, "data"),
            })
            .collect()
    }

    async fn keystore() -> (Arc<Keystore>, Objects) {
        let (keystore, _) = open_keystore().await;
        let objects = Objects::new(keystore.view().snapshot().unwrap().clone());
        (keystore, objects)
    }

    impl Vector {
        /// The object, with its seed wrapped by the primary key.
        fn under<'a>(&'a self, objects: &Objects, wrapped: &'a mut Vec<u8>) -> Stored<'a> {
            let key_id = objects.keyring.primary().unwrap();
            *wrapped = objects.keyring.seal(&key_id, &self.seed).unwrap();
            Stored {
                etcd_key: self.etcd_key.as_bytes(),
                key_id,
                seed: wrapped,
                seed_kind: self.kind,
                data: self.data.clone(),
            }
        }
    }

    #[tokio::test]
    async fn what_kube_apiserver_stored_authenticates() {
        let (_, objects) = keystore().await;
        let vectors = vectors();
        let kinds: Vec<_> = vectors.iter().map(|v| (v.kind, v.seed.len())).collect();
        for kind in [(0, 16), (0, 24), (0, 32), (1, 32), (1, 48)] {
            assert!(kinds.contains(&kind), "no vector has {kind:?}");
        }
        for vector in &vectors {
            let mut wrapped = Vec::new();
            let object = vector.under(&objects, &mut wrapped);
            assert_eq!(objects.authenticate(object), Ok(()), "{}", vector.name);
        }
    }

    #[tokio::test]
    async fn what_is_cut_short_does_not() {
        let (_, objects) = keystore().await;
        for vector in vectors() {
            let mut wrapped = Vec::new();
            let object = vector.under(&objects, &mut wrapped);
            for length in 0..vector.data.len() {
                let mut object = object.clone();
                object.data.truncate(length);
                let refused = objects.authenticate(object).unwrap_err();
                let short = matches!(
                    refused,
                    ObjectError::DataLength | ObjectError::Authentication
                );
                assert!(short, "{}, {length} bytes: {refused}", vector.name);
            }
        }
    }

    #[tokio::test]
    async fn seeds_that_kube_apiserver_could_not_use_are_refused() {
        let (_, objects) = keystore().await;
        let mut vector = vectors().remove(0);
        for (kind, length) in [(0, 15), (0, 33), (0, 48), (1, 16), (1, 31)] {
            vector.seed = vec![7; length];
            vector.kind = kind;
            let mut wrapped = Vec::new();
            let refused = objects.authenticate(vector.under(&objects, &mut wrapped));
            assert_eq!(refused, Err(ObjectError::SeedLength(length)), "kind {kind}");
        }
        for kind in [-1, 2] {
            vector.kind = kind;
            let mut wrapped = Vec::new();
            let refused = objects.authenticate(vector.under(&objects, &mut wrapped));
            assert_eq!(refused, Err(ObjectError::SeedKind));
        }
    }

    #[tokio::test]
    async fn a_key_that_plugins_refuse_or_do_not_know_opens_nothing() {
        let (keystore, before) = keystore().await;
        let vector = vectors().remove(0);
        let mut wrapped = Vec::new();
        let object = vector.under(&before, &mut wrapped);
        let id = object.key_id;
        rotate(&keystore).await;
        let now = || Objects::new(keystore.view().snapshot().unwrap().clone());
        assert_eq!(now().authenticate(object.clone()), Ok(()), "it is retired");
        keystore
            .commit(NOW, |keyring| Ok(keyring.disable(&id, NOW)?))
            .await
            .unwrap();
        let refused = ObjectError::KeyState(id, KeyState::Disabled);
        assert_eq!(now().authenticate(object.clone()), Err(refused));
        let (_, other) = self::keystore().await;
        let refused = ObjectError::UnknownKey(id);
        assert_eq!(other.authenticate(object), Err(refused));
    }

    #[tokio::test]
    async fn a_seed_is_opened_once_and_not_all_are_kept() {
        let (_, objects) = keystore().await;
        let vector = vectors().pop().unwrap();
        let mut wrapped = Vec::new();
        let object = vector.under(&objects, &mut wrapped);
        for _ in 0..3 {
            assert_eq!(objects.authenticate(object.clone()), Ok(()));
        }
        let marked = Err(ObjectError::SeedKind);
        for seed in objects.seeds.lock().unwrap().values_mut() {
            *seed = marked.clone();
        }
        let answer = objects.authenticate(object.clone());
        assert_eq!(answer, Err(ObjectError::SeedKind), "it was opened again");

        for n in 0..2 * SEEDS {
            let wrapped = n.to_be_bytes();
            let other = Stored {
                seed: &wrapped,
                ..object.clone()
            };
            assert!(objects.authenticate(other).is_err());
            assert!(objects.seeds.lock().unwrap().len() <= SEEDS);
        }
    }

    #[test]
    fn nothing_of_an_object_is_printed() {
        let stored = Stored {
            etcd_key: b"/registry/secrets/a/b",
            key_id: "k1-000102030405060708090a0b0c0d0e0f".parse().unwrap(),
            seed: &[0xab; 3],
            seed_kind: 1,
            data: vec![0xab; 3],
        };
        let id = stored.key_id;
        assert_eq!(
            format!("{stored:?}"),
            format!("Stored {{ key_id: {id:?}, .. }}")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_changed_byte_is_refused(which in 0..4_usize, at: prop::sample::Index, by in 1..=u8::MAX) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (_, objects) = runtime.block_on(keystore());
            for vector in vectors() {
                let (mut wrapped, mut etcd_key) = (Vec::new(), vector.etcd_key.clone().into_bytes());
                let mut object = vector.under(&objects, &mut wrapped);
                let mut seed = object.seed.to_vec();
                match which {
                    0 => {
                        let at = at.index(object.data.len());
                        object.data[at] ^= by;
                    }
                    1 => {
                        let at = at.index(seed.len());
                        seed[at] ^= by;
                    }
                    2 => {
                        let at = at.index(etcd_key.len());
                        etcd_key[at] ^= by;
                    }
                    _ => object.seed_kind ^= 1,
                }
                let changed = Stored { etcd_key: &etcd_key, seed: &seed, ..object };
                prop_assert!(objects.authenticate(changed).is_err(), "{}", vector.name);
            }
        }
    }
}
