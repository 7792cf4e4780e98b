//! The keyring, as metrics. Whoever keeps it says what is true now; a key that is no longer named
//! disappears.

use claviger_keystore::error::{DocumentError, Error, NotSuccessor, StorageError};
use claviger_keystore::key::{KeyId, KeyInfo, KeyState};
use claviger_keystore::snapshot::{Refusal, Snapshot};
use prometheus::proto::MetricFamily;

use super::Metrics;
use super::family::{Family, Sample, flag, seconds};
use super::names::{KEY_CREATED, KEY_INFO, KEYRING_CONDITION, KEYRING_OPEN, KEYRING_REVISION};

pub(super) const KEYRING: &[&Family] = &[
    &KEYRING_OPEN,
    &KEYRING_CONDITION,
    &KEYRING_REVISION,
    &KEY_INFO,
    &KEY_CREATED,
];

/// How the keyring is: the label of `claviger_keyring_condition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Open, and everything is served.
    Open,
    /// Open, but Status and Encrypt are refused.
    DecryptOnly,
    /// Open, but no key is primary.
    NoPrimary,
    /// Not read yet.
    Starting,
    /// There is none.
    Missing,
    /// It is there, but cannot be read: permissions, an I/O error, a storage that is away.
    Unreadable,
    /// Its bytes are torn or changed.
    Damaged,
    /// A newer Claviger wrote it.
    Newer,
    /// No configured root opens a slot.
    Locked,
    /// It is older than one that was seen here.
    Older,
    /// It contradicts one that was seen here.
    Forked,
    /// It belongs to another cluster, or is sealed with another keyring key.
    Foreign,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 12] = [
        Self::Open,
        Self::DecryptOnly,
        Self::NoPrimary,
        Self::Starting,
        Self::Missing,
        Self::Unreadable,
        Self::Damaged,
        Self::Newer,
        Self::Locked,
        Self::Older,
        Self::Forked,
        Self::Foreign,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::DecryptOnly => "decrypt_only",
            Self::NoPrimary => "no_primary",
            Self::Starting => "starting",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Damaged => "damaged",
            Self::Newer => "newer",
            Self::Locked => "locked",
            Self::Older => "older",
            Self::Forked => "forked",
            Self::Foreign => "foreign",
        }
    }

    fn of(snapshot: &Snapshot) -> Self {
        match snapshot.primary() {
            Ok(_) => Self::Open,
            Err(Refusal::NoPrimary) => Self::NoPrimary,
            Err(_) => Self::DecryptOnly,
        }
    }
}

/// Why an attempt to open the keyring failed.
impl From<&Error> for Condition {
    fn from(error: &Error) -> Self {
        match error {
            Error::Document(DocumentError::NewerFormat(_)) => Self::Newer,
            Error::Document(DocumentError::OtherKeyringKey) => Self::Foreign,
            Error::Document(_) => Self::Damaged,
            Error::NotSuccessor(NotSuccessor::Older { .. }) => Self::Older,
            Error::NotSuccessor(
                NotSuccessor::OtherCluster { .. } | NotSuccessor::OtherKeyringKey,
            ) => Self::Foreign,
            Error::NotSuccessor(_) => Self::Forked,
            Error::Storage(StorageError::Missing(_)) => Self::Missing,
            Error::NoSlotOpens(_) | Error::Root { .. } => Self::Locked,
            _ => Self::Unreadable,
        }
    }
}

impl Metrics {
    /// The keyring is open as `snapshot`; `keys` is what its header says of them.
    pub fn keyring_open(&self, snapshot: &Snapshot, keys: &[KeyInfo]) {
        let created = keys
            .iter()
            .map(|key| (vec![key.id.to_string()], seconds(key.created)));
        let mut families = condition(Condition::of(snapshot), true);
        families.extend([
            KEYRING_REVISION.value(Some(snapshot.revision() as f64)),
            KEY_INFO.with(snapshot.states().map(key_info)),
            KEY_CREATED.with(created),
        ]);
        self.keyring.set(families);
    }

    /// The keyring is not open.
    pub fn keyring_closed(&self, why: Condition) {
        self.keyring.set(condition(why, false));
    }
}

fn condition(present: Condition, open: bool) -> Vec<MetricFamily> {
    let conditions = Condition::ALL.into_iter().map(|condition| {
        (
            vec![condition.as_str().to_owned()],
            flag(condition == present),
        )
    });
    vec![
        KEYRING_OPEN.value(Some(flag(open))),
        KEYRING_CONDITION.with(conditions),
    ]
}

fn key_info((id, state): (KeyId, KeyState)) -> Sample {
    (
        vec![
            id.to_string(),
            id.apiserver_hash(),
            state.as_str().to_owned(),
        ],
        1.0,
    )
}

#[cfg(test)]
mod tests {
    use claviger_keystore::error::RootError;
    use claviger_keystore::testing::{open_keystore, rotate};
    use claviger_keystore::{Keystore, key};

    use super::*;
    use crate::metrics::testing::{metrics, series, value};

    async fn show(metrics: &Metrics, keystore: &Keystore) {
        let keyring = keystore.keyring().await.unwrap();
        metrics.keyring_open(keystore.view().snapshot().unwrap(), &keyring.header().keys);
    }

