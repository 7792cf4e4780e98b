//! Which objects are to be rewritten: all that are not as they should be, or all under one key.

use std::collections::BTreeSet;

use claviger_keystore::key::KeyState;

use crate::audit::object::Protection;
use crate::audit::scope::{Scope, Verdict};
use crate::audit::tally::{Row, Tally};

/// What is stale.
#[derive(Debug, Clone)]
pub enum Stale {
    /// What an audit calls stale; and where no EncryptionConfiguration says that another provider is
    /// right, whatever else is encrypted and not under the primary key.
    Unlike(Scope),
    /// Whatever one of these protects, plaintext only where it should not be.
    Under {
        /// Them.
        protections: BTreeSet<Protection>,
        /// How objects should be.
        scope: Scope,
    },
}

impl Stale {
    /// Whether the objects of this row of a tally are to be rewritten.
    pub fn is(&self, row: &Row, tally: &Tally) -> bool {
        let plaintext = row.protection == Protection::Plaintext;
        match self {
            Self::Unlike(scope) => {
                let primary = scope.state(&row.protection);
                let by_primary = primary.is_some_and(|(_, state)| state == KeyState::Primary);
                let judged = plaintext || scope.configuration.is_some() || row.resource.is_none();
                scope.verdict(row, tally) == Verdict::Stale || !(judged || by_primary)
            }
            Self::Under { protections, scope } => {
                let clear = plaintext && scope.verdict(row, tally) != Verdict::Stale;
                row.resource.is_some() && protections.contains(&row.protection) && !clear
            }
        }
    }
}

/// Everything in an etcd that a person may mean by this: `plaintext`, a provider (`aescbc`,
/// `aescbc:key1`, the name of a KMS plugin), or the beginning of a key id.
///
/// # Errors
/// Where a key id's beginning fits several: these.
pub fn named<'a>(
    wanted: &str,
    protections: impl Iterator<Item = &'a Protection>,
) -> Result<BTreeSet<Protection>, BTreeSet<String>> {
    let mut providers = BTreeSet::new();
    let mut keys = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for protection in protections {
        let shown = protection.to_string();
        let (by_name, id) = match protection {
            Protection::Plaintext => (wanted == shown, None),
            Protection::KmsV2 { provider, key_id } => {
                (wanted == provider || wanted == shown, Some(key_id))
            }
            Protection::Other { scheme, .. } => {
                let kind = scheme.split(':').next().unwrap_or_default();
                (wanted == shown || wanted == scheme || wanted == kind, None)
            }
        };
        if by_name {
            providers.insert(protection.clone());
        } else if let Some(id) = id.filter(|id| begins(id, wanted)) {
            keys.insert(protection.clone());
            ids.insert(id.clone());
        }
    }
    match (providers.is_empty(), ids.len()) {
        (false, _) => Ok(providers),
        (true, 0 | 1) => Ok(keys),
        // A whole id that others begin with, too.
        (true, _) if ids.contains(wanted) => Ok(keys
            .into_iter()
            .filter(|key| matches!(key, Protection::KmsV2 { key_id, .. } if key_id == wanted))
            .collect()),
        (true, _) => Err(ids),
    }
}

