//! Any bytes as a ciphertext: refused, unless they are one that was sealed here; never a panic.
#![no_main]

use std::sync::{Arc, LazyLock};

use claviger_keystore::Keystore;
use claviger_keystore::testing::open_keystore;
use libfuzzer_sys::fuzz_target;

const SEED: [u8; 32] = [7; 32];

static KEYSTORE: LazyLock<(Arc<Keystore>, Vec<u8>)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (keystore, _) = runtime.block_on(open_keystore());
    let view = keystore.view();
    let snapshot = view.snapshot().unwrap();
    let sealed = snapshot.seal(&snapshot.primary().unwrap(), &SEED).unwrap();
    drop(view);
    (keystore, sealed)
});

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (keystore, sealed) = &*KEYSTORE;
    let (raw, bytes) = input;
    // Bytes as they come, or laid over a true ciphertext from its beginning.
    let ciphertext = match raw {
        true => bytes,
        false => {
            let mask = bytes.iter().chain(std::iter::repeat(&0));
            let mut mixed: Vec<u8> = sealed.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
            mixed.extend(bytes.iter().skip(sealed.len()));
            mixed
        }
    };
    let view = keystore.view();
    let snapshot = view.snapshot().unwrap();
    let opened = snapshot.open(&snapshot.primary().unwrap(), &ciphertext);
    assert_eq!(opened.is_ok(), ciphertext == *sealed);
    if let Ok(seed) = opened {
        assert_eq!(*seed, SEED);
    }
});
