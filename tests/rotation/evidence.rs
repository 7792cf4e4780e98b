//! What must be true of a keyring after whatever happened to it.

use std::path::Path;

use claviger_keystore::Keystore;
use claviger_keystore::document::Document;
use claviger_keystore::header::Header;
use claviger_keystore::key::KeyId;
use claviger_keystore::root::key_file::{KeyFile, KeyFileConfig};
use claviger_keystore::storage::file::{Durability, FileStorage};
use jiff::Timestamp;

use crate::load::{Log, Wrapped};

/// The keyring of this folder, opened by somebody who was never there before, and remembers nothing.
pub(crate) fn opened(dir: &Path) -> Keystore {
    let storage = FileStorage::new(dir.join("keyring"), Durability::Memory);
    let root = KeyFile::new("local", KeyFileConfig::Path(dir.join("root.key")));
    let keystore = Keystore::new(Box::new(storage), vec![Box::new(root)], None);
    runtime()
        .block_on(keystore.sync(Timestamp::now()))
        .expect("the keyring opens");
    keystore
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

/// What the keyring says of itself, without opening it.
pub(crate) fn header(dir: &Path) -> Header {
    let bytes = std::fs::read(dir.join("keyring")).unwrap();
    Document::parse(bytes).unwrap().header().clone()
}

/// All that was wrapped opens.
pub(crate) fn all_opens(dir: &Path, wrapped: &[Wrapped]) {
    let keystore = opened(dir);
    let view = keystore.view();
    let snapshot = view.snapshot().unwrap();
    for wrapped in wrapped {
        let id: KeyId = wrapped.key_id.parse().unwrap();
        let seed = snapshot.open(&id, &wrapped.ciphertext);
        let seed = seed.unwrap_or_else(|e| panic!("{id} does not open: {e:?}"));
        assert_eq!(*seed, wrapped.seed, "of {id}");
    }
}

/// No caller was given an older key than before, and no Status an older one than an earlier Status.
pub(crate) fn no_id_goes_back(dir: &Path, log: &Log) {
    let header = header(dir);
    let age = |id: &String| {
        let mut keys = header.keys.iter();
        let age = keys.position(|key| key.id.to_string() == *id);
        age.unwrap_or_else(|| panic!("the keyring has no {id}"))
    };
    for ids in &log.ids {
        let ages: Vec<_> = ids.iter().map(age).collect();
        let back = ages.windows(2).find(|pair| pair[0] > pair[1]);
        assert_eq!(back, None, "a key id went back");
    }
    for (first, second) in &log.statuses {
        assert!(age(first) <= age(second), "{second} came after {first}");
    }
}
