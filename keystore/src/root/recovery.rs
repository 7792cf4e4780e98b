//! The recovery key: a key file's 32 bytes, written for people and kept on paper.
//!
//! ```text
//! Crockford base32 of (key, 32 ‖ checksum, 5 ‖ 4 zero bits), in 12 groups of five
//! checksum = the first 5 bytes of SHA-256(LP("claviger/v1/recovery", key))
//! ```

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use async_trait::async_trait;
use data_encoding::{Encoding, Specification};
use rustix::fs::Mode;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::key_file::FileKey;
use super::{Binding, Payload, Root, Wrapped};
use crate::durable;
use crate::error::{Error, RecoveryKeyError, RootError};
use crate::header::SlotKind;
use crate::secret::{SECRET_LEN, Secret, length_prefixed};

const CHECKSUM_LEN: usize = 5;
/// 37 bytes in symbols of 5 bits, the last one filled up with 4 zero bits.
const SYMBOLS: usize = 60;
const GROUP: usize = 5;
/// A file with a recovery key may have comments of white space around it, but no more.
const MAX_FILE_LEN: u64 = 1024;

/// Crockford's base32 (<https://www.crockford.com/base32.html>): no I, L, O, U; the first three are
/// read as the digits they look like, and case does not matter.
static CROCKFORD: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("0123456789ABCDEFGHJKMNPQRSTVWXYZ");
    spec.translate.from.push_str("abcdefghjkmnpqrstvwxyzOoIiLl");
    spec.translate.to.push_str("ABCDEFGHJKMNPQRSTVWXYZ001111");
    spec.encoding().ok()
});

/// A recovery key's 32 bytes.
#[derive(Debug)]
pub struct RecoveryKey(Secret);

impl RecoveryKey {
    /// A fresh one.
    pub fn generate() -> Result<Self, Error> {
        Secret::random().map(Self)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn from_secret(secret: Secret) -> Self {
        Self(secret)
    }

    /// The text for paper: 12 groups of five, joined by dashes.
    pub fn to_text(&self) -> Result<Zeroizing<String>, Error> {
        let mut bytes = Zeroizing::new([0; SECRET_LEN + CHECKSUM_LEN]);
        bytes[..SECRET_LEN].copy_from_slice(self.0.expose());
        bytes[SECRET_LEN..].copy_from_slice(&checksum(self.0.expose()));
        let encoding = CROCKFORD.as_ref().ok_or(malformed())?;
        let symbols = Zeroizing::new(encoding.encode(&*bytes));
        // The capacity is exact: a string that grew would leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(SYMBOLS + SYMBOLS / GROUP));
        for (i, symbol) in symbols.chars().enumerate() {
            if i > 0 && i % GROUP == 0 {
                text.push('-');
            }
            text.push(symbol);
        }
        Ok(text)
    }

    /// Writes the text to a new file, mode 0400, durably.
    ///
    /// # Errors
    /// [`Error::Storage`] where the file exists or cannot be made.
    pub fn write_to(&self, path: &Path) -> Result<(), Error> {
        let text = self.to_text()?;
        Ok(durable::create(path, text.as_bytes(), Mode::RUSR)?)
    }

    /// Reads the text; white space and dashes may stand anywhere.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let mut symbols = Zeroizing::new(String::with_capacity(text.len()));
        symbols.extend(text.chars().filter(|c| !c.is_whitespace() && *c != '-'));
        if symbols.len() != SYMBOLS {
            return Err(malformed());
        }
        let encoding = CROCKFORD.as_ref().ok_or(malformed())?;
        let bytes = Zeroizing::new(
            encoding
                .decode(symbols.as_bytes())
                .map_err(|_| malformed())?,
        );
        let (key, sum) = bytes.split_first_chunk::<SECRET_LEN>().ok_or(malformed())?;
        if !bool::from(checksum(key).ct_eq(sum)) {
            return Err(Error::RecoveryKey(RecoveryKeyError::Checksum));
        }
        Secret::copy_of(key).map(Self)
    }
}

/// Where a recovery root finds its key.
enum Source {
    /// At hand: just generated, or typed in.
    Key(RecoveryKey),
    /// In a file, with the text.
    File(PathBuf),
}

/// A root whose key is written on paper.
pub struct Recovery {
    name: String,
    source: Source,
}

