//! What was measured, as tables, and held against what is required.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::contender::Kind;
use crate::driver::{Load, Sample};

const ONE: Load = Load {
    callers: 1,
    connections: 1,
};
const SIXTEEN: Load = Load {
    callers: 16,
    connections: 1,
};
const MIB: f64 = 1024.0 * 1024.0;

/// Everything that was measured of one server.
pub(crate) struct Measured {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// In the order of the rounds, which are the same for all servers.
    pub(crate) samples: Vec<(Load, Sample)>,
    /// From the start of the process to the first good Status.
    pub(crate) starts: Vec<Duration>,
    /// Answered before `resident_kib` was read.
    pub(crate) calls: f64,
    pub(crate) resident_kib: u64,
    /// Length of the program in bytes.
    pub(crate) program_len: u64,
}

impl Measured {
    fn under(&self, load: Load, figure: Figure) -> Vec<f64> {
        let samples = self.samples.iter().filter(|(under, _)| *under == load);
        samples.map(|(_, sample)| figure(sample)).collect()
    }

    /// This server's figure as a part of the other's, round by round.
    fn ratios(&self, other: &Self, load: Load, figure: Figure) -> Vec<f64> {
        let other = other.under(load, figure);
        self.under(load, figure)
            .iter()
            .zip(other)
            .map(|(own, other)| own / other)
            .collect()
    }

    fn start_ms(&self) -> Vec<f64> {
        self.starts
            .iter()
            .map(|start| start.as_secs_f64() * 1e3)
            .collect()
    }
}

type Figure = fn(&Sample) -> f64;

/// The median, NaN of nothing.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(upper), 1) => *upper,
        (Some(upper), _) => (sorted[sorted.len() / 2 - 1] + upper) / 2.0,
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

fn smallest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::min)
}

/// One line for each server under each load: medians of the rounds, and their ratios to the server
/// that does nothing.
pub(crate) fn loads(all: &[Measured], loads: &[Load]) -> Result<String, fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "{:<6} {:<12} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}   {:>6} {:>6} {:>6} {:>6}",
        "LOAD",
        "SERVER",
        "P50 µs",
        "P99 µs",
        "P99.9",
        "CALLS/s",
        "CPU µs",
        "DRIVER",
        "P50",
        "P99",
        "CALLS",
        "CPU"
    )?;
    let floor = all.iter().find(|server| server.kind == Kind::Nothing);
    for load in loads {
        for server in all {
            let at = |figure: Figure| median(&server.under(*load, figure));
            write!(
                text,
                "{load:<6} {:<12} {:>8.1} {:>8.1} {:>8.1} {:>8.0} {:>8.2} {:>8.2}  ",
                server.name,
                at(|sample| sample.p50),
                at(|sample| sample.p99),
                at(|sample| sample.p999),
                at(|sample| sample.calls),
                at(|sample| sample.server_cpu),
                at(|sample| sample.driver_cpu),
            )?;
            for figure in [
                (|sample| sample.p50) as Figure,
                |sample| sample.p99,
                |sample| sample.calls,
                |sample| sample.server_cpu,
            ] {
                let ratios = floor.map(|floor| server.ratios(floor, *load, figure));
                write!(text, " {:>6.2}", median(&ratios.unwrap_or_default()))?;
            }
            writeln!(text)?;
        }
    }
    Ok(text)
}

/// Memory, starts and size of each server.
pub(crate) fn processes(all: &[Measured]) -> Result<String, fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "{:<12} {:>12} {:>10} {:>14} {:>10} {:>7} {:>12}",
        "SERVER", "RESIDENT MiB", "AFTER", "FIRST STATUS", "MAX ms", "STARTS", "PROGRAM MiB"
    )?;
    for server in all {
        let starts = server.start_ms();
        writeln!(
            text,
            "{:<12} {:>12.2} {:>9.2}M {:>11.2} ms {:>10.2} {:>7} {:>12.2}",
            server.name,
            server.resident_kib as f64 / 1024.0,
            server.calls / 1e6,
            median(&starts),
            largest(&starts),
            starts.len(),
            server.program_len as f64 / MIB,
        )?;
    }
    Ok(text)
}

