//! What was dropped is gone: no key and no seed is left in the memory of a running plugin.
//!
//! The test reads the process's memory as root may, and first finds what it looks for while it is in
//! use, so that finding nothing later means something.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use claviger::client::{Client, Endpoint};
use claviger_keystore::Keystore;
use claviger_keystore::key::KeyId;
use claviger_keystore::keyring::Keyring;
use claviger_keystore::root::Root;
use claviger_keystore::root::key_file::{KeyFile, KeyFileConfig};
use claviger_keystore::storage::file::{Durability, FileStorage};
use claviger_keystore::testing::{NOW, init_with_keks, rotate};
use claviger_proto::v2::{DecryptRequest, EncryptRequest};
use ring::rand::{SecureRandom, SystemRandom};

/// A plugin of this test, killed at its end.
struct Plugin(Child);

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

/// `D(key, label)`, by another library than the plugin's.
fn derived(key: &[u8; 32], label: &str) -> [u8; 32] {
    let salt = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]);
    let prk = salt.extract(key);
    let mut out = [0; 32];
    let info = [label.as_bytes()];
    prk.expand(&info, ring::hkdf::HKDF_SHA256)
        .unwrap()
        .fill(&mut out)
        .unwrap();
    out
}

/// How often each of the wanted byte strings stands in the process's memory.
fn occurrences(pid: u32, wanted: &[[u8; 32]]) -> Vec<usize> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = vec![0; wanted.len()];
    let mut scanned = 0;
    for line in maps
        .lines()
        .filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw"))
    {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let (from, to) = (address(from), address(to));
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // Pages that vanish meanwhile hold nothing any more.
        let Ok(read) = memory.read_at(&mut bytes, from) else {
            continue;
        };
        scanned += read;
        for (count, wanted) in found.iter_mut().zip(wanted) {
            *count += memchr::memmem::find_iter(&bytes[..read], wanted).count();
        }
    }
    assert!(scanned > 1_000_000, "the process's memory was not read");
    found
}

fn serve(dir: &Path) -> Plugin {
    let config = format!(
        "apiVersion: claviger.io/v1alpha1\nkind: ClavigerConfiguration\n\
         server: {{socket: {0}/kms.sock}}\n\
         storage: {{file: {{path: {0}/keyring}}}}\n\
         roots: [{{name: local, keyFile: {{path: {0}/root.key}}}}]\n\
         metrics: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: warn}}\n",
        dir.display()
    );
    std::fs::write(dir.join("config.yaml"), config).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_claviger"))
        .arg("--config")
        .arg(dir.join("config.yaml"))
        .arg("serve")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Plugin(child)
}

/// Waits until the plugin's Status answers the id.
async fn wait_for(client: &Client, id: &KeyId) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match client.status().await {
            Ok(status) if status.key_id == id.to_string() => return,
            answer => assert!(Instant::now() < until, "still {answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn encrypt(seed: &[u8]) -> EncryptRequest {
    EncryptRequest {
        plaintext: seed.to_vec(),
        uid: "memory".to_owned(),
    }
}

/// Destroys a retired key, and then makes another one primary, which Status shows.
async fn destroy_and_rotate(keystore: &Keystore, retired: &KeyId) -> KeyId {
    keystore.sync(NOW).await.unwrap();
    for change in [Keyring::disable, Keyring::destroy] {
        keystore
            .commit(NOW, |keyring| Ok(change(keyring, retired, NOW)?))
            .await
            .unwrap();
    }
    rotate(keystore).await
}

#[tokio::test]
async fn row_118_nothing_is_left_of_dropped_keys_and_seeds() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: only root may read another process's memory");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    KeyFile::create(&dir.path().join("root.key")).unwrap();
    let root_key = || -> Box<dyn Root> {
        let path = KeyFileConfig::Path(dir.path().join("root.key"));
        Box::new(KeyFile::new("local", path))
    };
    let storage = FileStorage::new(dir.path().join("keyring"), Durability::Memory);
    let keks: [[u8; 32]; 2] = [random(), random()];
    let ids = init_with_keks(&storage, &*root_key(), &keks).await;

    let plugin = serve(dir.path());
    let client = Client::new(
        Endpoint::Path(dir.path().join("kms.sock")),
        Duration::from_secs(10),
    );
    wait_for(&client, &ids[0]).await;
    let seeds: Vec<[u8; 32]> = (0..200).map(|_| random()).collect();
    for seed in &seeds {
        let sealed = client.encrypt(encrypt(seed)).await.unwrap();
        let opened = client
            .decrypt(DecryptRequest {
                ciphertext: sealed.ciphertext,
                key_id: sealed.key_id,
                ..DecryptRequest::default()
            })
            .await
            .unwrap();
        assert_eq!(opened.plaintext, seed);
    }

    let mut secrets = vec![keks[1], derived(&keks[1], "claviger/v1/kek/seal")];
    secrets.push(derived(
        &root_key_bytes(dir.path()),
        "claviger/v1/root/key-file",
    ));
    secrets.push(root_key_bytes(dir.path()));
    let pid = plugin.0.id();
    let in_use = occurrences(pid, &secrets);
    assert!(in_use[0] >= 1, "the scan does not see a key that is in use");

    // The retired key is destroyed, by another process; the plugin follows.
    let other = Keystore::new(Box::new(storage), vec![root_key()], None);
    let staged = destroy_and_rotate(&other, &ids[1]).await;
    wait_for(&client, &staged).await;

    // The connection's buffers are wiped when it closes.
    drop(client);
    let client = Client::new(
        Endpoint::Path(dir.path().join("kms.sock")),
        Duration::from_secs(10),
    );
    wait_for(&client, &staged).await;

    let left = occurrences(pid, &secrets);
    assert_eq!(
        left,
        vec![0; secrets.len()],
        "kek, its sealing key, root's derived key, root key"
    );
    let left: usize = occurrences(pid, &seeds).iter().sum();
    assert_eq!(left, 0, "seeds of ended requests");
}

fn root_key_bytes(dir: &Path) -> [u8; 32] {
    let mut bytes = [0; 32];
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(dir.join("root.key"));
    file.unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

/// How much of the code of programs and libraries lies in this process's memory, in KiB.
fn resident_code() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_code = false;
    let mut resident = 0;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        match (fields.next().unwrap(), fields.next()) {
            ("Rss:", Some(kib)) if is_code => resident += kib.parse::<u64>().unwrap(),
            (first, Some(modes)) if !first.ends_with(':') => {
                is_code = modes == "r-xp" && line.contains(" /");
            }
            _ => {}
        }
    }
    resident
}

#[test]
fn code_that_only_the_start_ran_is_given_back() {
    let mut alone = Command::new(std::env::current_exe().unwrap());
    alone.args(["--ignored", "--exact", "code_is_given_back"]);
    let output = alone.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "other tests would run code meanwhile: the test above runs it alone"]
fn code_is_given_back() {
    let before = resident_code();
    claviger::footprint::give_back_code().unwrap();
    let after = resident_code();
    assert!(after < before, "{before} KiB, then {after} KiB");
}
