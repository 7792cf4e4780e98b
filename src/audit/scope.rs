//! Which objects are not protected as they should be.
//!
//! The EncryptionConfiguration says which provider should protect a resource, and the keyring's
//! header which of our keys is primary. Each is optional, and what neither says is not judged.

use std::collections::BTreeMap;

use claviger_keystore::key::{KeyId, KeyState};

use super::object::{Protection, Resource};
use super::tally::{Row, Tally};
use crate::encryption_config::{EncryptionConfiguration, KmsVersion, ProviderKind};

/// What is known of how objects should be protected.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The EncryptionConfiguration of the cluster.
    pub configuration: Option<EncryptionConfiguration>,
    /// The states of our keys.
    pub keys: BTreeMap<KeyId, KeyState>,
}

/// How a row is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be, or nobody says how it should be.
    Fine,
    /// A rewrite would protect it otherwise: by another key or provider, or not at all.
    Stale,
    /// In the clear, as it should be: no resource that is to be encrypted.
    Clear,
}

impl Scope {
    /// The state of the key that protects something, if it is one of ours that the header lists.
    pub fn state(&self, protection: &Protection) -> Option<(KeyId, KeyState)> {
        let Protection::KmsV2 { key_id, .. } = protection else {
            return None;
        };
        let id: KeyId = key_id.parse().ok()?;
        self.keys.get(&id).map(|state| (id, *state))
    }

    /// How a row of the tally is to be taken. The tally shows which resources somebody encrypts,
    /// where no EncryptionConfiguration does.
    pub fn verdict(&self, row: &Row, tally: &Tally) -> Verdict {
        let Some(resource) = &row.resource else {
            return Verdict::Fine;
        };
        if row.protection == Protection::Plaintext {
            return match self.is_clear(resource, tally) {
                true => Verdict::Clear,
                false => Verdict::Stale,
            };
        }
        let lags = self
            .state(&row.protection)
            .is_some_and(|(_, state)| state != KeyState::Primary);
        let other = match &self.configuration {
            Some(configuration) => !is_written_by(configuration, resource, &row.protection),
            None => false,
        };
        match lags || other {
            true => Verdict::Stale,
            false => Verdict::Fine,
        }
    }

    /// Whether plaintext is how objects of this resource should be.
    fn is_clear(&self, resource: &Resource, tally: &Tally) -> bool {
        if resource.is_internal() {
            return true;
        }
        match &self.configuration {
            Some(configuration) => is_written_by(configuration, resource, &Protection::Plaintext),
            None => {
                let secrets = resource.name == "secrets" && resource.group.as_deref() == Some("");
                !secrets && !has_encrypted(resource, tally)
            }
        }
    }
}

/// Whether some object of the resource is encrypted now; where there are snapshots alone, in them.
fn has_encrypted(resource: &Resource, tally: &Tally) -> bool {
    let live = tally.rows().iter().any(|row| row.counts.current > 0);
    tally.rows().iter().any(|row| {
        let now = match live {
            true => row.counts.current,
            false => row.counts.snapshot_values,
        };
        row.resource.as_ref() == Some(resource)
            && row.protection != Protection::Plaintext
            && now > 0
    })
}

