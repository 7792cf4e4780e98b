//! What a person means by `--key`: one key, one provider, or plaintext.

use std::collections::BTreeSet;
use std::fmt;

use claviger_keystore::key::KeyId;

use super::object::Protection;
use super::scope::Scope;
use super::tally::{Row, Tally};

/// From so many digits on, a text that begins no known key's id is a slip, not a provider's name.
const DIGITS: usize = 4;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// What is not encrypted.
    Plaintext,
    /// One of our keys.
    Ours(KeyId),
    /// A provider (`aescbc`, `aescbc:key1`, the name of a KMS plugin), or the key id of another
    /// plugin. Nothing need be named so.
    Named(String),
}

/// Why nothing can be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// There is no text.
    #[error("it is empty")]
    Empty,
    /// Several keys' ids begin so: these.
    #[error("it may be {}", .0.iter().map(String::as_str).collect::<Vec<_>>().join(" or "))]
    Several(BTreeSet<String>),
    /// It looks like the beginning of a key's id, and no known one begins so.
    #[error("no key that was seen, or is in the keyring, begins so")]
    Nothing,
}

impl Subject {
    /// Reads what a person wrote: a whole id of ours, whether or not it is known; `plaintext`; a
    /// name as it was seen; or the beginning of the id of a key that was seen or is in the keyring.
    ///
    /// # Errors
    /// Where it is none of these, or the beginning of several.
    pub fn find(text: &str, tally: &Tally, scope: &Scope) -> Result<Self, SubjectError> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Ours(id));
        }
        match text {
            "" => return Err(SubjectError::Empty),
            "plaintext" => return Ok(Self::Plaintext),
            _ => {}
        }
        let seen = || tally.rows().iter().map(|row| &row.protection);
        if seen().any(|protection| is_name(text, protection)) {
            return Ok(Self::Named(text.to_owned()));
        }
        let seen = seen().filter_map(|protection| match protection {
            Protection::KmsV2 { key_id, .. } => Some(key_id.clone()),
            _ => None,
        });
        let ours = scope.keys.keys().map(ToString::to_string);
        let meant: BTreeSet<String> = seen.chain(ours).filter(|id| begins(id, text)).collect();
        let mut ids = meant.iter();
        match (ids.next(), ids.next()) {
            (Some(id), None) => Ok(id
                .parse()
                .map_or_else(|_| Self::Named(id.clone()), Self::Ours)),
            (Some(_), Some(_)) => Err(SubjectError::Several(meant)),
            (None, _) if is_beginning(text) => Err(SubjectError::Nothing),
            (None, _) => Ok(Self::Named(text.to_owned())),
        }
    }

    /// Whether it protects the objects of a row.
    pub fn is_of(&self, row: &Row) -> bool {
        match (self, &row.protection) {
            (Self::Plaintext, Protection::Plaintext) => row.resource.is_some(),
            (Self::Ours(id), Protection::KmsV2 { key_id, .. }) => id.to_string() == *key_id,
            (Self::Named(name), protection) => is_name(name, protection),
            _ => false,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext => f.write_str("plaintext"),
            Self::Ours(id) => write!(f, "{id}"),
            Self::Named(text) => write!(f, "{}", text.escape_debug()),
        }
    }
}

/// Whether a protection is called so.
fn is_name(text: &str, protection: &Protection) -> bool {
    let parts = match protection {
        Protection::Plaintext => return false,
        Protection::KmsV2 { provider, key_id } => [provider.as_str(), key_id, key_id],
        Protection::Other { scheme, name } => {
            let kind = scheme.split(':').next().unwrap_or_default();
            [scheme.as_str(), kind, name]
        }
    };
    parts.contains(&text) || protection.to_string() == text
}

/// Whether a key's id begins so; of ours, `k1-…`, without the part that all have.
fn begins(id: &str, text: &str) -> bool {
    let digits = id.strip_prefix("k1-").unwrap_or(id);
    id.starts_with(text) || digits.starts_with(text)
}

