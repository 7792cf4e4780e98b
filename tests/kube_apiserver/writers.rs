//! Clients that write all the time, as those of a busy cluster do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::cluster::{Api, Kind};
use crate::web::wait_until;

/// Between two writes of one writer: steady, and the machine has other tests to run.
const PAUSE: Duration = Duration::from_millis(5);

/// Writers at work.
pub(crate) struct Writers {
    api: Api,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Work>>,
}

/// What one writer did.
#[derive(Default)]
struct Work {
    /// What must be readable now.
    values: BTreeMap<String, String>,
    failures: Vec<String>,
}

impl Writers {
    /// Starts four.
    pub(crate) fn start(api: &Api) -> Self {
        let (stop, written) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let threads = (0..4).map(|writer| {
            let (api, stop, written) = (api.clone(), stop.clone(), written.clone());
            thread::spawn(move || {
                let mut work = Work::default();
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    work.turn(&api, writer, turn);
                    written.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
                work
            })
        });
        let threads = threads.collect();
        Self {
            api: api.clone(),
            stop,
            written,
            threads,
        }
    }

    /// Waits until so many writes more were done. They may have failed; [`Writers::finish`] tells.
    pub(crate) fn go_on(&self, writes: usize) {
        let enough = self.written.load(Ordering::Relaxed) + writes;
        wait_until("the writers went on", || {
            (self.written.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    /// Stops them. No write may have failed, and what they wrote can be read.
    pub(crate) fn finish(mut self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let mut values = BTreeMap::new();
        let mut failures = Vec::new();
        for thread in self.threads.drain(..) {
            let work = thread.join().unwrap();
            values.extend(work.values);
            failures.extend(work.failures);
        }
        assert!(
            failures.is_empty(),
            "{} writes failed: {failures:#?}",
            failures.len()
        );
        let written = Written(values);
        written.check(&self.api);
        written
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        // Where a test fails they must not go on with a cluster that is being stopped.
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Work {
    /// Makes a Secret, changes another, deletes a third, each in its turn.
    fn turn(&mut self, api: &Api, writer: usize, turn: usize) {
        let name = |turn: usize| format!("writer-{writer}-{turn}");
        let value = format!("value {turn} of {writer}");
        let (what, name, answer) = match turn % 4 {
            2 => (
                "change",
                name(turn - 1),
                api.update(Kind::Secret, &name(turn - 1), &value),
            ),
            3 => (
                "delete",
                name(turn - 3),
                api.delete(Kind::Secret, &name(turn - 3)),
            ),
            _ => (
                "create",
                name(turn),
                api.create(Kind::Secret, &name(turn), &value),
            ),
        };
        if !matches!(answer.status, 200 | 201) {
            self.failures.push(format!("{what} {name}: {answer:?}"));
        } else if what == "delete" {
            self.values.remove(&name);
        } else {
            self.values.insert(name, value);
        }
    }
}

/// What writers left behind.
pub(crate) struct Written(BTreeMap<String, String>);

impl Written {
    /// The names of each writer's objects, in the order in which it wrote them last.
    pub(crate) fn by_writer(&self) -> impl Iterator<Item = Vec<&String>> {
        let mut writers: BTreeMap<&str, Vec<(usize, &String)>> = BTreeMap::new();
        for name in self.0.keys() {
            let (writer, turn) = name.rsplit_once('-').unwrap();
            let written = (turn.parse().unwrap(), name);
            writers.entry(writer).or_default().push(written);
        }
        writers.into_values().map(|mut written| {
            written.sort_unstable();
            written.into_iter().map(|(_, name)| name).collect()
        })
    }

    /// All of it can be read, and is what was written.
    pub(crate) fn check(&self, api: &Api) {
        assert!(!self.0.is_empty());
        for (name, value) in &self.0 {
            let answer = api.get(Kind::Secret, name).is(200);
            assert_eq!(Kind::Secret.value(&answer.body), *value, "{name}");
        }
    }
}
