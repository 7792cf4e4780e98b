//! A KMS v2 envelope, as kube-apiserver stores it.

use super::Malformed;

/// The longest key id and the longest wrapped seed that kube-apiserver accepts, in bytes.
const LONGEST_FIELD: usize = 1024;

/// A KMS v2 envelope, of which nothing is copied.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Envelope<'a> {
    /// What the seed encrypts.
    pub(crate) data: &'a [u8],
    key_id: &'a [u8],
    /// The wrapped seed.
    pub(crate) seed: &'a [u8],
    /// 0: the wrapped key itself encrypts; 1: a key derived from it does.
    pub(crate) seed_kind: u64,
}

impl<'a> Envelope<'a> {
    /// Reads the message as protobuf says: the last of repeated fields counts, and unknown fields
    /// do not.
    pub(crate) fn parse(mut bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut envelope = Self::default();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let field = u32::try_from(tag >> 3).map_err(|_| Malformed::Envelope)?;
            match (field, tag & 7) {
                (1, 2) => envelope.data = delimited(&mut bytes)?,
                (2, 2) => envelope.key_id = delimited(&mut bytes)?,
                (3, 2) => envelope.seed = delimited(&mut bytes)?,
                (5, 0) => envelope.seed_kind = varint(&mut bytes)?,
                (0, _) => return Err(Malformed::Envelope),
                (_, 0) => drop(varint(&mut bytes)?),
                (_, 1) => drop(take(&mut bytes, 8)?),
                (_, 2) => drop(delimited(&mut bytes)?),
                (_, 5) => drop(take(&mut bytes, 4)?),
                _ => return Err(Malformed::Envelope),
            }
        }
        Ok(envelope)
    }

    /// The key id, if kube-apiserver would accept the message.
    pub(super) fn key_id(&self) -> Result<&'a str, Malformed> {
        let fits = |field: &[u8]| (1..=LONGEST_FIELD).contains(&field.len());
        if self.seed_kind > 1 {
            return Err(Malformed::SeedKind);
        }
        if self.data.is_empty() {
            return Err(Malformed::Data);
        }
        if !fits(self.seed) {
            return Err(Malformed::Seed);
        }
        if !fits(self.key_id) {
            return Err(Malformed::KeyId);
        }
        std::str::from_utf8(self.key_id).map_err(|_| Malformed::Envelope)
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    // Nearly all have one byte, and there are eight in each envelope.
    if let [byte @ 0..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Ok(u64::from(*byte));
    }
    prost::encoding::decode_varint(bytes).map_err(|_| Malformed::Envelope)
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = varint(bytes)?;
    take(
        bytes,
        usize::try_from(len).map_err(|_| Malformed::Envelope)?,
    )
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(len).ok_or(Malformed::Envelope)?;
    *bytes = rest;
    Ok(taken)
}
