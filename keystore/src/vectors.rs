//! The golden files of `tests/vectors`, which the second implementation made: every format is read
//! as it says, and every defect is refused.

use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::document::{Document, KeyringKey};
use crate::envelope::{EnvelopeError, SeedKey};
use crate::error::{DocumentError, Error, RootError};
use crate::header::{Hex, SlotKind};
use crate::key::{Kek, KeyId};
use crate::root::key_file::FileKey;
use crate::root::recovery::RecoveryKey;
use crate::root::{self, Binding, Wrapped};
use crate::secret::Secret;
use crate::xaes::Xaes256Gcm;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

/// The entries of a list that must not be empty.
fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let list = value[name]
        .as_array()
        .unwrap_or_else(|| panic!("no list {name}"));
    assert!(!list.is_empty(), "{name} is empty");
    list
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no text {name} in {value}"))
}

fn hex(value: &Value, name: &str) -> Vec<u8> {
    HEXLOWER.decode(text(value, name).as_bytes()).unwrap()
}

fn bytes<const N: usize>(value: &Value, name: &str) -> [u8; N] {
    hex(value, name).try_into().unwrap()
}

fn secret(value: &Value, name: &str) -> Secret {
    Secret::copy_of(&bytes(value, name)).unwrap()
}

#[test]
fn key_ids() {
    for vector in list(&json("key_id.json"), "valid") {
        let kek = Kek::from_bytes(&bytes(vector, "kek")).unwrap();
        assert_eq!(kek.id().unwrap().to_string(), text(vector, "keyId"));
    }
    for vector in list(&json("keyring_key_id.json"), "valid") {
        let key = KeyringKey(secret(vector, "keyringKey"));
        assert_eq!(key.id().unwrap().to_string(), text(vector, "keyringKeyId"));
    }
}

#[test]
fn xaes_as_c2sp_published_it() {
    for vector in list(&json("xaes.json"), "valid") {
        let cipher = Xaes256Gcm::new(&secret(vector, "key"));
        let (nonce, aad) = (bytes(vector, "nonce"), hex(vector, "aad"));
        let mut buffer = hex(vector, "plaintext");
        let tag = cipher.seal(&nonce, &aad, &mut buffer).unwrap();
        assert_eq!([&buffer[..], &tag].concat(), hex(vector, "sealed"));
        cipher.open(&nonce, &aad, &mut buffer, &tag).unwrap();
        assert_eq!(buffer, hex(vector, "plaintext"));
    }
}

fn seed_key(vector: &Value) -> SeedKey {
    let kek = Kek::from_bytes(&bytes(vector, "kek")).unwrap();
    let id: KeyId = text(vector, "keyId").parse().unwrap();
    SeedKey::new(&kek, &id, &bytes(vector, "clusterId")).unwrap()
}

#[test]
fn ciphertexts() {
    let vectors = json("ciphertext.json");
    for vector in list(&vectors, "valid") {
        let opened = seed_key(vector).open(&hex(vector, "ciphertext")).unwrap();
        assert_eq!(*opened, hex(vector, "seed"), "{}", text(vector, "name"));
    }
    for vector in list(&vectors, "invalid") {
        let refusal = seed_key(vector)
            .open(&hex(vector, "ciphertext"))
            .unwrap_err();
        let class = match refusal {
            EnvelopeError::Foreign => "foreign",
            EnvelopeError::Newer(_) => "newer",
            EnvelopeError::CiphertextLength(len) if len > 1024 => "too_long",
            EnvelopeError::CiphertextLength(_) => "too_short",
            EnvelopeError::Authentication => "authentication",
            other => panic!("{other}"),
        };
        assert_eq!(class, text(vector, "class"), "{}", text(vector, "name"));
    }
}

fn unwrap(vector: &Value) -> Result<Vec<u8>, String> {
    let kind: SlotKind = serde_json::from_value(vector["kind"].clone()).unwrap();
    let binding = Binding::new(
        &Hex(bytes(vector, "clusterId")),
        &Hex(bytes(vector, "slotId")),
        kind,
        &Hex(bytes(vector, "keyringKeyId")),
    );
    let key = FileKey::new(&secret(vector, "rootKey")).unwrap();
    let payload = BASE64.decode(text(vector, "payload").as_bytes()).unwrap();
    let wrapped = Wrapped { payload, kdf: None };
    let payload = key.unwrap(&binding, &wrapped).map_err(|e| e.to_string())?;
    let unwrapped = payload.as_bytes().to_vec();
    let id = Hex(bytes(vector, "keyringKeyId"));
    payload.into_key(&binding, &id).map_err(|e| e.to_string())?;
    Ok(unwrapped)
}

#[test]
fn slots() {
    let vectors = json("slot.json");
    for vector in list(&vectors, "valid") {
        let unwrapped = unwrap(vector).unwrap();
        let (key, bound) = unwrapped.split_at(32);
        assert_eq!(key, hex(vector, "keyringKey"), "{}", text(vector, "name"));
        assert_eq!(
            bound,
            &*Sha256::digest(hex(vector, "statement")),
            "{}",
            text(vector, "name")
        );
    }
    for vector in list(&vectors, "invalid") {
        assert!(unwrap(vector).is_err(), "{}", text(vector, "name"));
    }
}