/// Whether a key id begins so; of ours, `k1-…`, without the part that all have.
fn begins(id: &str, wanted: &str) -> bool {
    let digits = id.strip_prefix("k1-").unwrap_or(id);
    !wanted.is_empty() && (id.starts_with(wanted) || digits.starts_with(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tally::Place;

    const NEW: &str = "k1-000102030405060708090a0b0c0d0e0f";
    const OLD: &str = "k1-3f2a90b1030405060708090a0b0c0d0e";
    const PLAIN: Protection = Protection::Plaintext;

    fn kms(provider: &str, key_id: &str) -> Protection {
        Protection::KmsV2 {
            provider: provider.to_owned(),
            key_id: key_id.to_owned(),
        }
    }

    fn other(scheme: &str, name: &str) -> Protection {
        Protection::Other {
            scheme: scheme.to_owned(),
            name: name.to_owned(),
        }
    }

    fn envelope(key_id: &str) -> Vec<u8> {
        let length = u8::try_from(key_id.len()).unwrap();
        let fields = [
            &[0x0a, 1, 9, 0x12, length],
            key_id.as_bytes(),
            &[0x1a, 1, 9],
        ]
        .concat();
        [b"k8s:enc:kms:v2:claviger:".to_vec(), fields].concat()
    }

    fn tally() -> Tally {
        let mut tally = Tally::new("/registry");
        let mut add = |key: &str, value: &[u8]| tally.add(Place::Current, key.as_bytes(), value);
        add("/registry/secrets/a/0", &envelope(NEW));
        add("/registry/secrets/a/1", &envelope(OLD));
        add("/registry/secrets/a/2", b"k8s:enc:aescbc:v1:key1:x");
        add("/registry/secrets/a/3", b"k8s\0");
        add("/registry/configmaps/a/4", b"k8s\0");
        add("/other/secrets/a/5", &envelope(OLD));
        tally
    }

    fn stale(stale: &Stale) -> Vec<bool> {
        let tally = tally();
        let rows = tally.rows().iter();
        rows.map(|row| stale.is(row, &tally)).collect()
    }

    fn keys() -> Scope {
        let state = |id: &str, state| (id.parse().unwrap(), state);
        Scope {
            configuration: None,
            keys: [state(NEW, KeyState::Primary), state(OLD, KeyState::Retired)].into(),
        }
    }

    #[test]
    fn whatever_the_primary_does_not_protect_is_stale_and_plaintext_where_others_are_not() {
        let unlike = Stale::Unlike(keys());
        assert_eq!(stale(&unlike), [false, true, true, true, false, false]);
    }

    #[test]
    fn what_a_file_calls_right_is_not_stale() {
        let file = "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aescbc: {keys: [{name: key1, secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}]}
";
        let unlike = Stale::Unlike(Scope {
            configuration: Some(crate::encryption_config::parse(file).unwrap()),
            ..keys()
        });
        assert_eq!(stale(&unlike), [true, true, false, true, false, false]);
    }

    #[test]
    fn one_key_alone_may_be_asked_for_and_plaintext_only_where_it_should_not_be() {
        let under = |protection| Stale::Under {
            protections: BTreeSet::from([protection]),
            scope: Scope::default(),
        };
        let old = [false, true, false, false, false, false];
        assert_eq!(stale(&under(kms("claviger", OLD))), old);
        let plain = [false, false, false, true, false, false];
        assert_eq!(stale(&under(PLAIN)), plain);
    }

    #[test]
    fn people_name_keys_providers_and_plaintext() {
        let all = [
            PLAIN,
            other("aescbc:v1", "key1"),
            other("aescbc:v1", "key2"),
            other("kms:v1", "vault"),
            kms("claviger", "k1-3f2a90b1"),
            kms("claviger-2", "k1-3f2a90b1"),
            kms("claviger", "k1-3fff"),
            kms("go", "1"),
            kms("go", "12"),
        ];
        let named = |wanted: &str| {
            named(wanted, all.iter()).map(|found| {
                let at = |found| all.iter().position(|one| *one == found).unwrap();
                let mut found: Vec<_> = found.into_iter().map(at).collect();
                found.sort_unstable();
                found
            })
        };
        for (wanted, found) in [
            ("plaintext", &[0][..]),
            ("aescbc", &[1, 2]),
            ("aescbc:v1", &[1, 2]),
            ("aescbc:key2", &[2]),
            ("kms:v1:vault", &[3]),
            ("claviger", &[4, 6]),
            ("claviger/k1-3fff", &[6]),
            ("3f2a", &[4, 5]),
            ("k1-3f2a", &[4, 5]),
            ("k1-3f2a90b1", &[4, 5]),
            ("go", &[7, 8]),
            ("1", &[7]),
            ("12", &[8]),
            ("", &[]),
            ("secretbox", &[]),
            ("plain", &[]),
        ] {
            assert_eq!(named(wanted).as_deref(), Ok(found), "{wanted}");
        }
        for unclear in ["3f", "k1-", "k1"] {
            assert_eq!(named(unclear).unwrap_err().len(), 2, "{unclear}");
        }
    }
}
