//! The SHA-256 that `etcdctl snapshot save` appends.

use std::fs::File;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::SnapshotError;

/// The bytes of the hash.
const LENGTH: u64 = 32;

/// Pages are multiples of this, so what remains is the hash.
///
/// Source: `hasChecksum` of go.etcd.io/etcd/etcdutl, `snapshot/v3_snapshot.go`.
const SECTOR: u64 = 512;

/// How much is read at once.
const CHUNK: usize = 256 << 10;

/// Whether a file of this length has a hash at its end.
pub(super) fn is_appended(length: u64) -> bool {
    length % SECTOR == LENGTH
}

/// How many bytes of a file of this length are the database's.
pub(super) fn covered(length: u64) -> u64 {
    if is_appended(length) {
        length - LENGTH
    } else {
        length
    }
}

/// Reads all of a file of this length and compares the hash at its end.
pub(super) fn check(file: &File, length: u64) -> Result<(), SnapshotError> {
    let covered = covered(length);
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    while offset < covered {
        let wanted = usize::try_from(covered - offset).map_or(CHUNK, |left| left.min(CHUNK));
        let bytes = &mut chunk[..wanted];
        file.read_exact_at(bytes, offset)?;
        hasher.update(&*bytes);
        offset += wanted as u64;
    }
    let mut expected = [0; LENGTH as usize];
    file.read_exact_at(&mut expected, covered)?;
    match hasher.finalize().as_slice() == expected {
        true => Ok(()),
        false => Err(SnapshotError::Hash),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::bolt::fixture::file;
    use super::*;

    #[test]
    fn a_hash_is_seen_by_the_length_alone() {
        for (length, database) in [(32, 0), (16384 + 32, 16384), (1024 + 32, 1024)] {
            assert!(is_appended(length));
            assert_eq!(covered(length), database);
        }
        for length in [0, 31, 33, 512, 16384, 16384 + 31, 16384 + 64] {
            assert!(!is_appended(length), "{length}");
            assert_eq!(covered(length), length);
        }
    }

    #[test]
    fn every_byte_counts_the_hash_s_own_too() {
        // More than one chunk, and no whole number of them.
        let mut bytes = vec![7; 2 * CHUNK + 512];
        let hash = Sha256::digest(&bytes);
        bytes.extend(hash.as_slice());
        let length = bytes.len() as u64;
        assert!(check(&file(&bytes), length).is_ok());
        for at in [
            0,
            CHUNK - 1,
            CHUNK,
            2 * CHUNK + 511,
            bytes.len() - 32,
            bytes.len() - 1,
        ] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let error = check(&file(&changed), length).unwrap_err();
            assert!(matches!(error, SnapshotError::Hash), "{at}: {error}");
        }
    }
}
