//! Tests that cannot run here say so, past the harness's capture.

use std::io::Write;

pub(crate) fn not_run(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // A closed stderr must not fail a test.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {why}");
}
