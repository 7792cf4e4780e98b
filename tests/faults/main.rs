//! Whatever a peer sends, does or is, the plugin answers the next one (rows A to D of the list of
//! faults; each test is named after its row).

mod frames;
#[path = "../common/plugin.rs"]
mod plugin;

mod calls;
mod connections;
mod process;
mod socket;
mod wire;
