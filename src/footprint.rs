//! How much of the program lies in memory. A plugin runs for months; the command line, the
//! configuration and the keyring are read once, by code that is spread over the whole program.

use std::fs;
use std::io;
use std::ops::Range;
use std::ptr;

use rustix::mm::{Advice, madvise};

/// Gives back the pages of code that the process has run through so far. What it runs again comes
/// back page by page, from the page cache. Returns how many bytes of code there are.
///
/// # Errors
/// Where the kernel does not say what is mapped (`proc_pid_maps(5)`), or refuses.
#[expect(unsafe_code, reason = "no safe call gives pages back")]
pub fn give_back_code() -> io::Result<usize> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut bytes = 0;
    for code in maps.lines().filter_map(code) {
        let start = ptr::with_exposed_provenance_mut(code.start);
        // SAFETY: the range is a private mapping of a file that nobody may write to. Linkers refuse
        // relocations in code, so its pages are the file's, and a page that is touched again is
        // read from the file again: madvise(2), MADV_DONTNEED.
        unsafe { madvise(start, code.len(), Advice::LinuxDontNeed) }?;
        bytes += code.len();
    }
    Ok(bytes)
}

/// The addresses of a mapping, if it is code of a file.
fn code(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_code = fields.next()? == "r-xp";
    // After the offset, the device and the inode. The kernel's own mappings are in brackets.
    let is_file = fields.nth(3)?.starts_with('/');
    let address = |text| usize::from_str_radix(text, 16).ok();
    (is_code && is_file).then_some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_files_is_found() {
        let program = "55a5-66b6 r-xp 002a4000 fe:00 5482660                    /usr/bin/claviger";
        assert_eq!(code(program), Some(0x55a5..0x66b6));
        let replaced = "1000-2000 r-xp 00000000 fe:00 1   /usr/bin/claviger (deleted)";
        assert_eq!(code(replaced), Some(0x1000..0x2000));
    }

    #[test]
    fn nothing_else_is() {
        for line in [
            "1000-2000 r--p 00000000 fe:00 1 /usr/bin/claviger",
            "1000-2000 rw-p 00000000 fe:00 1 /usr/bin/claviger",
            "1000-2000 rwxp 00000000 fe:00 1 /usr/bin/claviger",
            "1000-2000 r-xs 00000000 fe:00 1 /usr/bin/claviger",
            "7ffc-7ffe r-xp 00000000 00:00 0 [vdso]",
            "1000-2000 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code(line), None, "{line}");
        }
    }

    #[test]
    fn what_was_given_back_runs_again() {
        let code = give_back_code().unwrap();
        assert!(code > 0);
        assert_eq!(give_back_code().unwrap(), code);
    }
}
