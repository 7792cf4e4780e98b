//! Roots whose keys the tests know.

use std::path::Path;

use claviger_keystore::root::Root;
use claviger_keystore::root::key_file::{KeyFile, KeyFileConfig};

/// A key file of this name, made where it does not exist.
pub(crate) fn key_file(folder: &Path, name: &str) -> Box<dyn Root> {
    let path = folder.join(format!("{name}.key"));
    if !path.exists() {
        KeyFile::create(&path).unwrap();
    }
    Box::new(KeyFile::new(name, KeyFileConfig::Path(path)))
}
