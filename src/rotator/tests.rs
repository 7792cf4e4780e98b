//! The timer and the record of a member, with a clock in hand.

use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::member::Member;
use claviger_keystore::testing::open_keystore;
use jiff::Timestamp;
use tempfile::TempDir;

use super::*;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// A member whose key must rotate every day.
struct Stand {
    keystore: Arc<Keystore>,
    dir: TempDir,
    rotator: Rotator,
}

fn clock() -> Clock {
    Clock {
        boottime: || Duration::ZERO,
        wall: || Timestamp::UNIX_EPOCH,
    }
}

fn rotator(keystore: &Arc<Keystore>, dir: &TempDir) -> Rotator {
    Rotator::new(Deps {
        keystore: keystore.clone(),
        convergence: Arc::default(),
        roots: watch::Sender::new(Vec::new()).subscribe(),
        name: "cp1".parse().unwrap(),
        keyring: dir.path().join("keyring"),
        clock: clock(),
    })
}

/// Both clocks, so many seconds after the key was made.
fn at(seconds: u64) -> Moment {
    Moment {
        boottime: Duration::from_secs(1_000 + seconds),
        wall: Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap(),
    }
}

impl Stand {
    async fn new() -> Self {
        let (keystore, _storage) = open_keystore().await;
        let daily = |keyring: &claviger_keystore::keyring::Keyring| {
            let mut policy = keyring.header().policy.clone();
            policy.rotate_every = DAY;
            Ok(keyring.with_policy(policy))
        };
        keystore.commit(at(0).wall, daily).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let rotator = rotator(&keystore, &dir);
        Self {
            keystore,
            dir,
            rotator,
        }
    }

    async fn key(&self, state: KeyState) -> Option<KeyId> {
        let keyring = self.keystore.keyring().await.unwrap();
        let mut keys = keyring.header().keys.iter();
        keys.find(|key| key.state == state).map(|key| key.id)
    }

    async fn own(&self) -> Option<MemberRecord> {
        let members = self.keystore.members().await.unwrap();
        members.first().and_then(Member::record).cloned()
    }
}

#[tokio::test]
async fn a_due_date_acts_after_an_hour_and_in_two_steps() {
    let mut stand = Stand::new().await;
    let old = stand.key(KeyState::Primary).await.unwrap();
    for quiet in [0, DAY - 1, DAY, DAY + HOUR - 1] {
        assert_eq!(stand.rotator.look(at(quiet)).await.unwrap(), None);
        assert_eq!(stand.key(KeyState::Primary).await, Some(old), "{quiet}");
        assert_eq!(stand.key(KeyState::Staged).await, None, "{quiet}");
    }
    stand.rotator.look(at(DAY + HOUR)).await.unwrap();
    let staged = stand.key(KeyState::Staged).await.unwrap();
    assert_eq!(stand.key(KeyState::Primary).await, Some(old));
    stand.rotator.look(at(DAY + HOUR + 1)).await.unwrap();
    assert_eq!(stand.key(KeyState::Primary).await, Some(staged));
    assert_eq!(stand.key(KeyState::Retired).await, Some(old));
    stand.rotator.look(at(DAY + HOUR + 2)).await.unwrap();
    assert_eq!(stand.key(KeyState::Primary).await, Some(staged), "once");
}

#[tokio::test]
async fn a_wall_clock_that_was_wrong_for_a_moment_rotates_nothing() {
    let mut stand = Stand::new().await;
    let wrong = |seconds| Moment {
        boottime: at(seconds).boottime,
        wall: at(30 * DAY).wall,
    };
    stand.rotator.look(wrong(0)).await.unwrap();
    stand.rotator.look(wrong(HOUR - 1)).await.unwrap();
    stand.rotator.look(at(HOUR)).await.unwrap();
    stand.rotator.look(wrong(HOUR + 1)).await.unwrap();
    stand.rotator.look(wrong(2 * HOUR)).await.unwrap();
    assert_eq!(stand.key(KeyState::Staged).await, None);
}

#[tokio::test]
async fn another_member_that_does_not_acknowledge_is_waited_for_and_named() {
    let mut stand = Stand::new().await;
    let other = claviger_keystore::testing::member_record("cp2", at(DAY + HOUR).wall);
    stand.keystore.put_member(&other).await.unwrap();
    stand.rotator.look(at(DAY)).await.unwrap();
    stand.rotator.look(at(DAY + HOUR)).await.unwrap();
    let waits = stand.rotator.look(at(DAY + HOUR + 1)).await.unwrap();
    assert!(
        waits.as_ref().is_some_and(|who| who.contains("cp2")),
        "{waits:?}"
    );
    assert!(stand.key(KeyState::Staged).await.is_some());

    let cp2 = "cp2".parse().unwrap();
    let now = at(DAY + HOUR + 2).wall;
    stand.keystore.remove_member(&cp2, now).await.unwrap();
    let waits = stand.rotator.look(at(DAY + HOUR + 2)).await.unwrap();
    assert_eq!(waits, None);
    assert_eq!(stand.key(KeyState::Staged).await, None);
}

#[tokio::test]
async fn a_record_is_written_when_it_says_something_new_and_each_minute() {
    let mut stand = Stand::new().await;
    let written = async |stand: &Stand| stand.own().await.unwrap().written;
    stand.rotator.look(at(0)).await.unwrap();
    assert_eq!(written(&stand).await, at(0).wall);
    stand.rotator.look(at(9)).await.unwrap();
    assert_eq!(written(&stand).await, at(0).wall, "nothing new");
    stand.rotator.look(at(10)).await.unwrap();
    assert_eq!(written(&stand).await, at(10).wall, "published");
    stand.rotator.look(at(69)).await.unwrap();
    assert_eq!(written(&stand).await, at(10).wall, "nothing new");
    stand.rotator.look(at(70)).await.unwrap();
    assert_eq!(written(&stand).await, at(70).wall, "a minute old");
}

#[tokio::test]
async fn who_does_not_hold_the_lock_says_and_does_nothing() {
    let mut stand = Stand::new().await;
    let command = MemberLock::take(&stand.dir.path().join("keyring")).unwrap();
    assert!(command.is_some());
    stand.rotator.look(at(0)).await.unwrap();
    assert_eq!(stand.own().await, None);
    drop(command);
    stand.rotator.look(at(1)).await.unwrap();
    assert!(stand.own().await.is_some());
}
