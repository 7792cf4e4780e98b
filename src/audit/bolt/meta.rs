//! The two meta pages, of which the one with the newer transaction counts.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::BoltError;
use super::page::{u16_at, u32_at, u64_at};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// A page's own header, before the meta data.
const PAGE_HEADER: usize = 16;
/// What the checksum covers.
const CHECKED: usize = 56;
/// Header, meta data and checksum.
const LENGTH: usize = PAGE_HEADER + CHECKED + 8;
const META_FLAG: u16 = 4;
/// bbolt itself looks for nothing outside of this range.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 1 << 10..=16 << 20;

/// What a meta page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    /// The bytes of a page, a power of two.
    pub(super) page_size: u32,
    /// The page at the root of all buckets.
    pub(super) root: u64,
    /// How many pages there are, free ones too.
    pub(super) pages: u64,
    transaction: u64,
}

impl Meta {
    /// Reads both, and returns the newer one. `length` is that of the database in the file.
    pub(super) fn read(file: &File, length: u64) -> Result<Self, BoltError> {
        let first = Self::read_at(file, length, 0)?;
        let second = Self::read_at(file, length, first.page_size)?;
        let newer = if second.transaction > first.transaction {
            second
        } else {
            first
        };
        let needs = newer.pages.saturating_mul(u64::from(newer.page_size));
        if length < needs {
            return Err(BoltError::Truncated { has: length, needs });
        }
        if second.page_size != first.page_size || newer.root < 2 || newer.root >= newer.pages {
            let (page, fault) = (1, "the meta pages contradict themselves");
            return Err(BoltError::Damaged { page, fault });
        }
        Ok(newer)
    }

    fn read_at(file: &File, length: u64, offset: u32) -> Result<Self, BoltError> {
        let offset = u64::from(offset);
        let needs = offset + LENGTH as u64;
        if length < needs {
            return Err(match length {
                0 => BoltError::Foreign("it is empty"),
                has => BoltError::Truncated { has, needs },
            });
        }
        let mut bytes = [0; LENGTH];
        file.read_exact_at(&mut bytes, offset)
            .map_err(|source| BoltError::Read { offset, source })?;
        Self::parse(&bytes, u64::from(offset > 0))
    }

    /// Page 0 or 1.
    fn parse(bytes: &[u8; LENGTH], page: u64) -> Result<Self, BoltError> {
        let damaged = |fault| BoltError::Damaged { page, fault };
        let short = || damaged("it ends too early");
        let (header, meta) = bytes.split_at(PAGE_HEADER);
        let word = |at| u32_at(meta, at).ok_or_else(short);
        let long = |at| u64_at(meta, at).ok_or_else(short);
        match word(0)? {
            MAGIC => {}
            magic if magic.swap_bytes() == MAGIC => {
                let order = "it was written by a machine of the other byte order";
                return Err(BoltError::Foreign(order));
            }
            _ if page == 0 => return Err(BoltError::Foreign(foreign(bytes))),
            _ => return Err(damaged("it is no meta page")),
        }
        if fnv1a(&meta[..CHECKED]) != long(CHECKED)? {
            return Err(damaged("its checksum is wrong"));
        }
        if word(4)? != VERSION {
            return Err(BoltError::Foreign(
                "its version is not 2, the only one known",
            ));
        }
        let page_size = word(8)?;
        if !PAGE_SIZES.contains(&page_size) || !page_size.is_power_of_two() {
            return Err(damaged("its page size cannot be"));
        }
        if u64_at(header, 0) != Some(page) || u16_at(header, 8) != Some(META_FLAG) {
            return Err(damaged("it is no meta page"));
        }
        Ok(Self {
            page_size,
            root: long(16)?,
            pages: long(40)?,
            transaction: long(48)?,
        })
    }
}

/// What people give instead: backups are often stored compressed.
fn foreign(bytes: &[u8; LENGTH]) -> &'static str {
    match bytes {
        [0x1f, 0x8b, ..] => "it is compressed with gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed with zstd",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "it is compressed with xz",
        b if b.starts_with(b"BZh") => "it is compressed with bzip2",
        b if b.starts_with(b"PK\x03\x04") => "it is a zip archive",
        _ => "it does not begin like one",
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    bytes.iter().fold(OFFSET, mix)
}

