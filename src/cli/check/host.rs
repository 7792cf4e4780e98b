//! The host: what keeps keys out of swap and cores, and what makes ciphers fast.

use std::fs;

use jiff::Timestamp;
use rustix::process::{Resource, getrlimit};

use super::report::Item;
use crate::hygiene;

/// What the host says of itself; collected once, judged without looking again.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// `uname -r`.
    kernel: String,
    /// Bytes that may be locked; none is no limit.
    locked_bytes: Option<u64>,
    /// Whether that is enough for a keyring's keys, or the limit does not hold for this process.
    can_lock: bool,
    /// The devices and files that are swapped to.
    swaps: Vec<String>,
    /// `/proc/sys/kernel/core_pattern`.
    core_pattern: String,
    /// Files that may be open at once; none is no limit.
    open_files: Option<u64>,
    /// Whether AES and carry-less multiplication are instructions of this CPU.
    aes_instructions: bool,
    /// Whether user ids mean the same here as on the host.
    initial_user_namespace: bool,
    /// The wall clock.
    now: Timestamp,
    /// The youngest of our own files, and when it was written.
    youngest: Option<(String, Timestamp)>,
}

impl Host {
    /// Looks at this host. `youngest` is the youngest of our own files.
    pub(super) fn look(now: Timestamp, youngest: Option<(String, Timestamp)>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let swaps = read("/proc/swaps");
        Self {
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            locked_bytes: getrlimit(Resource::Memlock).current,
            can_lock: hygiene::memory_can_be_locked(),
            swaps: swaps
                .lines()
                .skip(1)
                .filter_map(|line| line.split(' ').next())
                .map(str::to_owned)
                .collect(),
            core_pattern: read("/proc/sys/kernel/core_pattern").trim_end().to_owned(),
            open_files: getrlimit(Resource::Nofile).current,
            aes_instructions: aes_instructions(),
            initial_user_namespace: is_initial(&read("/proc/self/uid_map")),
            now,
            youngest,
        }
    }

    /// What is to be said of it.
    pub(super) fn items(&self) -> Vec<Item> {
        vec![
            self.kernel(),
            self.memory_lock(),
            self.swap(),
            self.cores(),
            self.ciphers(),
            self.user_namespace(),
            self.descriptors(),
            self.clock(),
        ]
    }