/// Whether it can hardly be anything but the beginning of an id of ours.
fn is_beginning(text: &str) -> bool {
    let digits = text.strip_prefix("k1-").unwrap_or(text);
    let is_digit = |digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    digits.len() >= DIGITS && digits.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use claviger_keystore::key::KeyState;

    use super::*;
    use crate::audit::tally::Place;

    const OLD: &str = "k1-3f2a90b1030405060708090a0b0c0d0e";
    const LIKE: &str = "k1-3fff0000030405060708090a0b0c0d0e";
    const KEPT: &str = "k1-00010203030405060708090a0b0c0d0e";
    const UNKNOWN: &str = "k1-77770203030405060708090a0b0c0d0e";

    /// An object's value under KMS v2; its bytes are not opened.
    fn kms(provider: &str, key_id: &str) -> Vec<u8> {
        let length = u8::try_from(key_id.len()).unwrap();
        let object = [
            &[0x0a, 1, 9, 0x12, length],
            key_id.as_bytes(),
            &[0x1a, 1, 9],
        ]
        .concat();
        [format!("k8s:enc:kms:v2:{provider}:").into_bytes(), object].concat()
    }

    fn tally() -> Tally {
        let values: [&[u8]; 9] = [
            b"k8s\0",
            b"k8s:enc:aescbc:v1:key1:x",
            b"k8s:enc:aescbc:v1:key2:x",
            b"k8s:enc:kms:v1:vault:\0\x01wd",
            &kms("claviger", OLD),
            &kms("claviger-2", OLD),
            &kms("claviger", LIKE),
            &kms("go", "1"),
            &kms("go", "12"),
        ];
        let mut tally = Tally::new("/registry");
        for (at, value) in values.into_iter().enumerate() {
            let key = format!("/registry/secrets/test/{at}");
            tally.add(Place::Current, key.as_bytes(), value);
        }
        tally
    }

    fn find(text: &str) -> Result<Subject, SubjectError> {
        let scope = Scope {
            configuration: None,
            keys: [(KEPT.parse().unwrap(), KeyState::Disabled)].into(),
        };
        Subject::find(text, &tally(), &scope)
    }

    #[test]
    fn people_name_keys_providers_and_plaintext() {
        for (text, protected) in [
            ("plaintext", &[0][..]),
            ("aescbc", &[1, 2]),
            ("aescbc:v1", &[1, 2]),
            ("aescbc:key2", &[2]),
            ("key2", &[2]),
            ("kms:v1:vault", &[3]),
            ("claviger", &[4, 6]),
            (OLD, &[4, 5]),
            ("3f2a", &[4, 5]),
            ("k1-3f2a", &[4, 5]),
            ("3f2", &[4, 5]),
            ("go", &[7, 8]),
            ("1", &[7]),
            ("12", &[8]),
            ("secretbox", &[]),
            ("plain", &[]),
            (KEPT, &[]),
            ("0001", &[]),
            (UNKNOWN, &[]),
        ] {
            let subject = find(text).unwrap();
            let tally = tally();
            let rows = tally.rows().iter().enumerate();
            let found = rows.filter(|(_, row)| subject.is_of(row));
            let found: Vec<_> = found.map(|(at, _)| at).collect();
            assert_eq!(found, protected, "{text}");
        }
        assert_eq!(find("0001").unwrap().to_string(), KEPT);
    }

    #[test]
    fn what_means_nothing_or_several_is_refused() {
        let several = SubjectError::Several([OLD, LIKE].map(str::to_owned).into());
        assert_eq!(find("3f"), Err(several));
        assert!(matches!(find("k1-"), Err(SubjectError::Several(ids)) if ids.len() == 3));
        for (text, error) in [
            ("", SubjectError::Empty),
            ("ffff", SubjectError::Nothing),
            ("k1-ffff", SubjectError::Nothing),
        ] {
            assert_eq!(find(text), Err(error), "{text}");
        }
        assert!(find("fff").is_ok());
    }
}
