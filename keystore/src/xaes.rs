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
    (
        std::array::from_fn(|i| nonce[i]),
        std::array::from_fn(|i| nonce[12 + i]),
    )
}

#[cfg(test)]
mod tests {
    use sha3::Shake128;
    use sha3::digest::{ExtendableOutput, Update, XofReader};

    use super::*;

    /// C2SP's accumulated vectors: keys, nonces, plaintexts and AADs drawn from SHAKE-128, and one
    /// hash over all results. The two published vectors are in `tests/vectors/xaes.json`.
    fn accumulated(iterations: u32) -> String {
        let mut source = Shake128::default().finalize_xof();
        let mut results = Shake128::default();
        for _ in 0..iterations {
            let (mut key, mut nonce) = ([0; 32], [0; NONCE_LEN]);
            source.read(&mut key);
            source.read(&mut nonce);
            let mut plaintext = draw(&mut source);
            let aad = draw(&mut source);
            let tag = Xaes256Gcm::from_bytes(&key)
                .seal(&nonce, &aad, &mut plaintext)
                .unwrap();
            results.update(&plaintext);
            results.update(&tag);
        }
        let mut hash = [0; 32];
        results.finalize_xof().read(&mut hash);
        data_encoding::HEXLOWER.encode(&hash)
    }

    fn draw(source: &mut impl XofReader) -> Vec<u8> {
        let mut len = [0];
        source.read(&mut len);
        let mut bytes = vec![0; usize::from(len[0])];
        source.read(&mut bytes);
        bytes
    }

    #[test]
    fn ten_thousand_as_c2sp_accumulated_them() {
        let expected = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939";
        assert_eq!(accumulated(10_000), expected);
    }

    #[test]
    #[cfg_attr(
        debug_assertions,
        ignore = "two seconds with optimisation, minutes without"
    )]
    fn a_million_as_c2sp_accumulated_them() {
        let expected = "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15";
        assert_eq!(accumulated(1_000_000), expected);
    }
}