    fn key_info(id: &KeyId, state: KeyState) -> String {
        let hash = id.apiserver_hash();
        format!(r#"claviger_key_info{{key_id="{id}",key_id_hash="{hash}",state="{state}"}}"#)
    }

    fn conditions(metrics: &Metrics) -> Vec<String> {
        let mut set = series(metrics, "claviger_keyring_condition{");
        set.retain(|(_, value)| *value == 1.0);
        set.into_iter().map(|(name, _)| name).collect()
    }

    #[tokio::test]
    async fn every_key_with_its_state_and_hash() {
        let (keystore, _) = open_keystore().await;
        let metrics = metrics();
        show(&metrics, &keystore).await;
        let first = keystore.view().snapshot().unwrap().primary().unwrap();
        assert_eq!(value(&metrics, "claviger_keyring_open"), Some(1.0));
        assert_eq!(value(&metrics, "claviger_keyring_revision"), Some(1.0));
        assert_eq!(
            conditions(&metrics),
            [r#"claviger_keyring_condition{condition="open"}"#]
        );
        assert_eq!(
            value(&metrics, &key_info(&first, KeyState::Primary)),
            Some(1.0)
        );

        let second = rotate(&keystore).await;
        show(&metrics, &keystore).await;
        assert_ne!(first, second);
        assert_eq!(
            value(&metrics, &key_info(&second, KeyState::Primary)),
            Some(1.0)
        );
        assert_eq!(
            value(&metrics, &key_info(&first, KeyState::Retired)),
            Some(1.0)
        );
        // The series of the old state is gone, not 0.
        assert_eq!(value(&metrics, &key_info(&first, KeyState::Primary)), None);
        assert_eq!(series(&metrics, "claviger_key_info{").len(), 2);
        assert_eq!(
            series(&metrics, "claviger_key_created_timestamp_seconds{").len(),
            2
        );
    }

    #[tokio::test]
    async fn keys_that_vanished_are_gone() {
        let (keystore, _) = open_keystore().await;
        let metrics = metrics();
        rotate(&keystore).await;
        show(&metrics, &keystore).await;
        assert_eq!(series(&metrics, "claviger_key_info{").len(), 2);

        let (other, _) = open_keystore().await;
        show(&metrics, &other).await;
        let only = other.view().snapshot().unwrap().primary().unwrap();
        assert_eq!(
            series(&metrics, "claviger_key_info{"),
            [(key_info(&only, KeyState::Primary), 1.0)]
        );
        assert_eq!(
            series(&metrics, "claviger_key_created_timestamp_seconds{").len(),
            1
        );

        metrics.keyring_closed(Condition::Missing);
        assert_eq!(series(&metrics, "claviger_key_"), Vec::new());
        assert_eq!(value(&metrics, "claviger_keyring_open"), Some(0.0));
        assert_eq!(value(&metrics, "claviger_keyring_revision"), None);
        assert_eq!(
            conditions(&metrics),
            [r#"claviger_keyring_condition{condition="missing"}"#]
        );
    }

    #[test]
    fn creation_date() {
        let info = key::KeyInfo {
            id: "k1-ed41dddad06fa5a51ae4b71183601342".parse().unwrap(),
            state: KeyState::Primary,
            created: "2026-09-14T08:00:00Z".parse().unwrap(),
            activated: None,
            retired: None,
            disabled: None,
            destroyed: None,
        };
        let metrics = metrics();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (keystore, _) = runtime.block_on(open_keystore());
        metrics.keyring_open(keystore.view().snapshot().unwrap(), &[info]);
        let created = "claviger_key_created_timestamp_seconds";
        let created = format!(r#"{created}{{key_id="k1-ed41dddad06fa5a51ae4b71183601342"}}"#);
        assert_eq!(value(&metrics, &created), Some(1_789_372_800.0));
    }

    #[test]
    fn each_cause_has_its_condition() {
        use Condition as C;
        use NotSuccessor as N;
        let cluster = || ("a".to_owned(), "b".to_owned());
        let (seen, found) = cluster();
        let causes = [
            (Error::Document(DocumentError::NotTwoLines), C::Damaged),
            (Error::Document(DocumentError::Authentication), C::Damaged),
            (Error::Document(DocumentError::NewerFormat(2)), C::Newer),
            (Error::Document(DocumentError::OtherKeyringKey), C::Foreign),
            (
                Error::NotSuccessor(N::Older { seen: 2, found: 1 }),
                C::Older,
            ),
            (Error::NotSuccessor(N::Forked(2)), C::Forked),
            (
                Error::NotSuccessor(N::OtherCluster { seen, found }),
                C::Foreign,
            ),
            (Error::NotSuccessor(N::OtherKeyringKey), C::Foreign),
            (
                Error::Storage(StorageError::Missing("x".into())),
                C::Missing,
            ),
            (Error::Storage(StorageError::Conflict), C::Unreadable),
            (Error::NoSlotOpens(Vec::new()), C::Locked),
            (
                Error::Root {
                    name: "r".into(),
                    source: RootError::Outage("o".into()),
                },
                C::Locked,
            ),
            (
                Error::Mark {
                    path: "m".into(),
                    cause: "c".into(),
                },
                C::Unreadable,
            ),
        ];
        for (error, condition) in causes {
            assert_eq!(C::from(&error), condition, "{error}");
        }
    }
}
