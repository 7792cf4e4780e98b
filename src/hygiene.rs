//! What the process does to itself before it touches a key: no core dumps, no other process that
//! looks into its memory, no file that others may read.

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};
use rustix::thread::{CapabilitySet, capabilities};

/// Locked memory that a keyring of a few keys needs: each key has a page, the document's body and
/// derived keys some more while it is opened.
const LOCKED_BYTES: u64 = 256 * 1024;

/// Makes every new file private. To be called before there is another thread.
pub fn make_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Forbids core dumps and ptrace by others. To be called before any key is read.
pub fn forbid_dumps() -> std::io::Result<()> {
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    // A core that goes to a pipe ignores the limit; a process that is not dumpable has none.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Whether key pages can be locked into memory. Where they cannot, keys still work, but may be
/// written to swap.
pub fn memory_can_be_locked() -> bool {
    getrlimit(Resource::Memlock)
        .current
        .is_none_or(|limit| limit >= LOCKED_BYTES)
        || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}
