//! Threads, asked for before any of them is needed.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// For the log, the metrics and the reading of files, and one to spare. Requests need none.
const NEEDED: usize = 4;

/// Fails where the system has no threads for a plugin, because of a limit of processes or of memory.
/// The libraries that start threads later take it for granted that they can.
pub(super) fn check() -> io::Result<()> {
    let gate = Arc::new(Mutex::new(()));
    // All wait for it, so that they are there at the same time.
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let mut threads = Vec::new();
    for _ in 0..NEEDED {
        let gate = gate.clone();
        threads.push(thread::Builder::new().spawn(move || drop(gate.lock()))?);
    }
    drop(closed);
    for thread in threads {
        // Without memory for its stacks, it panics.
        thread.join().map_err(|_| io::ErrorKind::OutOfMemory)?;
    }
    Ok(())
}
