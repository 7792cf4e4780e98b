//! What was backed up can be restored, and a restore never loses a key that somebody needs.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

#[path = "common/process.rs"]
mod process;
#[path = "common/serve.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod serve;
#[path = "common/web.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod web;

use std::fs;
use std::path::Path;

use claviger_proto::v2::{DecryptRequest, EncryptRequest};
use rustix::process::Signal;

use process::folder;
use serve::{Claviger, answer, run};

const SEED: [u8; 32] = [7; 32];

/// A seed that a plugin wrapped.
struct Wrapped(DecryptRequest);

impl Wrapped {
    fn by(claviger: &Claviger) -> Self {
        let request = EncryptRequest {
            plaintext: SEED.to_vec(),
            uid: "a uid".to_owned(),
        };
        let encrypted = block_on(async { claviger.client().encrypt(request).await }).unwrap();
        Self(DecryptRequest {
            ciphertext: encrypted.ciphertext,
            key_id: encrypted.key_id,
            uid: "another uid".to_owned(),
            annotations: Default::default(),
        })
    }

    fn opens(&self, claviger: &Claviger) {
        let request = self.0.clone();
        let opened = block_on(async { claviger.client().decrypt(request).await }).unwrap();
        assert_eq!(opened.plaintext, SEED);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn backup(claviger: &Claviger, to: &Path) {
    answer(claviger.dir(), &["backup", "--out", to.to_str().unwrap()]);
}

/// What a command says that fails with this exit code.
fn refusal(dir: &Path, arguments: &[&str], code: i32) -> String {
    let output = run(dir, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

#[test]
fn a_backup_opens_by_every_root_and_overwrites_nothing() {
    let dir = folder();
    let claviger = Claviger::serve(&dir.path().join("claviger")).ready();
    let copy = dir.path().join("copy");
    backup(&claviger, &copy);
    let copy = copy.to_str().unwrap();
    assert!(answer(claviger.dir(), &["backup", "verify", copy]).contains("opens"));
    let recovery = claviger.dir().join("recovery.key");
    let by_recovery = [
        "backup",
        "verify",
        copy,
        "--recovery-key",
        recovery.to_str().unwrap(),
    ];
    assert!(answer(claviger.dir(), &by_recovery).contains("opens"));

    let before = fs::read(copy).unwrap();
    refusal(claviger.dir(), &["backup", "--out", copy], 1);
    assert_eq!(fs::read(copy).unwrap(), before);

    let mut torn = before;
    torn.truncate(torn.len() / 2);
    fs::write(dir.path().join("torn"), torn).unwrap();
    let torn = dir.path().join("torn");
    refusal(
        claviger.dir(),
        &["backup", "verify", torn.to_str().unwrap()],
        1,
    );
    let absent = refusal(
        claviger.dir(),
        &["backup", "verify", "/nonexistent/copy"],
        2,
    );
    assert!(absent.contains("no such file"), "{absent}");
}

#[test]
fn a_restored_backup_opens_what_was_wrapped_before_it_and_after_it() {
    let dir = folder();
    let claviger = Claviger::serve(&dir.path().join("claviger")).ready();
    let before = Wrapped::by(&claviger);
    let copy = dir.path().join("copy");
    backup(&claviger, &copy);
    answer(claviger.dir(), &["rotate"]);
    let after = Wrapped::by(&claviger);
    assert_ne!(before.0.key_id, after.0.key_id);

    let restored = answer(claviger.dir(), &["restore", copy.to_str().unwrap()]);
    assert!(restored.contains("restored as revision"), "{restored}");
    let fresh = web::wait_until("the fresh key is primary", || {
        let primary = claviger.key("primary")?;
        (primary != after.0.key_id).then_some(primary)
    });
    assert_ne!(fresh, before.0.key_id);
    claviger.answers("/readyz", 200);
    before.opens(&claviger);
    after.opens(&claviger);
    let newest = Wrapped::by(&claviger);
    assert_eq!(newest.0.key_id, fresh);
    newest.opens(&claviger);
}

#[test]
fn an_old_copy_that_was_put_back_serves_decrypt_until_the_newest_is_restored() {
    let dir = folder();
    let mut claviger = Claviger::serve(&dir.path().join("claviger")).ready();
    let old = dir.path().join("old");
    backup(&claviger, &old);
    let before = Wrapped::by(&claviger);
    answer(claviger.dir(), &["rotate"]);
    let after = Wrapped::by(&claviger);
    let newest = dir.path().join("newest");
    backup(&claviger, &newest);

    claviger.stop(Signal::TERM);
    fs::copy(&old, claviger.dir().join("keyring")).unwrap();
    claviger.start_again();
    claviger.says("/readyz", 503, "older copy");
    before.opens(&claviger);
    let said = refusal(claviger.dir(), &["rotate"], 4);
    assert!(said.contains("older copy"), "{said}");

    answer(claviger.dir(), &["restore", newest.to_str().unwrap()]);
    claviger.answers("/readyz", 200);
    before.opens(&claviger);
    after.opens(&claviger);
}

#[test]
fn a_lost_key_is_given_up_only_by_its_whole_id() {
    let dir = folder();
    let mut claviger = Claviger::serve(&dir.path().join("claviger")).ready();
    let old = dir.path().join("old");
    backup(&claviger, &old);
    let before = Wrapped::by(&claviger);
    answer(claviger.dir(), &["rotate"]);
    let lost = claviger.key("primary").unwrap();
    claviger.stop(Signal::KILL);
    for entry in fs::read_dir(claviger.dir()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let copy = name
            .strip_prefix("keyring.")
            .is_some_and(|rest| rest.parse::<u64>().is_ok());
        if name == "keyring" || copy {
            fs::remove_file(path).unwrap();
        }
    }

    let old = old.to_str().unwrap();
    let said = refusal(claviger.dir(), &["restore", old], 4);
    assert!(said.contains(&lost), "{said}");
    assert!(!claviger.dir().join("keyring").exists());
    refusal(
        claviger.dir(),
        &["restore", old, "--accept-loss", &lost[..11]],
        2,
    );
    answer(claviger.dir(), &["restore", old, "--accept-loss", &lost]);
    claviger.start_again();
    claviger.answers("/readyz", 200);
    before.opens(&claviger);
}