impl Recovery {
    /// The name of the slot that `init` makes.
    pub const SLOT_NAME: &str = "recovery";

    /// A root with a key at hand.
    pub fn with_key(key: RecoveryKey) -> Self {
        Self {
            name: Self::SLOT_NAME.to_owned(),
            source: Source::Key(key),
        }
    }

    /// A root with a copy of a key that is kept for showing.
    pub fn of(key: &RecoveryKey) -> Result<Self, Error> {
        Ok(Self::with_key(RecoveryKey(Secret::copy_of(
            key.0.expose(),
        )?)))
    }

    /// A root whose key is in a file; the file is read when it is needed.
    pub fn with_file(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            source: Source::File(path.into()),
        }
    }

    fn key(&self) -> Result<FileKey, RootError> {
        let unusable = |e: Error| RootError::Unusable(e.to_string());
        match &self.source {
            Source::Key(key) => FileKey::new(&key.0).map_err(unusable),
            Source::File(path) => {
                let text = durable::read(path, MAX_FILE_LEN);
                let text = Zeroizing::new(text.map_err(|e| RootError::Unusable(e.to_string()))?);
                let text = std::str::from_utf8(&text).map_err(|_| unusable(malformed()))?;
                let key = RecoveryKey::from_text(text)
                    .map_err(|e| RootError::Unusable(format!("{}: {e}", path.display())))?;
                FileKey::new(&key.0).map_err(unusable)
            }
        }
    }
}

#[async_trait]
impl Root for Recovery {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> SlotKind {
        SlotKind::Recovery
    }

    async fn wrap(&self, binding: &Binding, payload: &Payload) -> Result<Wrapped, RootError> {
        self.key()?.wrap(binding, payload)
    }

    async fn unwrap(&self, binding: &Binding, wrapped: &Wrapped) -> Result<Payload, RootError> {
        self.key()?.unwrap(binding, wrapped)
    }

    async fn check(&self) -> Result<(), RootError> {
        self.key().map(drop)
    }
}

fn checksum(key: &[u8; SECRET_LEN]) -> [u8; CHECKSUM_LEN] {
    let input = Zeroizing::new(length_prefixed(&[b"claviger/v1/recovery", key]));
    let digest: [u8; 32] = Sha256::digest(&*input).into();
    std::array::from_fn(|i| digest[i])
}

fn malformed() -> Error {
    Error::RecoveryKey(RecoveryKeyError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(bytes: [u8; SECRET_LEN]) -> RecoveryKey {
        RecoveryKey::from_secret(Secret::copy_of(&bytes).unwrap())
    }

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recovery.key");
        std::fs::write(&path, &*key([1; 32]).to_text().unwrap()).unwrap();
        let other = Recovery::with_key(key([2; 32]));
        crate::testing::root_contract(&Recovery::with_key(key([1; 32])), &other).await;
        crate::testing::root_contract(&Recovery::with_file("paper", path), &other).await;
    }

    #[test]
    fn twelve_groups_of_five() {
        let text = key([1; 32]).to_text().unwrap();
        let groups: Vec<_> = text.split('-').collect();
        assert_eq!(groups.len(), 12);
        assert!(groups.iter().all(|group| group.len() == 5));
    }

    #[test]
    fn a_mistyped_symbol_is_noticed() {
        let text = key([1; 32]).to_text().unwrap();
        for position in 0..text.len() {
            let mut typed = text.to_string().into_bytes();
            if typed[position] == b'-' {
                continue;
            }
            typed[position] = if typed[position] == b'Q' { b'R' } else { b'Q' };
            let typed = String::from_utf8(typed).unwrap();
            assert!(RecoveryKey::from_text(&typed).is_err(), "at {position}");
        }
    }

    proptest! {
        #[test]
        fn it_reads_back_however_it_is_typed(bytes: [u8; SECRET_LEN]) {
            let text = key(bytes).to_text().unwrap();
            let typed = text.to_lowercase().replace('-', " ").replace('1', "l").replace('0', "O");
            let read = RecoveryKey::from_text(&format!("  {typed}\n")).unwrap();
            prop_assert_eq!(read.0.expose(), &bytes);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            prop_assert!(RecoveryKey::from_text(&text).is_err());
        }
    }
}
