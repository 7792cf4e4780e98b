//! XAES-256-GCM, C2SP's AEAD with 256-bit keys and 192-bit nonces (<https://c2sp.org/XAES-256-GCM>).
//!
//! ```text
//! L  = AES-256(K, 0^128)          K1 = L << 1, xor 0x87 if the bit shifted out was 1   (once a key)
//! Kx = AES-256(K, (00 01 'X' 00 ‖ N[..12]) xor K1) ‖ AES-256(K, (00 02 'X' 00 ‖ N[..12]) xor K1)
//! C  = AES-256-GCM(Kx, N[12..], plaintext, aad)
//! ```
//!
//! Nonces come from the operating system: with 192 random bits no count needs to be kept (2^80
//! messages at a risk of 2^-32). Composed of the `aes` and `aes-gcm` crates, which wipe their key
//! schedules.

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, Key};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Length in bytes of a nonce.
pub(crate) const NONCE_LEN: usize = 24;
/// Length in bytes of a tag.
pub(crate) const TAG_LEN: usize = 16;

const BLOCK_LEN: usize = 16;

/// The tag did not verify, or (never for us) a message is over GCM's limit of 64 GiB.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) struct Failed;

/// A key of XAES-256-GCM, with its AES key schedule and K1 at hand.
pub(crate) struct Xaes256Gcm {
    cipher: Aes256,
    k1: Zeroizing<[u8; BLOCK_LEN]>,
}

impl Xaes256Gcm {
    pub(crate) fn new(key: &Secret) -> Self {
        Self::from_bytes(key.expose())
    }

    fn from_bytes(key: &[u8; 32]) -> Self {
        let cipher = Aes256::new(key.into());
        let mut l = Zeroizing::new([0; BLOCK_LEN]);
        cipher.encrypt_block((&mut *l).into());
        let k1 = Zeroizing::new(double(u128::from_be_bytes(*l)).to_be_bytes());
        Self { cipher, k1 }
    }

    /// Encrypts `buffer` in place and returns the tag.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Failed> {
        let (prefix, gcm_nonce) = split(nonce);
        let tag = self
            .message_cipher(&prefix)
            .encrypt_inout_detached((&gcm_nonce).into(), aad, buffer.into())
            .map_err(|_| Failed)?;
        Ok(tag.into())
    }

    /// Verifies the tag and then decrypts `buffer` in place. After an error the buffer still holds
    /// the ciphertext.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Failed> {
        let (prefix, gcm_nonce) = split(nonce);
        self.message_cipher(&prefix)
            .decrypt_inout_detached((&gcm_nonce).into(), aad, buffer.into(), tag.into())
            .map_err(|_| Failed)
    }

    /// AES-256-GCM under the key that belongs to the first half of the nonce.
    fn message_cipher(&self, prefix: &[u8; 12]) -> Aes256Gcm {
        let mut key = Zeroizing::new([0; 2 * BLOCK_LEN]);
        for (counter, half) in [1, 2].into_iter().zip(key.chunks_exact_mut(BLOCK_LEN)) {
            half[..4].copy_from_slice(&[0, counter, b'X', 0]);
            half[4..].copy_from_slice(prefix);
            for (byte, mask) in half.iter_mut().zip(self.k1.iter()) {
                *byte ^= mask;
            }
            if let Ok(block) = half.try_into() {
                self.cipher.encrypt_block(block);
            }
        }
        Aes256Gcm::new(<&Key<Aes256Gcm>>::from(&*key))
    }
}

/// Doubling in GF(2^128), as in CMAC (NIST SP 800-38B, 6.1), without a branch on the secret.
fn double(l: u128) -> u128 {
    (l << 1) ^ ((l >> 127) * 0x87)
}

fn split(nonce: &[u8; NONCE_LEN]) -> ([u8; 12], [u8; 12]) {
    (std::array::from_fn(|i| nonce[i]), std::array::from_fn(|i| nonce[12 + i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholder() {}
}
