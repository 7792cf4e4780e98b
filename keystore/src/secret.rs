//! Thirty-two secret bytes, and the one way to derive others from them.
//!
//! A [`Secret`] lives in pages of its own that are locked into memory, left out of core dumps and
//! enclosed by guard pages; it is wiped when dropped. It has no `Clone` and no `Debug` that shows
//! anything, and its bytes are written in place, so that no copy stays on a stack.
#![expect(
    unsafe_code,
    reason = "memsec hands out raw pages; this file alone touches them"
)]

use std::fmt;
use std::ptr::NonNull;

use hkdf::Hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::zeroize_stack;

use crate::error::Error;

/// Length in bytes of every secret: KEK, keyring key, file root key and what is derived from them.
pub const SECRET_LEN: usize = 32;

/// Bytes of stack that are wiped after key schedules lay on it; unoptimised code needs most.
const STACK_WIPED: usize = 32 * 1024;

/// Thirty-two bytes in locked memory, wiped on drop.
pub struct Secret(NonNull<[u8; SECRET_LEN]>);

// SAFETY: a `Secret` owns its page alone, and hands out shared references only through `&self`.
unsafe impl Send for Secret {}
// SAFETY: as above; nothing is mutated through `&self`.
unsafe impl Sync for Secret {}

impl Secret {
    /// Makes a secret whose bytes `fill` writes in place.
    pub(crate) fn fill_with<E: From<Error>>(
        fill: impl FnOnce(&mut [u8; SECRET_LEN]) -> Result<(), E>,
    ) -> Result<Self, E> {
        // SAFETY: `malloc` returns a writable block for the type that nobody else holds, or none.
        let page = unsafe { memsec::malloc::<[u8; SECRET_LEN]>() }.ok_or(Error::OutOfMemory)?;
        let mut secret = Self(page);
        // SAFETY: the block is ours alone, and every bit pattern is a valid `[u8; 32]`.
        fill(unsafe { secret.0.as_mut() })?;
        Ok(secret)
    }

    /// A fresh secret from the operating system's generator.
    pub fn random() -> Result<Self, Error> {
        Self::fill_with(|bytes| random_bytes(bytes))
    }

    /// A secret with these bytes; the caller wipes its own copy.
    pub fn copy_of(bytes: &[u8; SECRET_LEN]) -> Result<Self, Error> {
        Self::fill_with(|page| {
            page.copy_from_slice(bytes);
            Ok(())
        })
    }

    /// `D(self, label)` of the format: HKDF-SHA-256 (RFC 5869) with this secret as IKM, no salt,
    /// and the ASCII label as info. The secret's own bytes are never used for anything else.
    pub(crate) fn derive(&self, label: &str) -> Result<Self, Error> {
        with_clean_stack(|| {
            Self::fill_with(|bytes| {
                Hkdf::<Sha256>::new(None, self.expose())
                    .expand(label.as_bytes(), bytes)
                    .map_err(|_| Error::OutOfMemory)
            })
        })
    }

    /// The bytes themselves, for a primitive's constructor.
    pub(crate) fn expose(&self) -> &[u8; SECRET_LEN] {
        // SAFETY: the page was initialised in `fill_with` and lives as long as `self`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // SAFETY: the page came from `memsec::malloc`, and nobody can hold a reference any more.
        unsafe {
            memsec::memzero(self.0.as_ptr().cast(), SECRET_LEN);
            memsec::free(self.0);
        }
    }
}

impl ConstantTimeEq for Secret {
    fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.expose().ct_eq(other.expose())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Runs work that holds secrets in variables, and then wipes the stack that it used. Best effort, and
/// not for the request path: what moves through registers and other frames is out of reach.
pub(crate) fn with_clean_stack<T>(work: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn apart<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    let done = apart(work);
    zeroize_stack::<STACK_WIPED>();
    done
}

/// Fills `buffer` from the operating system's generator, never from a generator in user space:
/// a cloned or restored virtual machine must not repeat a nonce.
pub(crate) fn random_bytes(buffer: &mut [u8]) -> Result<(), Error> {
    SystemRandom::new().fill(buffer).map_err(|_| Error::Random)
}

/// Whether the operating system's generator gives anything but the same bytes again and again, as
/// one that is broken or replaced might. To be asked once, at the start.
pub fn check_random() -> Result<(), Error> {
    let (mut first, mut second) = ([0; SECRET_LEN], [0; SECRET_LEN]);
    random_bytes(&mut first)?;
    random_bytes(&mut second)?;
    if first == second {
        Err(Error::Random)
    } else {
        Ok(())
    }
}

/// `LP(a, b, …)` of the format: each item as its length, u32 big-endian, then its bytes.
pub(crate) fn length_prefixed(items: &[&[u8]]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(items.iter().map(|item| 4 + item.len()).sum());
    for item in items {
        // Every item is a label, an id or a digest; none comes near 4 GiB.
        let len = u32::try_from(item.len()).unwrap_or(u32::MAX);
        joined.extend_from_slice(&len.to_be_bytes());
        joined.extend_from_slice(item);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_byte() {
        let secret = Secret::copy_of(&[0xab; SECRET_LEN]).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn labels_separate_derived_secrets() {
        let secret = Secret::copy_of(&[7; SECRET_LEN]).unwrap();
        let (a, b) = (secret.derive("a").unwrap(), secret.derive("b").unwrap());
        assert!(!bool::from(a.ct_eq(&b)));
        assert!(bool::from(a.ct_eq(&secret.derive("a").unwrap())));
    }

    #[test]
    fn random_secrets_differ() {
        let (a, b) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert!(!bool::from(a.ct_eq(&b)));
    }

    #[test]
    fn length_prefixes_are_big_endian() {
        assert_eq!(
            length_prefixed(&[b"ab", b""]),
            [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0]
        );
    }
}