#[test]
fn recovery_keys() {
    let vectors = json("recovery_key.json");
    for vector in list(&vectors, "valid") {
        let key = RecoveryKey::from_secret(secret(vector, "key"));
        assert_eq!(*key.to_text().unwrap(), text(vector, "text"));
    }
    let first = text(&list(&vectors, "valid")[0], "text");
    for vector in list(&vectors, "accepted") {
        let key = RecoveryKey::from_text(text(vector, "text"))
            .unwrap_or_else(|e| panic!("{}: {e}", text(vector, "name")));
        assert_eq!(*key.to_text().unwrap(), first, "{}", text(vector, "name"));
    }
    for vector in list(&vectors, "invalid") {
        let read = RecoveryKey::from_text(text(vector, "text"));
        assert!(read.is_err(), "{}", text(vector, "name"));
    }
}

fn read(path: &Path) -> Result<Document, DocumentError> {
    Document::parse(std::fs::read(path).unwrap())
}

fn documents(kind: &str) -> Vec<PathBuf> {
    let folder = folder().join("document").join(kind);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "keyring")
        })
        .collect();
    assert!(!paths.is_empty(), "no documents in {}", folder.display());
    paths.sort();
    paths
}

#[tokio::test]
async fn valid_documents() {
    for path in documents("valid") {
        let name = path.display();
        let facts = std::fs::read(path.with_extension("json")).unwrap();
        let facts: Value = serde_json::from_slice(&facts).unwrap();
        let document = read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            document.hash().to_string(),
            text(&facts, "sha256"),
            "{name}"
        );
        let key = KeyringKey(secret(&facts, "keyringKey"));
        let keyring = document
            .open(&key)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            keyring.header().revision,
            facts["revision"].as_u64().unwrap(),
            "{name}"
        );
        assert_eq!(
            keyring.header().cluster_name,
            text(&facts, "clusterName"),
            "{name}"
        );
        let expected = facts["keys"].as_array().unwrap();
        assert_eq!(keyring.header().keys.len(), expected.len(), "{name}");
        for (key, expected) in keyring.header().keys.iter().zip(expected) {
            assert_eq!(key.id.to_string(), text(expected, "id"), "{name}");
            assert_eq!(key.state.as_str(), text(expected, "state"), "{name}");
            let kek = keyring
                .kek(&key.id)
                .map(|kek| HEXLOWER.encode(kek.expose()));
            assert_eq!(kek.as_deref(), expected["kek"].as_str(), "{name}");
        }
        opens_through_its_slots(&document, &facts).await;
    }
}

/// Each slot of a kind that this crate has opens with its root.
async fn opens_through_its_slots(document: &Document, facts: &Value) {
    let header = document.header();
    for opener in list(facts, "open") {
        let Some(root_key) = opener["rootKey"].as_str() else {
            continue;
        };
        let slot = header
            .slots
            .iter()
            .find(|slot| slot.id.to_string() == text(opener, "slot"));
        let slot = slot.unwrap();
        let root = TestRoot {
            name: slot.name.clone(),
            kind: slot.kind,
            key: root_key.to_owned(),
        };
        let key = root::open_slot(&root, slot, &header.cluster_id, &header.keyring_key_id);
        assert_eq!(key.await.unwrap().id().unwrap(), header.keyring_key_id);
    }
}

#[test]
fn invalid_documents() {
    let reasons = json("document/invalid/reasons.json");
    let key = KeyringKey(secret(&reasons, "keyringKey"));
    let mut opened_all_the_same = Vec::new();
    for path in documents("invalid") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(reasons["files"][name].is_object(), "{name} has no reason");
        let opened = read(&path)
            .map_err(Error::from)
            .and_then(|document| document.open(&key));
        if opened.is_ok() {
            opened_all_the_same.push(name.to_owned());
        }
    }
    assert!(opened_all_the_same.is_empty(), "{opened_all_the_same:?}");
}

#[test]
fn what_we_write_is_what_the_vectors_have() {
    for path in documents("valid") {
        let document = read(&path).unwrap();
        let facts = std::fs::read(path.with_extension("json")).unwrap();
        let facts: Value = serde_json::from_slice(&facts).unwrap();
        let key = KeyringKey(secret(&facts, "keyringKey"));
        let sealed = Document::seal(&document.open(&key).unwrap(), &key).unwrap();
        let first_line = |document: &Document| {
            document
                .as_bytes()
                .split(|byte| *byte == b'\n')
                .next()
                .unwrap()
                .to_vec()
        };
        assert_eq!(first_line(&sealed), first_line(&document));
    }
}

/// A root with a known key, of whichever kind the vector says.
struct TestRoot {
    name: String,
    kind: SlotKind,
    key: String,
}

#[async_trait::async_trait]
impl root::Root for TestRoot {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> SlotKind {
        self.kind
    }

    async fn wrap(&self, _: &Binding, _: &root::Payload) -> Result<Wrapped, RootError> {
        panic!("vectors are only unwrapped")
    }

    async fn unwrap(
        &self,
        binding: &Binding,
        wrapped: &Wrapped,
    ) -> Result<root::Payload, RootError> {
        let key: [u8; 32] = HEXLOWER
            .decode(self.key.as_bytes())
            .unwrap()
            .try_into()
            .unwrap();
        FileKey::new(&Secret::copy_of(&key).unwrap())
            .unwrap()
            .unwrap(binding, wrapped)
    }

    async fn check(&self) -> Result<(), RootError> {
        Ok(())
    }
}
