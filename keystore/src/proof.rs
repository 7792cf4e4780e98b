//! That whoever held one keyring key made the next one.
//!
//! ```text
//! proof = HMAC-SHA-256 under D(old KK, "claviger/v1/keyring/rekey")
//!         over LP(cluster id, the new keyringKeyId, revision as u64 big-endian)
//! ```
//!
//! Only a holder of the old key can check it, so a chain of several needs every key on the way.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::document::KeyringKey;
use crate::error::Error;
use crate::header::{ClusterId, Hex, KeyringKeyId, RekeyProof};
use crate::secret::{length_prefixed, with_clean_stack};

/// The proof that `old` made the key `to`, which came with this revision.
pub(crate) fn prove(
    old: &KeyringKey,
    cluster_id: &ClusterId,
    to: KeyringKeyId,
    revision: u64,
) -> Result<RekeyProof, Error> {
    let proof = mac(old, cluster_id, &to, revision)?;
    Ok(RekeyProof {
        from: old.id()?,
        to,
        revision,
        proof: Hex(proof.finalize().into_bytes().into()),
    })
}

/// Whether this proof is `old`'s.
pub(crate) fn verify(
    proof: &RekeyProof,
    old: &KeyringKey,
    cluster_id: &ClusterId,
) -> Result<bool, Error> {
    let expected = mac(old, cluster_id, &proof.to, proof.revision)?;
    Ok(proof.from == old.id()? && expected.verify_slice(&proof.proof.0).is_ok())
}

fn mac(
    old: &KeyringKey,
    cluster_id: &ClusterId,
    to: &KeyringKeyId,
    revision: u64,
) -> Result<Hmac<Sha256>, Error> {
    let key = old.rekeying_key()?;
    with_clean_stack(|| {
        let mut mac = Hmac::new_from_slice(key.expose()).map_err(|_| Error::OutOfMemory)?;
        mac.update(&length_prefixed(&[
            &cluster_id.0,
            &to.0,
            &revision.to_be_bytes(),
        ]));
        Ok(mac)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const CLUSTER: ClusterId = Hex([5; 16]);

    fn key(byte: u8) -> KeyringKey {
        KeyringKey(Secret::copy_of(&[byte; 32]).unwrap())
    }

    /// By Python's hmac and hashlib from the format's own words.
    #[test]
    fn golden() {
        let proof = prove(&key(1), &CLUSTER, Hex([7; 32]), 42).unwrap();
        assert_eq!(
            proof.proof.to_string(),
            "9e4a18d17d1ba277419bd41032705e6b17cba75f9eca3e3d3e6fcfeac1bd2ab7"
        );
    }

    #[test]
    fn only_the_old_key_proves_only_this() {
        let proof = prove(&key(1), &CLUSTER, Hex([7; 32]), 42).unwrap();
        let holds = |proof: &RekeyProof, by, cluster| verify(proof, &key(by), cluster).unwrap();
        assert!(holds(&proof, 1, &CLUSTER));
        assert!(!holds(&proof, 2, &CLUSTER));
        assert!(!holds(&proof, 1, &Hex([6; 16])));
        let changed: [fn(&mut RekeyProof); 4] = [
            |proof| proof.from = Hex([9; 32]),
            |proof| proof.to = Hex([9; 32]),
            |proof| proof.revision = 43,
            |proof| proof.proof.0[31] ^= 1,
        ];
        for change in changed {
            let mut other = proof.clone();
            change(&mut other);
            assert!(!holds(&other, 1, &CLUSTER), "{other:?}");
        }
    }
}