/// A meta page, for fixtures.
#[cfg(test)]
pub(super) fn write(page: u64, page_size: u32, root: u64, pages: u64, transaction: u64) -> Vec<u8> {
    let mut bytes = page.to_le_bytes().to_vec();
    bytes.extend([4, 0, 0, 0, 0, 0, 0, 0]);
    for word in [MAGIC, VERSION, page_size, 0] {
        bytes.extend(word.to_le_bytes());
    }
    // The root bucket has a sequence too, and there is no list of free pages: etcd keeps none.
    for long in [root, 0, u64::MAX, pages, transaction] {
        bytes.extend(long.to_le_bytes());
    }
    let checksum = fnv1a(&bytes[PAGE_HEADER..]);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const PAGE_SIZE: u32 = 4096;

    fn file(first: &[u8], second: &[u8], length: usize) -> File {
        let mut bytes = first.to_vec();
        bytes.resize(PAGE_SIZE as usize, 0);
        bytes.extend(second);
        bytes.resize(length, 0);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    fn read(first: &[u8], second: &[u8], length: usize) -> Result<Meta, String> {
        let file = file(first, second, length);
        Meta::read(&file, length as u64).map_err(|error| error.to_string())
    }

    #[test]
    fn fnv_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_newer_transaction_counts() {
        let length = 4 * PAGE_SIZE as usize;
        for (transactions, root) in [([7, 6], 2), ([6, 7], 3)] {
            let first = write(0, PAGE_SIZE, 2, 4, transactions[0]);
            let second = write(1, PAGE_SIZE, 3, 4, transactions[1]);
            assert_eq!(read(&first, &second, length).unwrap().root, root);
        }
    }

    #[test]
    fn any_changed_bit_of_either_is_refused() {
        let length = 4 * PAGE_SIZE as usize;
        let good = [write(0, PAGE_SIZE, 2, 4, 7), write(1, PAGE_SIZE, 2, 4, 6)];
        assert!(read(&good[0], &good[1], length).is_ok());
        for which in 0..2 {
            for bit in 0..LENGTH * 8 {
                // The rest of a page's header says how many entries it has: a meta page has none.
                if (80..128).contains(&bit) {
                    continue;
                }
                let mut pages = good.clone();
                pages[which][bit / 8] ^= 1 << (bit % 8);
                let answer = read(&pages[0], &pages[1], length);
                assert!(answer.is_err(), "bit {bit} of page {which}: {answer:?}");
            }
        }
    }

    #[test]
    fn a_file_that_is_cut_says_how_much_is_there() {
        let pages = [write(0, PAGE_SIZE, 2, 4, 7), write(1, PAGE_SIZE, 2, 4, 6)];
        let error = read(&pages[0], &pages[1], 4 * PAGE_SIZE as usize - 1).unwrap_err();
        assert_eq!(error, "it is cut short: 16383 bytes of 16384");
        for length in [1, 79, 80, 4096, 4175] {
            let error = read(&pages[0], &pages[1], length).unwrap_err();
            assert!(error.starts_with("it is cut short"), "{length}: {error}");
        }
        let error = read(&pages[0], &pages[1], 0).unwrap_err();
        assert_eq!(error, "it is not a bbolt database: it is empty");
    }

    #[test]
    fn what_people_give_instead_is_named() {
        let length = 4 * PAGE_SIZE as usize;
        let good = write(1, PAGE_SIZE, 2, 4, 6);
        let swapped = {
            let mut page = write(0, PAGE_SIZE, 2, 4, 7);
            page[16..20].reverse();
            page
        };
        for (first, expected) in [
            (b"\x1f\x8b\x08".to_vec(), "gzip"),
            (b"\x28\xb5\x2f\xfd".to_vec(), "zstd"),
            (b"\xfd7zXZ".to_vec(), "xz"),
            (b"BZh9".to_vec(), "bzip2"),
            (b"PK\x03\x04".to_vec(), "zip"),
            (b"apiVersion: v1".to_vec(), "does not begin like one"),
            (swapped, "other byte order"),
        ] {
            let error = read(&first, &good, length).unwrap_err();
            assert!(error.starts_with("it is not a bbolt database"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_root_outside_of_the_pages_is_refused() {
        let length = 4 * PAGE_SIZE as usize;
        for root in [0, 1, 4, u64::MAX] {
            let first = write(0, PAGE_SIZE, root, 4, 7);
            let second = write(1, PAGE_SIZE, 2, 4, 6);
            let error = read(&first, &second, length).unwrap_err();
            assert!(error.contains("contradict"), "{root}: {error}");
        }
        let huge = write(0, PAGE_SIZE, 2, u64::MAX, 7);
        let second = write(1, PAGE_SIZE, 2, 4, 6);
        assert!(
            read(&huge, &second, length)
                .unwrap_err()
                .contains("cut short")
        );
    }
}
