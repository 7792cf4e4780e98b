//! The keyring at rest: two lines of text.
//!
//! ```text
//! {"format":1,"clusterId":…,"keys":[…],"slots":[…]}           what people may read
//! base64(nonce, 24 ‖ XAES-256-GCM(KEK ‖ KEK ‖ …) ‖ tag, 16)    the KEKs of all keys not destroyed
//! ```
//!
//! Both lines end with LF. The body is sealed under `D(KK, "claviger/v1/keyring/seal")` with the
//! first line, without its LF, as AAD, so nothing in the header can be changed unnoticed.

use std::fmt;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::error::{DocumentError, Error};
use crate::header::{DocumentHash, Header, Hex, KeyringKeyId};
use crate::key::Kek;
use crate::keyring::{Keyring, kept_keys};
pub use crate::limits::MAX_DOCUMENT_LEN as MAX_LEN;
use crate::secret::{SECRET_LEN, Secret, random_bytes, with_clean_stack};
use crate::xaes::{NONCE_LEN, TAG_LEN, Xaes256Gcm};

/// The key that seals a keyring's KEKs; what every slot wraps.
pub struct KeyringKey(pub(crate) Secret);

impl KeyringKey {
    /// A fresh one.
    pub fn generate() -> Result<Self, Error> {
        Secret::random().map(Self)
    }

    /// The same key, in pages of its own.
    pub(crate) fn copy(&self) -> Result<Self, Error> {
        Secret::copy_of(self.0.expose()).map(Self)
    }

    /// What the header shows of it. It commits every slot to one key.
    pub fn id(&self) -> Result<KeyringKeyId, Error> {
        self.0
            .derive("claviger/v1/keyring/id")
            .map(|id| Hex(*id.expose()))
    }

    /// What the members' records are authenticated with.
    pub(crate) fn member_key(&self) -> Result<Secret, Error> {
        self.0.derive("claviger/v1/member")
    }

    /// What proves that its holder made another one.
    pub(crate) fn rekeying_key(&self) -> Result<Secret, Error> {
        self.0.derive("claviger/v1/keyring/rekey")
    }

    fn sealing_key(&self) -> Result<Secret, Error> {
        self.0.derive("claviger/v1/keyring/seal")
    }

    fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        line: &[u8],
        keks: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Error> {
        let key = self.sealing_key()?;
        with_clean_stack(|| Xaes256Gcm::new(&key).seal(nonce, line, keks))
            .map_err(|_| DocumentError::Authentication.into())
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        line: &[u8],
        keks: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Error> {
        let key = self.sealing_key()?;
        with_clean_stack(|| Xaes256Gcm::new(&key).open(nonce, line, keks, tag))
            .map_err(|_| DocumentError::Authentication.into())
    }
}

impl fmt::Debug for KeyringKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyringKey(…)")
    }
}

/// A document whose form is right. What its header says is not to be believed until it was opened.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    bytes: Vec<u8>,
    header: Header,
    /// Nonce, ciphertext and tag.
    body: Vec<u8>,
}

impl Document {
    /// Takes bytes apart; anything that Claviger would not have written is refused.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_LEN {
            return Err(DocumentError::TooLarge(bytes.len()));
        }
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let (Some(header), Some(body), Some([]), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(DocumentError::NotTwoLines);
        };
        let header = Header::from_line(header)?;
        let keys = kept_keys(&header).count();
        let body = BASE64.decode(body).map_err(|_| DocumentError::Body(keys))?;
        if body.len() != NONCE_LEN + keys * SECRET_LEN + TAG_LEN {
            return Err(DocumentError::Body(keys));
        }
        Ok(Self {
            header,
            body,
            bytes,
        })
    }

    /// Seals a keyring under a fresh nonce.
    pub fn seal(keyring: &Keyring, key: &KeyringKey) -> Result<Self, Error> {
        let header = keyring.header();
        header.check()?;
        if key.id()? != header.keyring_key_id {
            return Err(DocumentError::OtherKeyringKey.into());
        }
        let line = header.to_line()?;
        let mut nonce = [0; NONCE_LEN];
        random_bytes(&mut nonce)?;
        let mut body = Zeroizing::new(Vec::with_capacity(
            NONCE_LEN + header.keys.len() * SECRET_LEN + TAG_LEN,
        ));
        body.extend_from_slice(&nonce);
        for kek in keyring.keks() {
            body.extend_from_slice(kek.expose());
        }
        let tag = key.seal(&nonce, &line, &mut body[NONCE_LEN..])?;
        body.extend_from_slice(&tag);
        let text = BASE64.encode(&body);
        let bytes = [&line, &b"\n"[..], text.as_bytes(), b"\n"].concat();
        if bytes.len() > MAX_LEN {
            return Err(DocumentError::TooLarge(bytes.len()).into());
        }
        Ok(Self {
            bytes,
            header: header.clone(),
            body: std::mem::take(&mut *body),
        })
    }

    /// Opens it; from here on everything in it is believed.
    pub fn open(&self, key: &KeyringKey) -> Result<Keyring, Error> {
        if !bool::from(key.id()?.0.ct_eq(&self.header.keyring_key_id.0)) {
            return Err(DocumentError::OtherKeyringKey.into());
        }
        let malformed = DocumentError::Body(0);
        let (nonce, rest) = self.body.split_first_chunk().ok_or(malformed.clone())?;
        let (sealed, tag) = rest.split_last_chunk().ok_or(malformed)?;
        let mut keks = Zeroizing::new(sealed.to_vec());
        let line = self.header.to_line()?;
        key.open(nonce, &line, &mut keks, tag)?;
        let (keks, _) = keks.as_chunks();
        let keks = keks.iter().map(Kek::from_bytes).collect::<Result<_, _>>()?;
        Keyring::from_parts(self.header.clone(), keks)
    }

    /// The two lines.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The SHA-256 of the two lines.
    pub fn hash(&self) -> DocumentHash {
        Hex(Sha256::digest(&self.bytes).into())
    }

    /// What the first line says. It only selects a slot until the document was opened.
    pub fn header(&self) -> &Header {
        &self.header
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}
