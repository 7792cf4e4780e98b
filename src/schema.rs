//! JSON schemas that are checked in under `deploy/schema`, compared with what the structs say. Write
//! them again with `CLAVIGER_REGENERATE=1 cargo test --lib schema`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use schemars::Schema;

/// Where the schema of a kind lies: `SlotList` is `slot-list.json`.
pub(crate) fn file(kind: &str) -> PathBuf {
    let mut name = String::new();
    for (at, char) in kind.char_indices() {
        if at > 0 && char.is_ascii_uppercase() {
            name.push('-');
        }
        name.push(char.to_ascii_lowercase());
    }
    dir().join(name).with_extension("json")
}

/// The folder of all of them.
pub(crate) fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/schema")
}

/// Fails unless the checked-in schema of a kind is this one.
#[track_caller]
pub(crate) fn assert_checked_in(kind: &str, schema: &Schema) {
    let path = file(kind);
    let wanted = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if env::var_os("CLAVIGER_REGENERATE").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is not what the structs say; write it again with\n    \
         CLAVIGER_REGENERATE=1 cargo test --lib schema",
        path.display()
    );
}
