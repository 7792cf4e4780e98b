//! What the kernel says of processes and of this machine.

use std::fs;
use std::io;
use std::time::Duration;

/// The processor time that all threads of a process have had. Threads that ended are left out.
///
/// # Errors
/// Where the kernel does not count it (`/proc/PID/task/TID/schedstat`).
pub(crate) fn cpu_of(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we read.
        let Ok(schedstat) = fs::read_to_string(thread?.path().join("schedstat")) else {
            continue;
        };
        nanoseconds += number(&schedstat, 0)?;
    }
    if nanoseconds == 0 {
        return Err(io::Error::other(
            "this kernel does not count processor time in schedstat",
        ));
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// What of a process is in memory, in KiB: `VmRSS`, its program's pages included.
pub(crate) fn resident_kib(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    number(line.unwrap_or_default(), 1)
}

/// Hundredths of a second that all processors together were busy since the start, stolen ones
/// included.
pub(crate) fn busy_ticks() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let cpu = stat.lines().next().unwrap_or_default();
    // cpu user nice system idle iowait irq softirq steal; guest time is in user.
    [1, 2, 3, 6, 7, 8]
        .into_iter()
        .map(|field| number(cpu, field))
        .sum()
}

/// The load of the last minute, as text.
pub(crate) fn load() -> io::Result<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().to_owned())
}

fn number(line: &str, field: usize) -> io::Result<u64> {
    let number = line
        .split_whitespace()
        .nth(field)
        .and_then(|text| text.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("no number at {field} in {line:?}")))
}