/// Whether kube-apiserver would write an object of this resource like that. A resource whose group
/// we do not know may be meant by any wildcard, and is taken for a core one.
fn is_written_by(
    configuration: &EncryptionConfiguration,
    resource: &Resource,
    protection: &Protection,
) -> bool {
    let group = resource.group.as_deref().unwrap_or_default();
    let providers = configuration.providers_of(&resource.name, group);
    let first = providers.first().map(|provider| &provider.kind);
    match (first.unwrap_or(&ProviderKind::Identity), protection) {
        (ProviderKind::Identity, Protection::Plaintext) => true,
        (ProviderKind::Kms(kms), Protection::KmsV2 { provider, .. }) => {
            kms.version == KmsVersion::V2 && kms.name == *provider
        }
        (ProviderKind::Kms(kms), Protection::Other { scheme, name }) => {
            kms.version == KmsVersion::V1 && scheme == "kms:v1" && kms.name == *name
        }
        (ProviderKind::AesCbc, Protection::Other { scheme, .. }) => scheme == "aescbc:v1",
        (ProviderKind::AesGcm, Protection::Other { scheme, .. }) => scheme == "aesgcm:v1",
        (ProviderKind::Secretbox, Protection::Other { scheme, .. }) => scheme == "secretbox:v1",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::Place;
    use super::*;

    const CONFIGURATION: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - kms: {apiVersion: v2, name: ours, endpoint: unix:///run/claviger/kms.sock}
  - identity: {}
- resources: [widgets.example.com]
  providers:
  - identity: {}
  - kms: {apiVersion: v2, name: others, endpoint: unix:///run/others.sock}
";
    const OURS: &str = "k1-000102030405060708090a0b0c0d0e0f";

    fn tally() -> Tally {
        let mut tally = Tally::new("/registry");
        let envelope = |provider: &str| {
            let seed = [&[0x0a, 1, 9, 0x12, 35], OURS.as_bytes(), &[0x1a, 1, 9]].concat();
            [format!("k8s:enc:kms:v2:{provider}:").as_bytes(), &seed].concat()
        };
        let mut add = |key: &str, value: &[u8]| tally.add(Place::Current, key.as_bytes(), value);
        add("/registry/secrets/a/1", &envelope("ours"));
        add("/registry/secrets/a/2", &envelope("theirs"));
        add("/registry/secrets/a/3", b"k8s\0");
        add("/registry/configmaps/a/4", b"k8s\0");
        add("/registry/configmaps/a/5", b"k8s:enc:aescbc:v1:key1:x");
        add("/registry/pods/a/6", b"k8s\0");
        add("/registry/example.com/widgets/a/7", b"{}");
        add("/registry/masterleases/10.0.0.1", b"k8s\0");
        add("/other/secrets/a/8", &envelope("ours"));
        tally
    }

    fn verdicts(scope: &Scope) -> Vec<Verdict> {
        let tally = tally();
        let rows = tally.rows().iter();
        rows.map(|row| scope.verdict(row, &tally)).collect()
    }

    #[test]
    fn the_encryption_configuration_says_what_is_stale() {
        use Verdict::{Clear, Fine, Stale};
        let scope = Scope {
            configuration: Some(crate::encryption_config::parse(CONFIGURATION).unwrap()),
            keys: BTreeMap::new(),
        };
        let expected = [Fine, Stale, Stale, Clear, Stale, Clear, Clear, Clear, Fine];
        assert_eq!(verdicts(&scope), expected);
    }

    #[test]
    fn without_one_plaintext_is_stale_beside_encrypted_objects() {
        use Verdict::{Clear, Fine, Stale};
        let expected = [Fine, Fine, Stale, Stale, Fine, Clear, Clear, Clear, Fine];
        assert_eq!(verdicts(&Scope::default()), expected);
    }

    #[test]
    fn of_snapshots_alone_plaintext_is_judged_by_what_is_in_them() {
        let mut alone = Tally::new("/registry");
        alone.add_snapshot("file", &tally());
        let judge = |tally: &Tally, wanted: &str| {
            let mut rows = tally.rows().iter();
            let row = rows.find(|row| {
                let name = row.resource.as_ref().map(|resource| &*resource.name);
                name == Some(wanted) && row.protection == Protection::Plaintext
            });
            Scope::default().verdict(row.unwrap(), tally)
        };
        assert_eq!(judge(&alone, "configmaps"), Verdict::Stale);
        assert_eq!(judge(&alone, "pods"), Verdict::Clear);

        // Beside a live etcd an old snapshot says nothing of how it should be now.
        let mut both = Tally::new("/registry");
        both.add(Place::Current, b"/registry/configmaps/a/4", b"k8s\0");
        both.add_snapshot("file", &tally());
        assert_eq!(judge(&both, "configmaps"), Verdict::Clear);
    }

    #[test]
    fn a_key_that_is_not_primary_is_stale() {
        for (state, expected) in [
            (KeyState::Primary, Verdict::Fine),
            (KeyState::Retired, Verdict::Stale),
            (KeyState::Destroyed, Verdict::Stale),
        ] {
            let scope = Scope {
                configuration: None,
                keys: BTreeMap::from([(OURS.parse().unwrap(), state)]),
            };
            assert_eq!(verdicts(&scope)[0], expected, "{state:?}");
        }
    }
}
