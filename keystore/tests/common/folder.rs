//! Folders for tests that write much.

use std::path::Path;

/// A folder in memory where the host has one: thousands of commits sync tens of thousands of files.
pub(crate) fn fast_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}
