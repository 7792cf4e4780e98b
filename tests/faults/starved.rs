//! Row 114: a plugin that is given too little memory for its threads, or for anything.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::plugin::{Calls, client_of};

/// `claviger serve --dev`, killed at the end.
pub(crate) struct Serving(pub(crate) Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it with at most so many bytes of address space, and waits until it serves, or for all
/// that it said before it ended.
pub(crate) fn serve(dir: &Path, address_space: &str) -> Result<Serving, (Option<i32>, String)> {
    let mut command = Command::new("prlimit");
    command
        .args([
            &format!("--as={address_space}"),
            env!("CARGO_BIN_EXE_claviger"),
        ])
        .args(["serve", "--dev", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut serving = Serving(command.spawn().unwrap());
    let lines = BufReader::new(serving.0.stderr.take().unwrap()).lines();
    let mut said = String::new();
    for line in lines.map(Result::unwrap) {
        if line.contains("serving metrics") {
            return Ok(serving);
        }
        said.push_str(&line);
        said.push('\n');
    }
    Err((serving.0.wait().unwrap().code(), said))
}

/// All that is kept: names and bytes.
fn kept(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().unwrap().is_file());
    files
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .filter(|(name, _)| name != "metrics.addr")
        .collect()
}

#[tokio::test]
async fn row_114_a_start_without_memory_or_threads_says_so_and_leaves_nothing_half_made() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let serving = serve(&dir, "unlimited").unwrap();
    let socket = dir.join("kms.sock");
    let sealed = client_of(&socket).await.unwrap().seal(&[7; 32]).await;
    drop(serving);
    let before = kept(&dir);
    assert!(before.contains_key("keyring"), "{:?}", before.keys());

    let mut said_so = 0;
    for mebibytes in 1.. {
        assert!(mebibytes < 1_000, "it never serves");
        let Err((code, said)) = serve(&dir, &(mebibytes * 1024 * 1024).to_string()) else {
            break;
        };
        match code {
            Some(1) => {
                // A thread that has no memory for its stack may have had a word before.
                assert!(said.contains("error: "), "{mebibytes} MiB: {said}");
                assert!(said.contains("\nnext:  "), "{mebibytes} MiB: {said}");
                said_so += 1;
            }
            // Killed, or never loaded: nobody can say anything without memory. A panic is 101.
            None | Some(127) => {}
            Some(_) => panic!("{mebibytes} MiB: {code:?} {said}"),
        }
        assert_eq!(
            kept(&dir).keys().collect::<Vec<_>>(),
            before.keys().collect::<Vec<_>>()
        );
        assert!(kept(&dir) == before, "{mebibytes} MiB: a file was changed");
    }
    assert!(said_so > 0);

    let _serving = serve(&dir, "unlimited").unwrap();
    let mut client = client_of(&socket).await.unwrap();
    let opened = client.open(&sealed.key_id, &sealed.ciphertext).await;
    assert_eq!(opened.unwrap(), [7; 32]);
}
