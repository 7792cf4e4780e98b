//! Figures of this process, read when they are asked for.
//!
//! The `prometheus` crate's own collector counts CPU time in whole seconds, says 1970 for the start
//! under `ProcSubset=pid` and brings a second rustix; this reads two files of `/proc/self`.

use std::fs;

use jiff::Timestamp;
use prometheus::proto::MetricFamily;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::family::{Family, seconds};
use super::names::{
    PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT, PROCESS_START,
    PROCESS_THREADS,
};

pub(super) const FAMILIES: &[&Family] = &[
    &PROCESS_START,
    &PROCESS_CPU,
    &PROCESS_RESIDENT,
    &PROCESS_THREADS,
    &PROCESS_OPEN_FDS,
    &PROCESS_MAX_FDS,
];

/// Every figure; one that cannot be read is left out, not shown as 0.
pub(super) fn read(started: Timestamp) -> Vec<MetricFamily> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    vec![
        PROCESS_START.value(Some(seconds(started))),
        PROCESS_CPU.value(Some(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9)),
        PROCESS_RESIDENT.value(field(&status, "VmRSS:").map(|kib| kib * 1024.0)),
        PROCESS_THREADS.value(field(&status, "Threads:")),
        PROCESS_OPEN_FDS.value(open_fds()),
        PROCESS_MAX_FDS.value(
            getrlimit(Resource::Nofile)
                .current
                .map(|limit| limit as f64),
        ),
    ]
}

/// A number of proc(5)'s `status`, whose lines are a name, blanks, a number and perhaps `kB`.
fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<f64> {
    // Reading the folder opens one more.
    let open = fs::read_dir("/proc/self/fd").ok()?.count().checked_sub(1)?;
    Some(open as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_there_and_sane() {
        let started: Timestamp = "2026-09-14T08:00:00.5Z".parse().unwrap();
        let value = |family: &Family| {
            let families = read(started);
            let found = families
                .iter()
                .find(|found| found.name() == family.name)
                .unwrap();
            let metric = &found.get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        assert_eq!(value(&PROCESS_START), 1_789_372_800.5);
        assert!(value(&PROCESS_RESIDENT) > 1_000_000.0);
        assert!(value(&PROCESS_THREADS) >= 1.0);
        assert!(value(&PROCESS_OPEN_FDS) >= 3.0);
        assert!(value(&PROCESS_MAX_FDS) >= value(&PROCESS_OPEN_FDS));

        let before = value(&PROCESS_CPU);
        while value(&PROCESS_CPU) < before + 0.01 {}
    }

    #[test]
    fn fields_of_status() {
        let status = "Name:\tThreads: 9\nVmRSS:\t    5120 kB\nThreads:\t2\nKThread:\t0\n";
        assert_eq!(field(status, "VmRSS:"), Some(5120.0));
        assert_eq!(field(status, "Threads:"), Some(2.0));
        assert_eq!(field(status, "VmSwap:"), None);
        assert_eq!(field("VmRSS:\tmuch\n", "VmRSS:"), None);
    }
}
