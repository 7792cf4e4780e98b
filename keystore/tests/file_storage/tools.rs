//! Rows 66, 67, 74 and 76: other tools write the file while a member watches it.

use std::fs::{File, OpenOptions, rename, write};
use std::io::Write;
use std::time::{Duration, Instant};

use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::snapshot::View;
use claviger_keystore::store::{self, Synced};
use claviger_keystore::testing::{NOW, rotate, test_root};
use rustix::fs::{FlockOperation, flock};
use tokio::time::timeout;

use crate::files::Files;
use crate::node::{SEED, closed_reason, open, revision, seal, touch};

/// A member at revision 1, and the document of revision 3 that is to come by another way.
async fn member_and_newer() -> (Files, claviger_keystore::Keystore, Vec<u8>) {
    let files = Files::new().await;
    let (first, member) = (files.bytes(), files.member().await);
    rotate(&files.member().await).await;
    let newer = files.bytes();
    // In place, as `cp` would.
    write(files.keyring(), first).unwrap();
    // The one that rotated shared the member's mark; the member alone remembers revision 1.
    std::fs::remove_file(files.path("keyring.mark")).unwrap();
    member.sync(NOW).await.unwrap();
    (files, member, newer)
}

/// Long enough for any look, by a clock that only goes when nobody has anything to do.
const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn row_76_a_copy_that_grows_is_accepted_only_once_it_is_whole() {
    let (files, member, newer) = member_and_newer().await;
    let sealed = seal(&member);
    let mut file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(files.keyring())
        .unwrap();
    for piece in newer.chunks(13) {
        assert!(member.sync(NOW).await.is_err());
        assert_eq!(revision(&member), 1);
        assert_eq!(open(&member, &sealed).unwrap(), SEED);
        let starting = files.start();
        assert!(starting.sync(NOW).await.is_err());
        assert!(matches!(**starting.view(), View::Closed(_)));
        file.write_all(piece).unwrap();
    }
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
    assert_eq!(revision(&member), 3);
    assert_eq!(open(&member, &sealed).unwrap(), SEED);
}

#[tokio::test]
async fn row_76_a_copy_over_the_old_bytes_is_accepted_only_once_it_is_whole() {
    let (files, member, newer) = member_and_newer().await;
    let mut mixed = files.bytes();
    for end in (1..=newer.len()).step_by(7).chain([newer.len()]) {
        // As `rsync --inplace` and `dd conv=notrunc` leave it on their way.
        let len = mixed.len().max(end);
        mixed.resize(len, 0);
        mixed[..end].copy_from_slice(&newer[..end]);
        write(files.keyring(), &mixed).unwrap();
        let taken = member.sync(NOW).await.is_ok() && revision(&member) != 1;
        assert_eq!(taken, mixed == newer, "{end} of {} bytes", newer.len());
    }
    assert_eq!(revision(&member), 3);
}

#[tokio::test(start_paused = true)]
async fn row_76_an_editors_rename_is_noticed() {
    let (files, member, newer) = member_and_newer().await;
    assert!(
        timeout(LONG, member.changed()).await.is_err(),
        "it wakes without a change"
    );
    let changed = async {
        timeout(LONG, member.changed()).await.unwrap();
        member.sync(NOW).await.unwrap()
    };
    let save = async {
        tokio::time::sleep(LONG / 2).await;
        write(files.path("keyring~"), newer).unwrap();
        let mode = std::fs::metadata(files.keyring()).unwrap().permissions();
        std::fs::set_permissions(files.path("keyring~"), mode).unwrap();
        rename(files.path("keyring~"), files.keyring()).unwrap();
    };
    let (synced, ()) = tokio::join!(changed, save);
    assert_eq!(synced, Synced::Opened);
    assert_eq!(revision(&member), 3);
}

#[tokio::test(start_paused = true)]
async fn row_76_a_storm_of_saves_opens_the_last_one_once() {
    let (files, member, newer) = member_and_newer().await;
    let old = files.bytes();
    let mut opened = 0;
    for round in 0..100 {
        write(
            files.keyring(),
            if round % 2 == 0 { &old[..round] } else { &old },
        )
        .unwrap();
        opened += u32::from(matches!(member.sync(NOW).await, Ok(Synced::Opened)));
    }
    assert_eq!(opened, 0, "the same document was opened again");
    write(files.keyring(), newer).unwrap();
    for _ in 0..100 {
        opened += u32::from(member.sync(NOW).await.unwrap() == Synced::Opened);
    }
    assert_eq!(opened, 1);
    assert!(
        timeout(LONG, member.changed()).await.is_err(),
        "it wakes without a change"
    );
}

