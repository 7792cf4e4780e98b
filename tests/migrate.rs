//! `claviger migrate` rewrites every stale object once, changes nothing in any of them, and says of
//! each that it could not rewrite why.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "migrate/answers.rs"]
mod answers;
#[path = "migrate/double.rs"]
mod double;
