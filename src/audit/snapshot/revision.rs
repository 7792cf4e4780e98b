//! The keys of etcd's bucket `key`.

/// When something was written, and whether that was a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Revision {
    /// etcd's revision. A transaction has one for all that it writes; the second number of a key
    /// tells those apart, and nobody needs it here.
    pub(super) main: i64,
    pub(super) deletes: bool,
}

impl Revision {
    /// Eight bytes, `_`, eight bytes, and `t` for a tombstone.
    ///
    /// Source: go.etcd.io/etcd/server, `storage/mvcc/revision.go`.
    pub(super) fn parse(key: &[u8]) -> Result<Self, &'static str> {
        let fault = "it is no revision";
        let (main, rest) = key.split_first_chunk().ok_or(fault)?;
        let (sub, mark) = rest
            .strip_prefix(b"_")
            .and_then(<[u8]>::split_first_chunk)
            .ok_or(fault)?;
        let (main, sub) = (i64::from_be_bytes(*main), i64::from_be_bytes(*sub));
        let deletes = match mark {
            b"" => false,
            b"t" => true,
            _ => return Err(fault),
        };
        if main < 0 || sub < 0 {
            return Err("its revision is negative");
        }
        Ok(Self { main, deletes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_writes_is_read() {
        let put = b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03";
        let revision = Revision {
            main: 258,
            deletes: false,
        };
        assert_eq!(Revision::parse(put), Ok(revision));
        let tombstone = [&put[..], b"t"].concat();
        let revision = Revision {
            main: 258,
            deletes: true,
        };
        assert_eq!(Revision::parse(&tombstone), Ok(revision));
    }

    #[test]
    fn anything_else_is_refused() {
        let put = b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03";
        for length in 0..put.len() {
            assert!(Revision::parse(&put[..length]).is_err(), "{length}");
        }
        for end in ["x", "tt", "T"] {
            assert!(Revision::parse(&[put, end.as_bytes()].concat()).is_err());
        }
        for at in [0, 8, 9] {
            let mut wrong = *put;
            wrong[at] ^= 0x80;
            assert!(Revision::parse(&wrong).is_err(), "byte {at}");
        }
    }
}
