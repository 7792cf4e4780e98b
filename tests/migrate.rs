//! `claviger migrate` rewrites every stale object once, changes nothing in any of them, and says of
//! each that it could not rewrite why.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

#[path = "migrate/answers.rs"]
mod answers;
#[path = "common/cluster.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod cluster;
#[path = "common/components.rs"]
mod components;
#[path = "migrate/double.rs"]
mod double;
#[path = "migrate/moves.rs"]
mod moves;
#[path = "common/port.rs"]
mod port;
#[path = "common/process.rs"]
mod process;
#[path = "migrate/screens.rs"]
mod screens;
#[path = "common/serve.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod serve;
#[path = "migrate/stand.rs"]
mod stand;
#[path = "migrate/tls.rs"]
mod tls;
#[path = "migrate/users.rs"]
mod users;
#[path = "common/web.rs"]
mod web;
