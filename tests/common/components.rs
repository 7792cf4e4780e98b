//! Real components that tests run against: `tests/components/install` gets them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

/// The path of an installed program, as `tests/components/install --where PROGRAM` knows it.
///
/// Where it is missing, this says so on stderr, past the test harness's capture, and the test ends
/// without a result: `let Some(program) = component("etcd") else { return };`. With
/// `CLAVIGER_REQUIRE_COMPONENTS=1`, as `make test` and CI set it, the test fails instead.
///
/// # Panics
/// As said; and where the installer itself cannot be run.
#[expect(clippy::panic, reason = "a helper of tests")]
pub(crate) fn component(program: &str) -> Option<PathBuf> {
    let installer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/components/install");
    let answer = Command::new(&installer).args(["--where", program]).output();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => panic!("{} cannot be run: {error}", installer.display()),
    };
    if answer.status.success() {
        let path = String::from_utf8_lossy(&answer.stdout);
        return Some(PathBuf::from(path.trim_end()));
    }
    let reason = String::from_utf8_lossy(&answer.stderr);
    let required = env::var_os("CLAVIGER_REQUIRE_COMPONENTS").is_some_and(|value| value == "1");
    assert!(!required, "{program} is missing: {reason}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // A closed stderr must not fail a test.
    let _ = writeln!(io::stderr(), "NOT RUN: {test}: {}", reason.trim_end());
    None
}
