//! The five oracles, after each group of faults, on a whole plugin in a process of its own: O1 it
//! answers, O2 it opens all that it ever sealed, O3 no seed and no key is in what it says, O4 its key
//! id never goes back, O5 descriptors, threads and memory come back to what they were.

use std::fs;
use std::time::Instant;

use data_encoding::{BASE64, HEXLOWER};

use crate::groups::{connections, floods, host, keyring, process, rotated, semantics, wire};
use crate::plugin::{Calls, PATIENCE};
use crate::whole::Whole;

/// What no log may show.
pub(crate) const SEED: &[u8; 32] = b"ORACLE-3 seed ORACLE-3 seed ....";

/// The main one, the log's, the metrics', and those that read files.
const THREADS: usize = 3 + 4;

/// Bytes of memory that may stay with the allocator after a flood.
const SLACK: usize = 16 * 1024 * 1024;

/// A metric without labels.
pub(crate) fn value(page: &str, name: &str) -> usize {
    let mut values = page.lines().filter_map(|line| line.strip_prefix(name));
    let value: f64 = values.next().unwrap().trim().parse().unwrap();
    value as usize
}

/// What the plugin was like before the faults.
struct Before {
    descriptors: usize,
    resident: usize,
    /// The ids that Status answered, the last one last.
    published: Vec<String>,
    /// Everything that was ever sealed, with its key id.
    sealed: Vec<(String, Vec<u8>)>,
}

impl Before {
    async fn look(plugin: &Whole) -> Self {
        let mut client = plugin.client().await;
        let key_id = client.answer_status().await.key_id;
        let mut sealed = Vec::new();
        for _ in 0..100 {
            let ciphertext = client.seal(SEED).await.ciphertext;
            assert_eq!(client.open(&key_id, &ciphertext).await.unwrap(), SEED);
            sealed.push((key_id.clone(), ciphertext));
        }
        let page = plugin.metrics();
        assert_eq!(value(&page, "claviger_connections "), 1);
        Self {
            descriptors: value(&page, "process_open_fds ") - 1,
            resident: value(&page, "process_resident_memory_bytes "),
            published: vec![key_id],
            sealed,
        }
    }

    /// All five, now.
    async fn holds(&mut self, plugin: &Whole, group: &str) {
        let key_id = plugin.answers().await;
        assert_eq!(self.published.last(), Some(&key_id), "O4 after {group}");
        let until = Instant::now() + PATIENCE;
        loop {
            let page = plugin.metrics();
            let connections = value(&page, "claviger_connections ");
            let descriptors = value(&page, "process_open_fds ");
            if connections == 0 && descriptors <= self.descriptors {
                break;
            }
            assert!(
                Instant::now() < until,
                "O5 after {group}: {connections} connections, {descriptors} descriptors, not {}",
                self.descriptors
            );
            tokio::task::yield_now().await;
        }
        let page = plugin.metrics();
        let threads = value(&page, "process_threads ");
        assert!(threads <= THREADS, "O5 after {group}: {threads} threads");
        let resident = value(&page, "process_resident_memory_bytes ");
        assert!(
            resident < self.resident + SLACK,
            "O5 after {group}: {resident} bytes, not {}",
            self.resident
        );

        let mut client = plugin.client().await;
        let fresh = client.seal(SEED).await;
        assert_eq!(fresh.key_id, key_id, "O4 after {group}");
        self.sealed.push((key_id, fresh.ciphertext));
        for (key_id, ciphertext) in &self.sealed {
            let opened = client.open(key_id, ciphertext).await.unwrap();
            assert_eq!(opened, SEED, "O2 after {group}");
        }
        drop(client);
        let panics = value(&page, "claviger_panics_total ");
        assert_eq!(panics, 0, "O1 after {group}");
        self.nothing_was_told(plugin, &page, group);
    }

    /// O3.
    fn nothing_was_told(&self, plugin: &Whole, page: &str, group: &str) {
        let said = plugin.said();
        assert!(said.contains("request"), "nothing was logged: {said}");
        assert!(!said.contains("panicked"), "O1 after {group}: {said}");
        let recovery = fs::read_to_string(plugin.path("recovery.key")).unwrap();
        let root = fs::read(plugin.path("root.key")).unwrap();
        let mut secrets = vec![recovery.trim().to_owned()];
        for bytes in [&SEED[..9], &root[..root.len().min(9)]] {
            secrets.extend([
                String::from_utf8_lossy(bytes).into_owned(),
                HEXLOWER.encode(bytes),
                BASE64.encode(bytes),
                format!("{bytes:?}").trim_end_matches(']').to_owned(),
            ]);
        }
        for secret in &secrets {
            assert!(
                !said.contains(secret) && !page.contains(secret),
                "O3 after {group}: {secret}"
            );
        }
    }

    /// Another key was made the primary one.
    fn published(&mut self, key_id: String) {
        assert!(!self.published.contains(&key_id), "O4: {key_id} came back");
        self.published.push(key_id);
    }
}

#[tokio::test]
async fn all_five_hold_after_every_group() {
    let mut plugin = Whole::start();
    let mut before = Before::look(&plugin).await;
    before.holds(&plugin, "nothing").await;
    wire(&plugin).await;
    before.holds(&plugin, "A, the wire").await;
    semantics(&plugin).await;
    before.holds(&plugin, "B, semantics").await;
    connections(&plugin).await;
    before.holds(&plugin, "C, connections").await;
    floods(&plugin).await;
    before.holds(&plugin, "C, floods").await;
    host(&mut plugin).await;
    before.holds(&plugin, "D, socket and host").await;
    before.published(rotated(&plugin).await);
    before.holds(&plugin, "a rotation").await;
    keyring(&mut plugin).await;
    before.holds(&plugin, "E, the keyring's file").await;
    process(&mut plugin).await;
    before.holds(&plugin, "H, the process").await;
}