    fn kernel(&self) -> Item {
        let text = format!("kernel: {}", self.kernel);
        let mut numbers = self
            .kernel
            .split(['.', '-'])
            .map_while(|part| part.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        // 4.19 is the oldest that kubeadm accepts.
        if version >= (4, 19) {
            Item::ok(text)
        } else {
            Item::warn(text, "Kubernetes asks for 4.19 or newer")
        }
    }

    fn memory_lock(&self) -> Item {
        let Some(bytes) = self.locked_bytes else {
            return Item::ok("locked memory: no limit");
        };
        let text = format!("locked memory: {} KiB", bytes / 1024);
        if self.can_lock {
            Item::ok(text)
        } else {
            Item::warn(
                format!("{text} are too few for a keyring's keys; some may be swapped out"),
                "LimitMEMLOCK=64M in the unit (claviger print systemd), or ulimit -l",
            )
        }
    }

    fn swap(&self) -> Item {
        if self.swaps.is_empty() {
            return Item::ok("swap: off");
        }
        Item::warn(
            format!(
                "swap: on ({}); raw keys are locked, AES key schedules are not",
                self.swaps.join(", ")
            ),
            "MemorySwapMax=0 in the unit (claviger print systemd), or swapoff -a",
        )
    }

    /// The plugin forbids its own cores; this shows where they would go.
    fn cores(&self) -> Item {
        let pattern = match self.core_pattern.as_str() {
            "" => "not readable",
            pattern => pattern.split(' ').next().unwrap_or(pattern),
        };
        Item::ok(format!(
            "core dumps: to {pattern}; the plugin makes none of its own memory"
        ))
    }

    fn ciphers(&self) -> Item {
        if self.aes_instructions {
            Item::ok("AES: in hardware")
        } else {
            Item::warn(
                "AES: this CPU has no instructions for AES-GCM; software is slower",
                "on a virtual machine, pass the host's CPU through",
            )
        }
    }

    fn user_namespace(&self) -> Item {
        if self.initial_user_namespace {
            Item::ok("user ids: the host's own")
        } else {
            Item::warn(
                "user ids: this is a user namespace; a kube-apiserver outside it reads as 65534",
                "run the plugin in the namespace of kube-apiserver's user",
            )
        }
    }

    fn descriptors(&self) -> Item {
        match self.open_files {
            Some(limit) if limit < OPEN_FILES => Item::warn(
                format!("open files: {limit} are few; connections may be refused"),
                format!("allow at least {OPEN_FILES}: LimitNOFILE= or ulimit -n"),
            ),
            Some(limit) => Item::ok(format!("open files: {limit}")),
            None => Item::ok("open files: no limit"),
        }
    }

    /// A clock that is behind what was written here before makes dates in the keyring wrong.
    fn clock(&self) -> Item {
        let text = format!("clock: {}", self.now.strftime("%Y-%m-%dT%H:%M:%SZ"));
        match &self.youngest {
            Some((path, written)) if *written > self.now => Item::bad(
                format!("{text}, but {path} was written later"),
                "set the clock (timedatectl); the keyring's dates come from it",
            ),
            _ => Item::ok(text),
        }
    }
}

/// The connections that the server takes, its files, and a reserve.
const OPEN_FILES: u64 = 256;

/// The one line that the first user namespace of a host has: every id is itself.
fn is_initial(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn aes_instructions() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption_config::Level;

    fn good() -> Host {
        Host {
            kernel: "6.1.0-13-amd64".to_owned(),
            locked_bytes: Some(8 << 20),
            can_lock: true,
            swaps: Vec::new(),
            core_pattern: "|/usr/lib/systemd/systemd-coredump %P".to_owned(),
            open_files: Some(1024),
            aes_instructions: true,
            initial_user_namespace: true,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            youngest: Some((
                "/k".to_owned(),
                Timestamp::from_second(1_700_000_000).unwrap(),
            )),
        }
    }

    fn not_ok(host: &Host) -> Vec<(Level, String)> {
        let items = host
            .items()
            .into_iter()
            .filter(|item| item.level != Level::Ok);
        items.map(|item| (item.level, item.text)).collect()
    }

    #[test]
    fn a_good_host_has_no_warning() {
        assert_eq!(not_ok(&good()), []);
        let unlimited = Host {
            locked_bytes: None,
            open_files: None,
            youngest: None,
            ..good()
        };
        assert_eq!(not_ok(&unlimited), []);
    }

    #[test]
    fn each_weakness_is_a_warning_of_its_own_and_a_wrong_clock_is_bad() {
        type Weakness = (Level, &'static str, fn(&mut Host));
        let weaknesses: [Weakness; 8] = [
            (Level::Warn, "kernel: 4.18.0-el8", |host| {
                host.kernel = "4.18.0-el8".to_owned();
            }),
            (Level::Warn, "kernel: odd", |host| {
                host.kernel = "odd".to_owned();
            }),
            (Level::Warn, "locked memory: 8192 KiB are", |host| {
                host.can_lock = false;
            }),
            (Level::Warn, "swap: on (/dev/sda2)", |host| {
                host.swaps = vec!["/dev/sda2".into()];
            }),
            (Level::Warn, "AES: this CPU", |host| {
                host.aes_instructions = false;
            }),
            (Level::Warn, "user ids: this is", |host| {
                host.initial_user_namespace = false;
            }),
            (Level::Warn, "open files: 64 are", |host| {
                host.open_files = Some(64);
            }),
            (Level::Bad, "clock: 2020-09-13T12:26:40Z, but /k", |host| {
                host.now = Timestamp::from_second(1_600_000_000).unwrap();
            }),
        ];
        for (level, word, weaken) in weaknesses {
            let mut host = good();
            weaken(&mut host);
            let found = not_ok(&host);
            assert_eq!(found.len(), 1, "{word}: {found:?}");
            assert!(
                found[0].0 == level && found[0].1.starts_with(word),
                "{word}: {found:?}"
            );
        }
    }

    #[test]
    fn only_the_identity_map_is_the_hosts_own() {
        assert!(is_initial("         0          0 4294967295\n"));
        assert!(!is_initial("         0       1000          1\n"));
        assert!(!is_initial(""));
    }

    #[test]
    fn this_host_can_be_looked_at() {
        let host = Host::look(Timestamp::UNIX_EPOCH, None);
        assert!(!host.kernel.is_empty() && !host.core_pattern.is_empty());
        assert_eq!(host.items().len(), 8);
    }
}
