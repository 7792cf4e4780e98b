//! Metrics for node_exporter's textfile collector.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;

use super::report::{Report, RowShown};

/// Replaces the file whole, so that a scrape never sees half of it.
pub(super) fn write(path: &Path, report: &Report, now: Timestamp) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    // The collector reads what ends with .prom.
    let temporary = format!(".{}.{}", name.to_string_lossy(), std::process::id());
    let temporary = path.with_file_name(temporary);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    let written = options
        .open(&temporary)
        .and_then(|mut file| file.write_all(page(report, now).as_bytes()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // It may not have been made.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn page(report: &Report, now: Timestamp) -> String {
    let mut page = String::from(
        "# HELP claviger_audit_objects Stored values by what protects them, at the last audit.\n\
         # TYPE claviger_audit_objects gauge\n",
    );
    for row in report.rows() {
        let places = [
            ("current", row.current),
            ("history", row.history),
            ("snapshots", row.snapshot_values),
        ];
        for (place, values) in places {
            let labels = labels(row);
            // Writing to a string does not fail.
            let _ = writeln!(
                page,
                "claviger_audit_objects{{{labels},place=\"{place}\"}} {values}"
            );
        }
    }
    let mut gauge = |name: &str, help: &str, value: String| {
        let _ = write!(
            page,
            "# HELP claviger_audit_{name} {help}\n# TYPE claviger_audit_{name} gauge\n\
             claviger_audit_{name} {value}\n"
        );
    };
    gauge(
        "stale_objects",
        "Current objects that have to be rewritten, at the last audit.",
        report.stale().to_string(),
    );
    gauge(
        "exceptions",
        "Stored values that cannot be read, at the last audit.",
        report.exceptions().to_string(),
    );
    gauge(
        "last_success_timestamp_seconds",
        "When the last audit was done.",
        now.as_second().to_string(),
    );
    page
}

fn labels(row: &RowShown) -> String {
    let state = row.state.map_or("", |state| state.as_str());
    let text = [
        ("resource", row.resource.as_str()),
        ("protection", row.protection.kind.as_str()),
        ("provider", row.protection.provider.as_deref().unwrap_or("")),
        ("key_id", row.protection.key.as_deref().unwrap_or("")),
        ("state", state),
    ]
    .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    text.join(",")
}

/// As the exposition format wants label values.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
