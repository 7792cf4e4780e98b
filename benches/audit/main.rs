//! How fast `claviger audit` reads a million objects, beside programs that read the same bytes and
//! throw them away, in one run, as ratios, and held against what is required of it.
//!
//! ```console
//! $ tests/components/install etcd
//! $ cargo bench --bench audit                      # a million objects, five rounds
//! $ cargo bench --bench audit -- --objects 50000   # some seconds, to see that it works
//! ```
//!
//! An etcd of its own is filled with objects as kube-apiserver stores them: Secrets and ConfigMaps of
//! 500 namespaces, in no order, encrypted under a handful of keys and seeds. It is compacted, as
//! kube-apiserver has it done every five minutes, and saved with `etcdctl snapshot save`.
//!
//! What is compared is programs: every one is a process of its own, timed from its start to its end,
//! and those of a round take turns. Ratios are taken within a round, and what is printed is the
//! median of the rounds. It ends with exit code 0 whatever it measured.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a bench fails as tests do, and prints what it measured"
)]

mod bare;
#[path = "../../tests/common/cluster.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod cluster;
#[path = "../../tests/common/components.rs"]
mod components;
mod fill;
#[path = "../../tests/common/port.rs"]
mod port;
#[path = "../../tests/common/process.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod process;
mod report;
mod run;
#[path = "../../tests/common/web.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod web;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use cluster::Etcd;
use components::component;
use report::{Pair, Require};
use run::{Ran, run};
use tokio::runtime::Runtime;

/// One object of so many is changed before an incremental audit: 1 %.
const UNCHANGED: usize = 100;

/// Compares `claviger audit` with programs that only read.
#[derive(Parser)]
struct Args {
    /// How many objects etcd is filled with; the requirements are about a million
    #[arg(long, default_value_t = 1_000_000)]
    objects: usize,
    /// How often everything is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The claviger to measure
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_claviger"))]
    claviger: PathBuf,
    /// Be the client that throws away what it reads
    #[arg(long, value_name = "URL", hide = true)]
    discard_etcd: Option<String>,
    /// Be the reader of a file's pages
    #[arg(long, value_name = "FILE", hide = true)]
    discard_pages: Option<PathBuf>,
    /// And hash them
    #[arg(long, hide = true)]
    hash: bool,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    if let Some(url) = &args.discard_etcd {
        return bare::client(url);
    }
    if let Some(path) = &args.discard_pages {
        return bare::pages(path, args.hash);
    }
    let (Some(etcdctl), dir) = (component("etcdctl"), process::folder()) else {
        return;
    };
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let stand = Stand {
        args,
        etcd,
        etcdctl,
        dir: dir.path().to_owned(),
        runtime: tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap(),
    };
    stand.fill();
    let live = stand.live();
    let snapshots = stand.snapshots();
    let incremental = stand.incremental();
    println!(
        "{} objects, medians of {} rounds",
        stand.args.objects, stand.args.rounds
    );
    report::print(Require::Live, &live);
    for (requirement, pairs) in snapshots.iter().chain(&incremental) {
        report::print(*requirement, pairs);
    }
}

/// An etcd and what is run against it.
struct Stand {
    args: Args,
    etcd: Etcd,
    etcdctl: PathBuf,
    dir: PathBuf,
    runtime: Runtime,
}

impl Stand {
    fn fill(&self) {
        eprintln!("filling etcd with {} objects", self.args.objects);
        let every = 0..self.args.objects;
        self.runtime.block_on(fill::put(&self.etcd.url(), every, 0));
        self.etcd.compact();
        let mut save = Command::new(&self.etcdctl);
        save.args(["--endpoints", &self.etcd.url(), "snapshot", "save"]);
        let saved = save.arg(self.snapshot()).output().unwrap();
        assert!(saved.status.success(), "{saved:?}");
        let length = fs::metadata(self.snapshot()).unwrap().len();
        eprintln!("the snapshot has {} MiB", length >> 20);
    }

