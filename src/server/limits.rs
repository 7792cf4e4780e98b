//! What the server allows. Production uses the default values; tests use shorter times.

use std::time::Duration;

/// How much of everything one server, connection or call may have.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time. One is kept for each allowed uid that has none.
    pub connections: usize,
    /// From the connection to the last byte of the HTTP/2 preface.
    pub preface: Duration,
    /// From the first byte of a frame, or of a call's headers, to the last.
    pub frame: Duration,
    /// From a call's headers to its answer, the arrival of its body included. Below the 3 s that
    /// kube-apiserver waits by default, so that it learns our reason.
    pub call: Duration,
    /// From a call's headers until its answer is taken: a peer may give no window for it. Above
    /// [`Limits::call`], so that there is an answer.
    pub stream: Duration,
    /// Calls at a time on one connection; more are answered RESOURCE_EXHAUSTED. As many as there
    /// may be streams, so that a client that keeps to HTTP/2 waits rather than being refused: a
    /// starting apiserver decrypts for all its lists at once.
    pub calls_per_connection: usize,
    /// HTTP/2 streams at a time on one connection; more wait in the client.
    pub streams_per_connection: u32,
    /// One call's headers, in bytes as HTTP/2 counts them (RFC 9113 §6.5.2).
    pub header_list: u32,
    /// Streams that the peer reset before they were accepted ("rapid reset", CVE-2023-44487);
    /// more end the connection.
    pub pending_accept_resets: usize,
    /// Streams that were reset because of the peer's errors; more end the connection.
    pub local_error_resets: usize,
    /// A peer that is silent this long is asked for a sign of life …
    pub keepalive_interval: Duration,
    /// … and is cut off if it gives none in this time.
    pub keepalive_timeout: Duration,
    /// A peer that reads nothing this long while there is something for it is cut off.
    pub write_stall: Duration,
    /// From the signal to stop until calls that still run are cut off.
    pub drain: Duration,
    /// How often the socket file is looked for.
    pub socket_check: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            preface: Duration::from_secs(5),
            frame: Duration::from_secs(5),
            call: Duration::from_millis(2500),
            stream: Duration::from_secs(5),
            calls_per_connection: 128,
            streams_per_connection: 128,
            header_list: 8 * 1024,
            pending_accept_resets: 20,
            local_error_resets: 64,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            write_stall: Duration::from_secs(10),
            drain: Duration::from_secs(4),
            socket_check: Duration::from_secs(1),
        }
    }
}
