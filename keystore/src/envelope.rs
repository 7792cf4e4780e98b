//! The envelope around one seed: what kube-apiserver stores beside every object.
//!
//! ```text
//! ┌──────┬───────────┬──────────────────────────────┬─────────┐
//! │ 0x01 │ nonce, 24 │ seed under XAES-256-GCM, 1…  │ tag, 16 │    73 bytes for a seed of 32
//! └──────┴───────────┴──────────────────────────────┴─────────┘
//! key = D(KEK, "claviger/v1/kek/seal")
//! AAD = LP("claviger/v1/seed", cluster id, key id)
//! ```
//!
//! The key id is not in the ciphertext: kube-apiserver keeps it beside it, and the AAD binds it.

use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::key::{Kek, KeyId};
use crate::secret::{length_prefixed, random_bytes, with_clean_stack};
use crate::xaes::{NONCE_LEN, TAG_LEN, Xaes256Gcm};

/// The longest seed that is sealed. kube-apiserver's have 32 bytes; a plugin must take others.
pub const MAX_SEED_LEN: usize = 512;
/// The longest ciphertext that kube-apiserver stores (`api.proto` of KMS v2).
pub const MAX_CIPHERTEXT_LEN: usize = 1024;

const FORMAT: u8 = 1;
const HEADER_LEN: usize = 1 + NONCE_LEN;
/// Format, nonce and tag around nothing.
const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Bytes that may one day be a format of ours; every other first byte is somebody else's.
const FORMATS_TO_COME: std::ops::RangeInclusive<u8> = 0x02..=0x1f;

/// Why a seed was not sealed, or a ciphertext not opened.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum EnvelopeError {
    /// Empty, or over [`MAX_SEED_LEN`].
    #[error("a seed has 1 to {MAX_SEED_LEN} bytes, not {0}")]
    SeedLength(usize),
    /// Shorter or longer than any that we make.
    #[error("a ciphertext has {min} to {MAX_CIPHERTEXT_LEN} bytes, not {0}", min = OVERHEAD)]
    CiphertextLength(usize),
    /// Another program's.
    #[error("the ciphertext was made by another program")]
    Foreign,
    /// A newer Claviger's.
    #[error("the ciphertext has format {0}, of a newer Claviger")]
    Newer(u8),
    /// Another cluster, another key, or changed bytes.
    #[error("the ciphertext does not authenticate")]
    Authentication,
    /// The sealed seed did not open again.
    #[error("the sealed seed did not open again")]
    SelfCheck,
    /// No randomness for the nonce.
    #[error("the operating system's random generator failed")]
    Random,
}

/// What seals and opens seeds under one KEK in one cluster.
pub(crate) struct SeedKey {
    /// Boxed, so that moving this moves no key schedule.
    cipher: Box<Xaes256Gcm>,
    aad: Vec<u8>,
}

impl SeedKey {
    pub(crate) fn new(kek: &Kek, id: &KeyId, cluster_id: &[u8; 16]) -> Result<Self, Error> {
        Ok(Self {
            cipher: with_clean_stack(|| {
                Ok::<_, Error>(Box::new(Xaes256Gcm::new(&kek.sealing_key()?)))
            })?,
            aad: length_prefixed(&[b"claviger/v1/seed", cluster_id, id.as_bytes()]),
        })
    }

    /// Seals a seed under a fresh nonce.
    pub(crate) fn seal(&self, seed: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut nonce = [0; NONCE_LEN];
        random_bytes(&mut nonce).map_err(|_| EnvelopeError::Random)?;
        self.seal_with(seed, &nonce, |_| ())
    }

    /// Seals, and opens the result again before it is believed. `tamper` stands for a fault between
    /// the two.
    fn seal_with(
        &self,
        seed: &[u8],
        nonce: &[u8; NONCE_LEN],
        tamper: impl FnOnce(&mut [u8]),
    ) -> Result<Vec<u8>, EnvelopeError> {
        if seed.is_empty() || seed.len() > MAX_SEED_LEN {
            return Err(EnvelopeError::SeedLength(seed.len()));
        }
        // The seed is encrypted in place in a buffer that never grows, so no copy stays behind.
        let mut sealed = Zeroizing::new(Vec::with_capacity(OVERHEAD + seed.len()));
        sealed.push(FORMAT);
        sealed.extend_from_slice(nonce);
        sealed.extend_from_slice(seed);
        let tag = self
            .cipher
            .seal(nonce, &self.aad, &mut sealed[HEADER_LEN..])
            .map_err(|_| EnvelopeError::SelfCheck)?;
        sealed.extend_from_slice(&tag);
        tamper(&mut sealed);
        let opened = self.open(&sealed).map_err(|_| EnvelopeError::SelfCheck)?;
        if !bool::from(opened.ct_eq(seed)) {
            return Err(EnvelopeError::SelfCheck);
        }
        Ok(std::mem::take(&mut *sealed))
    }

