//! The socket, its limits, and what stands between a peer and the three calls.

pub mod observer;
