//! Which objects are to be rewritten: all that are not as they should be, or all under one key.

use crate::audit::object::Protection;
use crate::audit::scope::{Scope, Verdict};
use crate::audit::subject::Subject;
use crate::audit::tally::{Row, Tally};

/// What is stale.
#[derive(Debug, Clone)]
pub enum Stale {
    /// What an audit calls stale, and nothing else: it decides whether anything is left.
    Unlike(Scope),
    /// Whatever this protects, plaintext only where it should not be.
    Under {
        /// A key, a provider, or plaintext.
        subject: Subject,
        /// How objects should be.
        scope: Scope,
    },
}

impl Stale {
    /// Whether the objects of this row of a tally are to be rewritten.
    pub fn is(&self, row: &Row, tally: &Tally) -> bool {
        match self {
            Self::Unlike(scope) => scope.verdict(row, tally) == Verdict::Stale,
            Self::Under { subject, scope } => {
                let plaintext = row.protection == Protection::Plaintext;
                let clear = plaintext && scope.verdict(row, tally) != Verdict::Stale;
                row.resource.is_some() && subject.is_of(row) && !clear
            }
        }
    }

    /// How objects should be.
    pub fn scope(&self) -> &Scope {
        match self {
            Self::Unlike(scope) | Self::Under { scope, .. } => scope,
        }
    }
}

#[cfg(test)]
mod tests {
    use claviger_keystore::key::KeyState;

    use super::*;
    use crate::audit::tally::Place;

    const NEW: &str = "k1-000102030405060708090a0b0c0d0e0f";
    const OLD: &str = "k1-3f2a90b1030405060708090a0b0c0d0e";

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
    fn what_an_old_key_protects_is_stale_and_plaintext_where_others_are_not() {
        let unlike = Stale::Unlike(keys());
        assert_eq!(stale(&unlike), [false, true, false, true, false, false]);
    }

    /// Without a file nobody says that another provider is wrong: a rewrite might change nothing,
    /// and the audit that follows would never end it.
    #[test]
    fn what_an_audit_does_not_call_stale_is_not_moved() {
        let (tally, scope) = (tally(), keys());
        let unlike = Stale::Unlike(scope.clone());
        for row in tally.rows() {
            let verdict = scope.verdict(row, &tally) == Verdict::Stale;
            assert_eq!(unlike.is(row, &tally), verdict, "{}", row.protection);
        }
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
        let under = |subject| Stale::Under {
            subject,
            scope: Scope::default(),
        };
        let old = [false, true, false, false, false, false];
        assert_eq!(stale(&under(Subject::Ours(OLD.parse().unwrap()))), old);
        let other = [false, false, true, false, false, false];
        assert_eq!(stale(&under(Subject::Named("aescbc".to_owned()))), other);
        let plain = [false, false, false, true, false, false];
        assert_eq!(stale(&under(Subject::Plaintext)), plain);
    }
}