    /// Opens a ciphertext; nothing is returned that the tag does not vouch for.
    pub(crate) fn open(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
        match ciphertext.first() {
            None => return Err(EnvelopeError::CiphertextLength(0)),
            Some(&FORMAT) => {}
            Some(format) if FORMATS_TO_COME.contains(format) => {
                return Err(EnvelopeError::Newer(*format));
            }
            Some(_) => return Err(EnvelopeError::Foreign),
        }
        if ciphertext.len() < OVERHEAD || ciphertext.len() > MAX_CIPHERTEXT_LEN {
            return Err(EnvelopeError::CiphertextLength(ciphertext.len()));
        }
        let too_short = EnvelopeError::CiphertextLength(ciphertext.len());
        let (nonce, rest) = ciphertext[1..].split_first_chunk().ok_or(too_short)?;
        let (sealed, tag) = rest.split_last_chunk().ok_or(too_short)?;
        let mut seed = Zeroizing::new(sealed.to_vec());
        self.cipher
            .open(nonce, &self.aad, &mut seed, tag)
            .map_err(|_| EnvelopeError::Authentication)?;
        Ok(seed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seed_key(cluster_id: [u8; 16]) -> SeedKey {
        let kek = Kek::from_bytes(&[3; 32]).unwrap();
        SeedKey::new(&kek, &kek.id().unwrap(), &cluster_id).unwrap()
    }

    #[test]
    fn a_seed_of_32_bytes_takes_73() {
        let sealed = seed_key([1; 16]).seal(&[9; 32]).unwrap();
        assert_eq!(sealed.len(), 73);
        assert_eq!(*seed_key([1; 16]).open(&sealed).unwrap(), vec![9; 32]);
    }

    #[test]
    fn the_same_seed_never_seals_alike() {
        let key = seed_key([1; 16]);
        assert_ne!(key.seal(&[9; 32]).unwrap(), key.seal(&[9; 32]).unwrap());
    }

    #[test]
    fn another_cluster_does_not_open_it() {
        let sealed = seed_key([1; 16]).seal(&[9; 32]).unwrap();
        assert_eq!(
            seed_key([2; 16]).open(&sealed),
            Err(EnvelopeError::Authentication)
        );
    }

    #[test]
    fn seed_lengths_have_limits() {
        let key = seed_key([1; 16]);
        for len in [1, 31, 32, 33, MAX_SEED_LEN] {
            let sealed = key.seal(&vec![5; len]).unwrap();
            assert!(sealed.len() <= MAX_CIPHERTEXT_LEN);
            assert_eq!(key.open(&sealed).unwrap().len(), len);
        }
        for len in [0, MAX_SEED_LEN + 1] {
            assert_eq!(key.seal(&vec![5; len]), Err(EnvelopeError::SeedLength(len)));
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let key = seed_key([1; 16]);
        let sealed = key.seal(&[9; 32]).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refusal = key.open(&flipped).unwrap_err();
            match bit {
                0..8 => assert!(matches!(
                    refusal,
                    EnvelopeError::Newer(_) | EnvelopeError::Foreign
                )),
                _ => assert_eq!(refusal, EnvelopeError::Authentication),
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let key = seed_key([1; 16]);
        let sealed = key.seal(&[9; 32]).unwrap();
        for len in 0..sealed.len() {
            let expected = match len {
                0..OVERHEAD => EnvelopeError::CiphertextLength(len),
                _ => EnvelopeError::Authentication,
            };
            assert_eq!(key.open(&sealed[..len]), Err(expected));
        }
    }

    #[test]
    fn a_fault_between_sealing_and_checking_never_leaves() {
        let key = seed_key([1; 16]);
        for position in [0, 1, HEADER_LEN, 72] {
            let sealed = key.seal_with(&[9; 32], &[0; NONCE_LEN], |bytes| bytes[position] ^= 4);
            assert_eq!(sealed, Err(EnvelopeError::SelfCheck));
        }
    }

    #[test]
    fn first_bytes_tell_strangers_from_successors() {
        let key = seed_key([1; 16]);
        for format in 0..=u8::MAX {
            let refusal = key.open(&[format; 73]).unwrap_err();
            let expected = match format {
                1 => EnvelopeError::Authentication,
                2..=0x1f => EnvelopeError::Newer(format),
                _ => EnvelopeError::Foreign,
            };
            assert_eq!(refusal, expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(seed in prop::collection::vec(any::<u8>(), 1..=MAX_SEED_LEN)) {
            let key = seed_key([1; 16]);
            prop_assert_eq!(&*key.open(&key.seal(&seed).unwrap()).unwrap(), &seed);
        }

        #[test]
        fn appended_bytes_are_refused(tail in prop::collection::vec(any::<u8>(), 1..900)) {
            let key = seed_key([1; 16]);
            let mut sealed = key.seal(&[9; 32]).unwrap();
            sealed.extend_from_slice(&tail);
            prop_assert_eq!(key.open(&sealed), Err(EnvelopeError::Authentication));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..1100)) {
            prop_assert!(seed_key([1; 16]).open(&bytes).is_err());
        }
    }
}
