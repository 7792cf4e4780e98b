//! etcd's `mvccpb.KeyValue`, of which nothing is copied.

/// The fields that an audit needs.
///
/// Source: go.etcd.io/etcd/api, `mvccpb/kv.proto`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct KeyValue<'a> {
    pub(super) key: &'a [u8],
    pub(super) create_revision: i64,
    pub(super) mod_revision: i64,
    /// How often the key was written since it was made.
    pub(super) version: i64,
    pub(super) value: &'a [u8],
}

impl<'a> KeyValue<'a> {
    pub(super) fn parse(mut bytes: &'a [u8]) -> Result<Self, &'static str> {
        let mut found = Self::default();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            match (tag >> 3, tag & 7) {
                (1, 2) => found.key = delimited(&mut bytes)?,
                (2, 0) => found.create_revision = varint(&mut bytes)?.cast_signed(),
                (3, 0) => found.mod_revision = varint(&mut bytes)?.cast_signed(),
                (4, 0) => found.version = varint(&mut bytes)?.cast_signed(),
                (5, 2) => found.value = delimited(&mut bytes)?,
                (0..=5, _) => return Err(FAULT),
                (_, 0) => drop(varint(&mut bytes)?),
                (_, 1) => drop(take(&mut bytes, 8)?),
                (_, 2) => drop(delimited(&mut bytes)?),
                (_, 5) => drop(take(&mut bytes, 4)?),
                _ => return Err(FAULT),
            }
        }
        match found.key {
            [] => Err("its value names no key"),
            _ => Ok(found),
        }
    }
}

const FAULT: &str = "its value is cut off or is no protobuf message";

fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    // Nearly all have one byte, and there are a dozen in each value.
    if let [byte @ 0..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Ok(u64::from(*byte));
    }
    prost::encoding::decode_varint(bytes).map_err(|_| FAULT)
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let length = usize::try_from(varint(bytes)?).map_err(|_| FAULT)?;
    take(bytes, length)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], &'static str> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(FAULT)?;
    *bytes = rest;
    Ok(taken)
}

/// The message again, for fixtures.
#[cfg(test)]
pub(super) fn write(key: &[u8], [create, modified, version]: [i64; 3], value: &[u8]) -> Vec<u8> {
    use prost::encoding::{bytes, int64};
    let mut message = Vec::new();
    bytes::encode(1, &key.to_vec(), &mut message);
    int64::encode(2, &create, &mut message);
    int64::encode(3, &modified, &mut message);
    int64::encode(4, &version, &mut message);
    bytes::encode(5, &value.to_vec(), &mut message);
    int64::encode(6, &77, &mut message);
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_fields_are_found_among_others() {
        let message = write(b"/registry/secrets/a/b", [3, 1 << 40, 7], b"k8s:enc:");
        let found = KeyValue::parse(&message).unwrap();
        assert_eq!(found.key, b"/registry/secrets/a/b");
        assert_eq!(found.value, b"k8s:enc:");
        let numbers = [found.create_revision, found.mod_revision, found.version];
        assert_eq!(numbers, [3, 1 << 40, 7]);
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let mut message = write(b"k", [1, 1, 1], b"v");
        for extra in [
            &b"\x38\x05"[..],
            b"\x3a\x02ab",
            b"\x39AAAAAAAA",
            b"\x3dAAAA",
        ] {
            message.extend(extra);
            assert_eq!(KeyValue::parse(&message).unwrap().value, b"v");
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        // A tombstone has nothing but its key.
        let message = b"\x0a\x03key";
        assert_eq!(KeyValue::parse(message).unwrap().key, b"key");
        for length in 0..message.len() {
            assert!(KeyValue::parse(&message[..length]).is_err(), "{length}");
        }
        for wrong in [
            &b"\x08\x01"[..],
            b"\x0a\x01k\x12\x00",
            b"\x0a\x01k\x28\x01",
            b"\x0a\x01k\x3b",
        ] {
            assert_eq!(KeyValue::parse(wrong), Err(FAULT), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(found) = KeyValue::parse(&bytes) {
                prop_assert!(!found.key.is_empty());
            }
        }
    }
}
