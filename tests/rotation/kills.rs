//! `kill -9` of the command and of the plugin, in turns, at many moments of a rotation.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use claviger_keystore::header::Header;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::evidence::{all_opens, header, no_id_goes_back};
use crate::load::{Load, Log};
use crate::process::{PATIENCE, folder};
use crate::rotate;
use crate::serve::Claviger;

/// How many moments of a rotation are tried with the command, and as many with the plugin.
const MOMENTS: usize = 14;
/// Between two looks at what happens.
const LOOK: Duration = Duration::from_micros(200);

#[test]
fn whoever_is_killed_at_whatever_moment_nothing_is_lost_and_it_goes_on() {
    let seed = seed();
    eprintln!("CLAVIGER_SEED={seed} chooses these moments again");
    let dir = folder();
    let home = dir.path().join("claviger");
    let mut claviger = Claviger::serve(&home).ready();
    let load = Load::start(&home.join("kms.sock"));
    load.go_on(20);
    let changes = Rotation::begin(&home).comes_to(Moment::Activated);

    let mut log = load.take();
    let mut found = BTreeSet::new();
    let by_command = moments(seed, changes);
    let by_plugin = moments(seed.rotate_left(32), changes);
    for moment in by_command.into_iter().zip(by_plugin) {
        let mut rotation = Rotation::begin(&home);
        rotation.comes_to(moment.0);
        rotation.kill();
        found.insert(rotation.state());
        load.go_on(10);
        log.add(checked(&home, load.take()));

        let mut rotation = Rotation::begin(&home);
        rotation.comes_to(moment.1);
        load.away(|| {
            claviger.stop(Signal::KILL);
            claviger.start_again();
            claviger.answers("/readyz", 200);
        });
        // Nobody has to tell the command; nor the plugin, if it is killed now.
        rotation.comes_to(Moment::Activated);
        rotation.kill();
        load.go_on(10);
        log.add(checked(&home, load.take()));
    }
    let all = BTreeSet::from([State::Before, State::Staged, State::Activated]);
    assert_eq!(found, all, "these moments are not all that there are");
    load.go_on(40);
    log.add(load.finish());
    let log = checked(&home, log);
    eprintln!("{} seeds were wrapped", log.wrapped.len());
    let keys = header(&home).keys.len();
    assert!(keys > MOMENTS, "{keys} keys: it was hardly ever rotated");
}

/// All that was wrapped opens, and no key id went back.
fn checked(dir: &Path, log: Log) -> Log {
    all_opens(dir, &log.wrapped);
    no_id_goes_back(dir, &log);
    log
}

/// When somebody is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    AtOnce,
    /// After so many changes of files beside the keyring.
    Change(usize),
    Staged,
    Activated,
}

/// The same ones for the same seed: what must be seen, and the rest spread over all changes of files
/// that a rotation makes.
fn moments(seed: u64, changes: usize) -> Vec<Moment> {
    let mut random = Random(seed | 1);
    let mut moments = vec![Moment::AtOnce, Moment::Staged, Moment::Activated];
    let rest = MOMENTS - moments.len();
    moments.extend((0..rest).map(|part| {
        let (from, to) = (part * changes / rest, (part + 1) * changes / rest);
        Moment::Change(from + 1 + random.below(to - from))
    }));
    for last in (1..moments.len()).rev() {
        moments.swap(last, random.below(last + 1));
    }
    moments
}

fn seed() -> u64 {
    let given = std::env::var("CLAVIGER_SEED").ok();
    given.map_or_else(
        || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            now.unwrap().subsec_nanos().into()
        },
        |seed| seed.parse().unwrap(),
    )
}

/// xorshift64*: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % end.max(1)
    }
}

/// How far a rotation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Before,
    Staged,
    Activated,
}

/// A command that rotates, and what it does beside the keyring.
struct Rotation<'a> {
    dir: &'a Path,
    command: crate::process::Process,
    changes: OwnedFd,
    seen: usize,
    before: Header,
}

impl<'a> Rotation<'a> {
    fn begin(dir: &'a Path) -> Self {
        let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        let kinds = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&changes, dir, kinds).unwrap();
        Self {
            dir,
            before: header(dir),
            command: rotate(dir, &[]),
            changes,
            seen: 0,
        }
    }

    /// Waits for a moment, or until the new key is in use: then there is nothing more to wait for.
    /// Returns how many changes were seen.
    fn comes_to(&mut self, moment: Moment) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.look();
            let come = match moment {
                Moment::AtOnce => true,
                Moment::Change(number) => self.seen >= number,
                Moment::Staged => self.state() == State::Staged,
                Moment::Activated => false,
            };
            if come || self.state() == State::Activated {
                return self.seen;
            }
            self.command.must_run();
            assert!(Instant::now() < deadline, "{moment:?} never came");
            thread::sleep(LOOK);
        }
    }

    fn look(&mut self) {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut changes = inotify::Reader::new(&self.changes, &mut buffer);
        loop {
            match changes.next() {
                Ok(_) => self.seen += 1,
                Err(Errno::AGAIN) => return,
                Err(e) => panic!("watching {}: {e}", self.dir.display()),
            }
        }
    }

    fn state(&self) -> State {
        let now = header(self.dir);
        if now.primary() != self.before.primary() {
            State::Activated
        } else if now.staged().is_some() {
            State::Staged
        } else {
            State::Before
        }
    }

    fn kill(&mut self) {
        self.command.signal(Signal::KILL);
        self.command.end();
    }
}