#[tokio::test(start_paused = true)]
async fn row_75_whoever_lost_a_commit_still_notices_what_won() {
    let files = Files::new().await;
    let (member, other) = (files.member().await, files.member().await);
    rotate(&other).await;
    let refused = touch(&member).await.unwrap_err();
    assert!(
        matches!(refused, Error::Storage(StorageError::Conflict)),
        "{refused}"
    );
    timeout(LONG, member.changed())
        .await
        .expect("the document that won is never looked at");
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
    touch(&member).await.unwrap();
}

#[tokio::test]
async fn rows_66_and_74_nothing_makes_a_keyring_but_init() {
    let files = Files::new().await;
    let good = files.bytes();
    let member = files.member().await;
    for garbage in [&good[..0], &good[..100], b"garbage"] {
        write(files.keyring(), garbage).unwrap();
        let starting = files.start();
        assert!(starting.sync(NOW).await.is_err());
        closed_reason(&starting);
        assert!(touch(&starting).await.is_err());
        assert!(matches!(
            touch(&member).await,
            Err(Error::Storage(StorageError::Conflict))
        ));
        // Even then it is somebody's: init makes none over it.
        let made = store::init(&files.storage(), &[&*test_root()], "test", NOW).await;
        assert!(
            matches!(made, Err(Error::Storage(StorageError::Exists(_)))),
            "{made:?}"
        );
        assert_eq!(files.bytes(), garbage);
    }
    std::fs::remove_file(files.keyring()).unwrap();
    let starting = files.start();
    assert!(starting.sync(NOW).await.is_err());
    assert!(matches!(
        touch(&member).await,
        Err(Error::Storage(StorageError::Conflict))
    ));
    assert!(!files.keyring().exists(), "a missing keyring was made anew");
}

#[tokio::test]
async fn row_67_every_flipped_byte_of_a_file_is_refused() {
    let files = Files::new().await;
    let member = files.member().await;
    rotate(&member).await;
    let (good, sealed) = (files.bytes(), seal(&member));
    for position in 0..good.len() {
        let mut flipped = good.clone();
        flipped[position] ^= 0xff;
        write(files.keyring(), &flipped).unwrap();
        assert!(member.sync(NOW).await.is_err(), "byte {position}");
        assert!(files.start().sync(NOW).await.is_err(), "byte {position}");
        assert_eq!(open(&member, &sealed).unwrap(), SEED);
    }
    write(files.keyring(), good).unwrap();
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Unchanged);
    files.member().await;
}

#[tokio::test]
async fn a_commit_waits_for_another_one_but_not_for_ever() {
    let files = Files::new().await;
    let member = files.member().await;
    let before = files.bytes();
    let held = File::open(files.path("keyring.lock")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let begun = Instant::now();
    let refused = touch(&member).await.unwrap_err();
    assert!(begun.elapsed() > Duration::from_secs(1), "nobody waited");
    assert!(
        matches!(refused, Error::Storage(StorageError::Io { .. })),
        "{refused}"
    );
    assert!(refused.to_string().contains("keyring.lock"), "{refused}");
    assert_eq!(files.bytes(), before);
    // Its holder goes away while somebody waits.
    let (committed, ()) = tokio::join!(touch(&member), async move {
        tokio::task::yield_now().await;
        drop(held);
    });
    committed.unwrap();
}

#[tokio::test]
async fn row_50_a_commit_that_nobody_waits_for_is_finished() {
    let files = Files::new().await;
    let member = files.member().await;
    let first = seal(&member);
    let held = File::open(files.path("keyring.lock")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    tokio::select! {
        biased;
        committed = touch(&member) => panic!("{committed:?} past a lock"),
        () = async {} => {}
    }
    drop(held);
    timeout(LONG, member.changed()).await.unwrap();
    assert_eq!(member.sync(NOW).await.unwrap(), Synced::Opened);
    assert_eq!(revision(&member), 2);
    touch(&member).await.unwrap();
    assert_eq!(open(&files.member().await, &first).unwrap(), SEED);
}
