//! Row 120: an upgrade and a downgrade. There is one version of the format by now; so another
//! program is this one under another version's name, and a newer keyring is one that says it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use claviger_proto::v2::StatusRequest;
use tonic::Code;

use crate::calls::encrypt;
use crate::frames::Listens;
use crate::plugin::{Calls, Client, PATIENCE, client_of};
use crate::whole::Whole;

/// This version, and the one that stands in for the next: as long, so that it can be written over it.
const OURS: &str = env!("CARGO_PKG_VERSION");

/// The program under another version's name.
fn next_version(folder: &Path) -> (PathBuf, String) {
    let (rest, patch) = OURS.split_at(OURS.len() - 1);
    let next = format!("{rest}{}", if patch == "9" { "8" } else { "9" });
    let program = folder.join("claviger");
    fs::copy(env!("CARGO_BIN_EXE_claviger"), &program).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    let replace = format!("s/{}/{next}/g", OURS.replace('.', "\\."));
    let replaced = Command::new("sed")
        .env("LC_ALL", "C")
        .args(["-i", &replace])
        .arg(&program)
        .status();
    assert!(replaced.unwrap().success());
    (program, next)
}

fn version_of(plugin: &Whole) -> String {
    let page = plugin.metrics();
    let (_, build) = page.split_once("claviger_build_info{").unwrap();
    let (_, version) = build.split_once("version=\"").unwrap();
    version.split_once('"').unwrap().0.to_owned()
}

/// A caller on a connection of its own. Where a call fails, the same call must not fail on the next
/// connection.
struct Caller {
    socket: PathBuf,
    client: Option<Client>,
    key_id: String,
    sealed: Vec<u8>,
}

impl Caller {
    async fn reconnect(&mut self) {
        let until = Instant::now() + PATIENCE;
        self.client = None;
        while self.client.is_none() {
            assert!(Instant::now() < until, "nobody listens");
            self.client = client_of(&self.socket).await.ok();
            tokio::task::yield_now().await;
        }
    }

    /// All three calls on the connection that there is.
    async fn try_calls(&mut self) -> Result<(), tonic::Status> {
        let client = self.client.as_mut().unwrap();
        let status = client.status(StatusRequest {}).await?.into_inner();
        assert_eq!(
            (status.key_id.as_str(), status.healthz.as_str()),
            (&*self.key_id, "ok")
        );
        let fresh = encrypt(client, &[7; 32], "").await?;
        for ciphertext in [&self.sealed, &fresh] {
            assert_eq!(client.open(&self.key_id, ciphertext).await?, [7; 32]);
        }
        Ok(())
    }

    async fn calls(&mut self) {
        if self.try_calls().await.is_err() {
            self.reconnect().await;
            let again = self.try_calls().await;
            again.expect("a call failed on the next connection too");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_120_versions_take_turns_and_no_call_fails_beyond_one_reconnect() {
    let mut plugin = Whole::start();
    let folder = tempfile::tempdir().unwrap();
    let (other, next) = next_version(folder.path());
    let ours = PathBuf::from(env!("CARGO_BIN_EXE_claviger"));
    let mut client = plugin.client().await;
    let first = client.seal(&[7; 32]).await;
    drop(client);

    let (rounds, mut callers) = (Arc::<AtomicUsize>::default(), tokio::task::JoinSet::new());
    for _ in 0..4 {
        let mut caller = Caller {
            socket: plugin.socket(),
            client: None,
            key_id: first.key_id.clone(),
            sealed: first.ciphertext.clone(),
        };
        let rounds = rounds.clone();
        callers.spawn(async move {
            caller.reconnect().await;
            loop {
                caller.calls().await;
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for (program, version) in [
        (&other, &*next),
        (&ours, OURS),
        (&other, &*next),
        (&ours, OURS),
    ] {
        plugin.stop();
        plugin.start_again_as(program);
        assert_eq!(version_of(&plugin), version);
        let (before, until) = (rounds.load(Ordering::Relaxed), Instant::now() + PATIENCE);
        while rounds.load(Ordering::Relaxed) < before + 100 {
            if let Some(ended) = callers.try_join_next() {
                ended.unwrap();
            }
            assert!(Instant::now() < until, "too few calls");
            tokio::task::yield_now().await;
        }
    }
    callers.abort_all();
    while let Some(ended) = callers.join_next().await {
        assert!(ended.unwrap_err().is_cancelled());
    }
}

#[tokio::test]
async fn row_120_after_a_downgrade_a_newer_keyring_is_refused_and_left_as_it_is() {
    let mut plugin = Whole::start();
    let sealed = plugin.client().await.seal(&[7; 32]).await;
    let path = plugin.path("keyring");
    let good = fs::read_to_string(&path).unwrap();
    plugin.stop();
    let newer = good.replacen("{\"format\":1,", "{\"format\":2,", 1);
    assert_ne!(newer, good);
    fs::write(&path, &newer).unwrap();

    plugin.start_again();
    let mut client = plugin.client().await;
    for refused in [
        client.status(StatusRequest {}).await.unwrap_err(),
        encrypt(&mut client, &[7; 32], "").await.unwrap_err(),
        client
            .open(&sealed.key_id, &sealed.ciphertext)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        let says = refused.message();
        assert!(
            says.contains("format 2") && says.contains("install"),
            "{says}"
        );
    }
    drop(client);
    for command in [
        &["rotate"][..],
        &["policy", "set", "rotateEvery=91d"],
        &["backup"],
    ] {
        let output = plugin.command(command);
        assert_ne!(output.status.code(), Some(0), "{command:?}: {output:?}");
    }
    assert!(
        fs::read_to_string(&path).unwrap() == newer,
        "it was changed"
    );

    // The newer version comes back, or the older keyring does.
    let heard = plugin.heard();
    fs::write(&path, &good).unwrap();
    plugin.says(heard, "keyring opened");
    let mut client = plugin.client().await;
    let opened = client.open(&sealed.key_id, &sealed.ciphertext).await;
    assert_eq!(opened.unwrap(), [7; 32]);
    assert_eq!(client.answer_status().await.key_id, sealed.key_id);
}
