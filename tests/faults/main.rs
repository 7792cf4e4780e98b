//! Whatever a peer sends, does or is, the plugin answers the next one (groups A to E and H of the
//! list of faults; each test is named after its row).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "../common/components.rs"]
mod components;
mod frames;
#[path = "../common/plugin.rs"]
mod plugin;

mod calls;
mod cgroups;
mod connections;
mod floods;
mod groups;
mod keys;
mod oracles;
mod panics;
mod process;
mod random;
mod scrapers;
mod sealing;
mod socket;
mod starved;
mod strangers;
mod versions;
mod whole;
mod wire;