/// How much the rest of the machine did meanwhile.
pub(crate) fn others(all: &[Measured]) -> String {
    let samples = all.iter().flat_map(|server| &server.samples);
    let others: Vec<f64> = samples
        .map(|(_, sample)| sample.others_cpu * 100.0)
        .collect();
    format!(
        "Other processes had {:.0} % of the processors in the median cell, {:.0} % in the worst.",
        median(&others),
        largest(&others)
    )
}

/// Each requirement with its limit and what was measured.
pub(crate) fn verdicts(all: &[Measured]) -> Result<String, fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "{:<46} {:>10} {:>10}   {:<15} VERDICT",
        "REQUIRED OF CLAVIGER", "LIMIT", "MEDIAN", "FROM–TO"
    )?;
    for requirement in requirements(all) {
        writeln!(text, "{requirement}")?;
    }
    Ok(text)
}

#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

struct Requirement {
    what: &'static str,
    limit: Limit,
    measured: Vec<f64>,
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = median(&self.measured);
        let (sign, limit, holds) = match self.limit {
            Limit::AtLeast(limit) => ("≥", limit, value >= limit),
            Limit::AtMost(limit) => ("≤", limit, value <= limit),
            Limit::Below(limit) => ("<", limit, value < limit),
        };
        let verdict = match (value.is_nan(), holds) {
            (true, _) => "not measured",
            (false, true) => "pass",
            (false, false) => "SHORT",
        };
        let limit = format!("{sign} {limit}");
        let range = format!(
            "{:.2}–{:.2}",
            smallest(&self.measured),
            largest(&self.measured)
        );
        write!(
            f,
            "{:<46} {limit:>10} {value:>10.2}   {range:<15} {verdict}",
            self.what
        )
    }
}

fn requirements(all: &[Measured]) -> Vec<Requirement> {
    let find = |kind| all.iter().find(|server| server.kind == kind);
    let (Some(own), Some(floor), Some(go)) =
        (find(Kind::Claviger), find(Kind::Nothing), find(Kind::Go))
    else {
        return Vec::new();
    };
    let calls: Figure = |sample| sample.calls;
    let p99: Figure = |sample| sample.p99;
    let required = |what, limit, measured| Requirement {
        what,
        limit,
        measured,
    };
    let resident = own.resident_kib as f64;
    vec![
        required(
            "calls/s of the do-nothing server, 1 caller",
            Limit::AtLeast(0.87),
            own.ratios(floor, ONE, calls),
        ),
        required(
            "calls/s of the do-nothing server, 16 callers",
            Limit::AtLeast(0.87),
            own.ratios(floor, SIXTEEN, calls),
        ),
        required(
            "p99 of the do-nothing server, 1 caller",
            Limit::AtMost(1.15),
            own.ratios(floor, ONE, p99),
        ),
        required(
            "p99 of the do-nothing server, 16 callers",
            Limit::AtMost(1.15),
            own.ratios(floor, SIXTEEN, p99),
        ),
        required(
            "calls/s of the Go plugin, 16 callers",
            Limit::AtLeast(1.5),
            own.ratios(go, SIXTEEN, calls),
        ),
        required(
            "p99 of the Go plugin, 16 callers",
            Limit::AtMost(0.6),
            own.ratios(go, SIXTEEN, p99),
        ),
        required(
            "MiB resident after the calls",
            Limit::Below(10.0),
            vec![resident / 1024.0],
        ),
        required(
            "resident, of the Go plugin",
            Limit::Below(0.5),
            vec![resident / go.resident_kib as f64],
        ),
        required(
            "ms from start to first good Status",
            Limit::AtMost(20.0),
            own.start_ms(),
        ),
        required(
            "MiB of the stripped program",
            Limit::Below(10.0),
            vec![own.program_len as f64 / MIB],
        ),
    ]
}
