//! What `--key` asks about.

use std::collections::BTreeSet;

use claviger_keystore::key::KeyId;

use super::EtcdArgs;
use crate::audit::object::Protection;
use crate::audit::scope::Scope;
use crate::audit::tally::{Row, Tally};
use crate::cli::failure::{Exit, Failure};

/// Fewer digits would be ambiguous before long.
const FEWEST_DIGITS: usize = 4;

/// One key, one provider, or plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// What is not encrypted.
    Plaintext,
    /// One of our keys.
    Ours(KeyId),
    /// The first digits of one of our keys.
    Digits(String),
    /// The name of a provider, the key id of another plugin, or `aescbc:KEY`.
    Named(String),
}

impl Subject {
    pub(super) fn parse(text: &str, args: &EtcdArgs) -> Result<Self, Failure> {
        if text.starts_with('/') && args.cert.is_some() && args.cert_key.is_none() {
            return Err(usage(
                format!("--key {text} is a file, and --key asks about a KEK"),
                "the client certificate's key is --cert-key here",
            ));
        }
        let digits = text.strip_prefix("k1-").unwrap_or(text);
        let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        if let Ok(id) = text.parse() {
            Ok(Self::Ours(id))
        } else if text == "plaintext" {
            Ok(Self::Plaintext)
        } else if digits.chars().all(hex) && (FEWEST_DIGITS..32).contains(&digits.len()) {
            Ok(Self::Digits(digits.to_owned()))
        } else if text.is_empty() {
            let next = "give a key id, a provider's name, or plaintext";
            Err(usage("--key is empty".to_owned(), next))
        } else {
            Ok(Self::Named(text.to_owned()))
        }
    }

    /// Finds the key that digits mean, among those that were seen and those of the keyring.
    pub(super) fn resolve(self, tally: &Tally, scope: &Scope) -> Result<Self, Failure> {
        let Self::Digits(digits) = &self else {
            return Ok(self);
        };
        let seen = tally.rows().iter().filter_map(|row| match &row.protection {
            Protection::KmsV2 { key_id, .. } => key_id.parse().ok(),
            _ => None,
        });
        let known: BTreeSet<KeyId> = seen.chain(scope.keys.keys().copied()).collect();
        let meant = |id: &&KeyId| id.to_string()[3..].starts_with(digits.as_str());
        let mut meant = known.iter().filter(meant);
        match (meant.next(), meant.next()) {
            (Some(id), None) => Ok(Self::Ours(*id)),
            (Some(first), Some(second)) => Err(usage(
                format!("{digits} may be {first} or {second}"),
                "give more digits",
            )),
            // Another plugin may call its keys like that.
            (None, _) => match tally.rows().iter().any(|row| names(digits, row)) {
                true => Ok(Self::Named(digits.clone())),
                false => Err(usage(
                    format!("no key that was seen, or is in the keyring, begins with {digits}"),
                    "give the whole id to ask about a key that nothing names",
                )),
            },
        }
    }

    /// Whether a row is about it.
    pub(super) fn is_of(&self, row: &Row) -> bool {
        match (self, &row.protection) {
            (Self::Plaintext, Protection::Plaintext) => row.resource.is_some(),
            (Self::Ours(id), Protection::KmsV2 { key_id, .. }) => id.to_string() == *key_id,
            (Self::Named(name), _) => names(name, row),
            _ => false,
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plaintext => f.write_str("plaintext"),
            Self::Ours(id) => write!(f, "{id}"),
            Self::Digits(text) | Self::Named(text) => write!(f, "{}", text.escape_debug()),
        }
    }
}

fn names(name: &str, row: &Row) -> bool {
    match &row.protection {
        Protection::Plaintext => false,
        Protection::KmsV2 { provider, key_id } => {
            name == key_id || name == provider || name == row.protection.to_string()
        }
        Protection::Other { scheme, name: key } => {
            name == row.protection.to_string()
                || scheme.split(':').next() == Some(name)
                || name == key
        }
    }
}

fn usage(cause: String, next: &str) -> Failure {
    Failure::new(Exit::Usage, "reading --key", cause, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tally::Place;

    const ID: &str = "k1-000102030405060708090a0b0c0d0e0f";

    fn parse(text: &str) -> Result<Subject, Failure> {
        let args = EtcdArgs {
            endpoints: Vec::new(),
            cacert: None,
            cert: Some("/c".into()),
            cert_key: None,
            prefix: None,
            encryption_config: None,
        };
        Subject::parse(text, &args)
    }

    fn scope() -> Scope {
        let keys = [(
            ID.parse().unwrap(),
            claviger_keystore::key::KeyState::Retired,
        )];
        Scope {
            configuration: None,
            keys: keys.into(),
        }
    }

    #[test]
    fn digits_mean_a_key_that_is_known() {
        let ours = Subject::Ours(ID.parse().unwrap());
        let tally = Tally::new("/registry");
        for text in ["0001", "k1-0001", ID] {
            let subject = parse(text).unwrap().resolve(&tally, &scope()).unwrap();
            assert_eq!(subject, ours, "{text}");
        }
        let unknown = parse("ffff").unwrap().resolve(&tally, &scope());
        assert_eq!(unknown.unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn others_are_named_as_they_are_shown() {
        let mut tally = Tally::new("/registry");
        tally.add(
            Place::Current,
            b"/registry/secrets/a/b",
            b"k8s:enc:aescbc:v1:key1:x",
        );
        let row = &tally.rows()[0];
        for (text, expected) in [
            ("aescbc", true),
            ("aescbc:key1", true),
            ("key1", true),
            ("key2", false),
            ("plaintext", false),
        ] {
            assert_eq!(parse(text).unwrap().is_of(row), expected, "{text}");
        }
    }

    #[test]
    fn a_file_is_no_key() {
        let failure = parse("/etc/kubernetes/pki/etcd/client.key").unwrap_err();
        assert!(failure.next.contains("--cert-key"), "{failure}");
    }
}
