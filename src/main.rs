//! The `claviger` program: parse the command line, run the command, exit with its code.

use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

// Seeds pass through buffers of tonic, h2 and prost that no handler can reach; wiping every freed
// block is what covers them.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    claviger::cli::main()
}
