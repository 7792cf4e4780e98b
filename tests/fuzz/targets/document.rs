//! Any bytes as a keyring document: what is accepted is kept byte for byte; never a panic.
#![no_main]

use claviger_keystore::document::{Document, KeyringKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = Document::parse(bytes.to_vec()) else { return };
    assert_eq!(document.as_bytes(), bytes);
    assert!(document.open(&KeyringKey::generate().unwrap()).is_err());
});