    /// Full audits of etcd, beside a client that only reads.
    fn live(&self) -> Vec<Pair> {
        let url = self.etcd.url();
        // What etcd reads for the first time comes from the disk, so that round does not count.
        let rounds = (0..=self.args.rounds).map(|round| {
            eprintln!("live: round {round} of {}", self.args.rounds);
            Pair {
                bare: discard(&["--discard-etcd", &url]),
                ours: self.audit(&["--endpoints", &url]),
            }
        });
        rounds.skip(1).collect()
    }

    /// Audits of the snapshot, beside a reader of its pages: from the disk and from memory; and from
    /// memory beside one that hashes them, as everybody must who trusts a snapshot.
    fn snapshots(&self) -> [(Require, Vec<Pair>); 3] {
        let path = self.snapshot();
        let flag = path.to_str().unwrap();
        let (pages, hash) = (["--discard-pages", flag], ["--hash"]);
        [
            (Require::Snapshot("from the disk"), &pages[..], true),
            (Require::Snapshot("from memory"), &pages[..], false),
            (Require::Hashed, &[pages[0], pages[1], hash[0]][..], false),
        ]
        .map(|(requirement, arguments, cold)| {
            let prepare = || match cold {
                true => bare::forget(&path),
                false => bare::pages(&path, false),
            };
            let rounds = (1..=self.args.rounds).map(|round| {
                eprintln!("snapshot: round {round} of {}", self.args.rounds);
                prepare();
                let bare = discard(arguments);
                prepare();
                let ours = self.audit(&["--snapshot", flag]);
                Pair { bare, ours }
            });
            (requirement, rounds.collect())
        })
    }

    /// Incremental audits after a change of 1 %, beside full ones: where what changed was compacted
    /// since the audit before, and where it was not.
    fn incremental(&self) -> [(Require, Vec<Pair>); 2] {
        let (before, since) = (self.dir.join("before"), self.dir.join("since"));
        let url = self.etcd.url();
        let since_flag = ["--endpoints", &url, "--since", since.to_str().unwrap()];
        [("compacted since", true), ("in etcd's history", false)].map(|(how, compact)| {
            self.audit(&since_flag);
            fs::copy(&since, &before).unwrap();
            let some = (0..self.args.objects).step_by(UNCHANGED);
            self.runtime.block_on(fill::put(&url, some, 1));
            if compact {
                self.etcd.compact();
            }
            let rounds = (1..=self.args.rounds).map(|round| {
                eprintln!("incremental, {how}: round {round} of {}", self.args.rounds);
                fs::copy(&before, &since).unwrap();
                Pair {
                    bare: self.audit(&["--endpoints", &url]),
                    ours: self.audit(&since_flag),
                }
            });
            (Require::Incremental(how), rounds.collect())
        })
    }

    /// Runs an audit, which must count every object.
    fn audit(&self, arguments: &[&str]) -> Ran {
        let mut audit = Command::new(&self.args.claviger);
        for variable in ["ENDPOINTS", "CACERT", "CERT", "KEY"] {
            audit.env_remove(format!("ETCDCTL_{variable}"));
        }
        audit.args(["audit", "-o", "json"]).args(arguments);
        let ran = run(audit);
        let answer: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        let rows = answer["rows"].as_array().unwrap();
        let count = |name: &str| -> u64 { rows.iter().filter_map(|row| row[name].as_u64()).sum() };
        let objects = count("current") + count("snapshotValues");
        assert_eq!(objects, self.args.objects as u64, "{answer}");
        ran
    }

    fn snapshot(&self) -> PathBuf {
        Path::join(&self.dir, "snapshot.db")
    }
}

/// Runs this program as one that throws away what it reads.
fn discard(arguments: &[&str]) -> Ran {
    let mut ourselves = Command::new(std::env::current_exe().unwrap());
    ourselves.args(arguments);
    run(ourselves)
}
