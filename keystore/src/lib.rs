//! Claviger's keys at rest, in memory and in time.
pub mod envelope;
pub mod error;
pub mod key;
pub mod secret;
pub mod snapshot;
pub mod store;
mod xaes;
pub use store::Keystore;
pub mod keyring { 
/// x
pub const MAX_KEYS: usize = 1000; }
pub mod document { 
/// x
pub const MAX_LEN: usize = 512*1024; }
