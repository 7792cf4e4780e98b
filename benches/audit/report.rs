//! What was measured, held against what is required.

use std::time::Duration;

use crate::run::Ran;

/// Two programs in one round.
pub(crate) struct Pair {
    pub(crate) bare: Ran,
    pub(crate) ours: Ran,
}

/// What is required of an audit's speed.
#[derive(Clone, Copy)]
pub(crate) enum Require {
    Live,
    /// Where the file is read from.
    Snapshot(&'static str),
    /// Nothing is; it tells how much of the ratio before is the SHA-256 of the whole file.
    Hashed,
    /// Where the changes are.
    Incremental(&'static str),
}

/// The most memory that an audit of a million objects may have, in bytes.
const MEMORY: u64 = 64 << 20;

impl Require {
    fn title(self) -> String {
        match self {
            Self::Live => {
                "live etcd: audit, over a client that throws away the same stream".to_owned()
            }
            Self::Snapshot(place) => {
                format!("snapshot {place}: audit, over a reader of all pages, one by one")
            }
            Self::Hashed => {
                "snapshot from memory: audit, over such a reader that checks the SHA-256".to_owned()
            }
            Self::Incremental(how) => {
                format!("incremental: audit --since with 1 % changed ({how}), over a full audit")
            }
        }
    }

    /// The largest ratio that is allowed.
    fn at_most(self) -> Option<f64> {
        match self {
            Self::Live => Some(1.3),
            Self::Snapshot(_) => Some(2.0),
            Self::Hashed => None,
            Self::Incremental(_) => Some(0.1),
        }
    }
}

/// Prints the medians.
pub(crate) fn print(require: Require, pairs: &[Pair]) {
    let of = |figure: &dyn Fn(&Pair) -> f64| median(pairs.iter().map(figure).collect());
    let ratio = of(&|pair| seconds(pair.ours.wall) / seconds(pair.bare.wall));
    println!("\n{}", require.title());
    for (name, side) in [
        ("over", (|pair| &pair.bare) as fn(&Pair) -> &Ran),
        ("audit", |pair| &pair.ours),
    ] {
        let wall = of(&|pair| seconds(side(pair).wall));
        let cpu = of(&|pair| seconds(side(pair).cpu));
        let peak = of(&|pair| (side(pair).peak >> 10) as f64 / 1024.0);
        println!("  {name:<6} {wall:>7.3} s   processor {cpu:>7.3} s   peak {peak:>6.1} MiB");
    }
    let met = |met: bool| if met { "met" } else { "NOT MET" };
    match require.at_most() {
        Some(most) => {
            let met = met(ratio <= most);
            println!("  ratio  {ratio:>7.3}, required at most {most}: {met}");
        }
        None => println!("  ratio  {ratio:>7.3}"),
    }
    let peak = pairs
        .iter()
        .map(|pair| pair.ours.peak)
        .max()
        .unwrap_or_default();
    println!(
        "  memory {:>5.1} MiB at its largest, required below 64: {}",
        (peak >> 10) as f64 / 1024.0,
        met(peak < MEMORY)
    );
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// The median; NaN of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (below, above) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(below), values.get(above)) {
        (Some(below), Some(above)) => (below + above) / 2.0,
        _ => f64::NAN,
    }
}
