//! The member record: what one running plugin tells all others, through the storage. It is how
//! `status` and the guards learn live facts without an administrative interface.
//!
//! ```text
//! {"name":"cp1",…,"lastRead":"…","mac":"<hex>"}
//! mac = HMAC-SHA-256 under D(KK, "claviger/v1/member") over LP(cluster id, the record without it)
//! ```
//!
//! Whoever can write to the storage can leave a record out or put an older one back, but makes none
//! up. An older one is noticed by its date.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, de, ser};
use sha2::Sha256;

use crate::document::KeyringKey;
use crate::error::{Error, MemberError};
use crate::header::{ClusterId, DocumentHash, Hex};
use crate::key::KeyId;
pub use crate::limits::MAX_MEMBER_LEN;
use crate::secret::{length_prefixed, with_clean_stack};

/// A record that was written longer ago is shown as unknown and fails every guard.
pub const FRESH: SignedDuration = SignedDuration::from_mins(3);

/// What stands behind the other fields: `,"mac":"`, 64 hex digits, `"}`.
const MAC_PREFIX: &[u8] = b",\"mac\":\"";
const MAC_HEX: usize = 64;

/// A member's name: 1 to 128 letters, digits, dots, dashes or underscores, a letter or digit first.
/// It is part of a file's name and of an etcd key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberName(String);

impl MemberName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MemberName {
    type Err = MemberError;

    fn from_str(text: &str) -> Result<Self, MemberError> {
        let safe = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match begins && text.len() <= 128 && text.chars().all(safe) {
            true => Ok(Self(text.to_owned())),
            false => Err(MemberError::Name),
        }
    }
}

impl Serialize for MemberName {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MemberName {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Made at random at each start of a plugin.
pub type InstanceId = Hex<16>;

/// What one member says of itself. Dates are by its own wall clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemberRecord {
    /// Its name in the configuration.
    pub name: MemberName,
    /// Which start of it.
    pub instance: InstanceId,
    /// When it wrote this.
    pub written: Timestamp,
    /// The document that it has loaded and opened.
    pub acknowledged: Acknowledged,
    /// The document formats that it understands.
    pub formats: Vec<u64>,
    /// The key id that Status answers; absent while Status is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<KeyId>,
    /// The id under which alone it writes by now: 10 s after Status first answered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<KeyId>,
    /// The ids that nothing can be written under any more through this member (design §3.4).
    pub quiet: Vec<Since>,
    /// Its connections that called Status.
    pub connections: Connections,
    /// The id on which all its connections have converged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub converged: Option<Since>,
    /// For each disabled key: when its apiserver was first seen to have restarted, or to have read
    /// its configuration anew, after that key was disabled (design §3.7).
    pub restarted: Vec<Since>,
    /// Its roots.
    pub roots: Vec<RootRecord>,
    /// When it last read the storage with success.
    pub last_read: Timestamp,
}

/// A document that a member has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledged {
    /// Its revision.
    pub revision: u64,
    /// Its hash.
    pub sha256: DocumentHash,
}

/// What has been true of a key since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// The key.
    pub id: KeyId,
    /// Since when, by the member's wall clock.
    pub since: Timestamp,
}

/// How many connections called Status, and how many of them converged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    /// Those that are open and called Status.
    pub open: u32,
    /// Those of them that have converged on what is answered.
    pub converged: u32,
}

/// One root of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RootRecord {
    /// Its name in the configuration.
    pub name: String,
    /// Its state (design §6).
    pub state: RootState,
    /// When it last unwrapped its slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
}

/// How a root is, by the class that decides what happens (design §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootState {
    /// It unwrapped its slot a moment ago.
    Fresh,
    /// It does not answer.
    Outage,
    /// It answers that we may not.
    Denied,
    /// It answers that its own key is disabled or gone.
    KeyState,
    /// Its configuration or its files are wrong.
    Unusable,
}

/// That a member was removed by name: nobody waits for it any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Removal {
    name: MemberName,
    removed: Timestamp,
}

/// One member, as a reader of the storage finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: MemberName,
    /// What lies under that name.
    pub found: Found,
}

/// What lies under a member's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Its record.
    Record(Box<MemberRecord>),
    /// That it was removed, and when.
    Removed(Timestamp),
    /// Something that says nothing; it fails every guard until the member writes again.
    Unreadable(MemberError),
}

impl Member {
    /// The record, if it was written at most three minutes before (or, where a clock was set back,
    /// after) `now`.
    pub fn fresh(&self, now: Timestamp) -> Option<&MemberRecord> {
        match &self.found {
            Found::Record(record) if record.is_fresh(now) => Some(record),
            _ => None,
        }
    }

    /// The record, however old it is.
    pub fn record(&self) -> Option<&MemberRecord> {
        match &self.found {
            Found::Record(record) => Some(record),
            _ => None,
        }
    }

    /// Whether it was removed by name.
    pub fn is_removed(&self) -> bool {
        matches!(self.found, Found::Removed(_))
    }
}

impl MemberRecord {
    /// Whether it still says how the member is.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now.duration_since(self.written).abs() <= FRESH
    }

    /// Since when nothing can be written under `id` through this member.
    pub fn quiet_since(&self, id: &KeyId) -> Option<Timestamp> {
        since(&self.quiet, id)
    }

    /// When its apiserver was first seen to have restarted after `id` was disabled.
    pub fn restarted_since(&self, id: &KeyId) -> Option<Timestamp> {
        since(&self.restarted, id)
    }

    /// The record's bytes, with its MAC.
    pub(crate) fn encode(
        &self,
        cluster_id: &ClusterId,
        key: &KeyringKey,
    ) -> Result<Vec<u8>, Error> {
        encode(&self.name, self, cluster_id, key)
    }
}

fn since(list: &[Since], id: &KeyId) -> Option<Timestamp> {
    let found = list.iter().find(|since| since.id == *id)?;
    Some(found.since)
}

/// The bytes of a removal, with its MAC.
pub(crate) fn encode_removal(
    name: &MemberName,
    removed: Timestamp,
    cluster_id: &ClusterId,
    key: &KeyringKey,
) -> Result<Vec<u8>, Error> {
    let removal = Removal {
        name: name.clone(),
        removed,
    };
    encode(name, &removal, cluster_id, key)
}

/// Reads what lies under a member's name. Nothing in it is believed before its MAC is verified.
pub(crate) fn decode(
    name: MemberName,
    bytes: &[u8],
    cluster_id: &ClusterId,
    key: &KeyringKey,
) -> Result<Member, Error> {
    let found = match verified(bytes, cluster_id, key)? {
        Ok(body) => read(&name, &body).unwrap_or_else(Found::Unreadable),
        Err(e) => Found::Unreadable(e),
    };
    Ok(Member { name, found })
}

fn read(name: &MemberName, body: &[u8]) -> Result<Found, MemberError> {
    let strict = read_as::<MemberRecord>(body);
    let (found, named) = match strict {
        Ok(record) => {
            let named = record.name.clone();
            (Found::Record(Box::new(record)), named)
        }
        Err(e) => {
            let removal = read_as::<Removal>(body).map_err(|_| e)?;
            (Found::Removed(removal.removed), removal.name)
        }
    };
    match named == *name {
        true => Ok(found),
        false => Err(MemberError::OtherName(named.0)),
    }
}

/// Only as it is written: another text of the same meaning is not ours.
fn read_as<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<T, MemberError> {
    let malformed = |e: serde_json::Error| MemberError::Malformed(e.to_string());
    let value = serde_json::from_slice(body).map_err(malformed)?;
    match serde_json::to_vec(&value).map_err(malformed)? == body {
        true => Ok(value),
        false => Err(MemberError::Malformed("it is not canonical".to_owned())),
    }
}

fn encode<T: Serialize>(
    name: &MemberName,
    value: &T,
    cluster_id: &ClusterId,
    key: &KeyringKey,
) -> Result<Vec<u8>, Error> {
    let refused = |source| Error::Member {
        name: name.to_string(),
        source,
    };
    let mut bytes =
        serde_json::to_vec(value).map_err(|e| refused(MemberError::Malformed(e.to_string())))?;
    let mac = mac(&bytes, cluster_id, key)?.finalize().into_bytes();
    bytes.pop();
    bytes.extend_from_slice(MAC_PREFIX);
    bytes.extend_from_slice(HEXLOWER.encode(&mac).as_bytes());
    bytes.extend_from_slice(b"\"}");
    match bytes.len() <= MAX_MEMBER_LEN {
        true => Ok(bytes),
        false => Err(refused(MemberError::TooLong)),
    }
}

/// The record without its MAC, if that is right. The outer error is no fault of the record.
fn verified(
    bytes: &[u8],
    cluster_id: &ClusterId,
    key: &KeyringKey,
) -> Result<Result<Vec<u8>, MemberError>, Error> {
    if bytes.len() > MAX_MEMBER_LEN {
        return Ok(Err(MemberError::TooLong));
    }
    let Some((body, tag)) = split(bytes) else {
        return Ok(Err(MemberError::NoMac));
    };
    let verdict = mac(&body, cluster_id, key)?.verify_slice(&tag);
    Ok(verdict.map(|()| body).map_err(|_| MemberError::Mac))
}

fn split(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let rest = bytes.strip_suffix(b"\"}")?;
    let (rest, hex) = rest.split_at_checked(rest.len().checked_sub(MAC_HEX)?)?;
    let tag = HEXLOWER.decode(hex).ok()?;
    let body = rest.strip_suffix(MAC_PREFIX)?;
    Some(([body, b"}"].concat(), tag))
}

fn mac(body: &[u8], cluster_id: &ClusterId, key: &KeyringKey) -> Result<Hmac<Sha256>, Error> {
    let key = key.member_key()?;
    with_clean_stack(|| {
        let mut mac = Hmac::new_from_slice(key.expose()).map_err(|_| Error::OutOfMemory)?;
        mac.update(&length_prefixed(&[&cluster_id.0, body]));
        Ok(mac)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Secret;
    use crate::testing::member_record;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const CLUSTER: ClusterId = Hex([5; 16]);

    fn key(byte: u8) -> KeyringKey {
        KeyringKey(Secret::copy_of(&[byte; 32]).unwrap())
    }

    fn name(text: &str) -> MemberName {
        text.parse().unwrap()
    }

    fn found(bytes: &[u8]) -> Found {
        decode(name("cp1"), bytes, &CLUSTER, &key(1)).unwrap().found
    }

    fn encoded() -> (MemberRecord, Vec<u8>) {
        let record = member_record("cp1", NOW);
        let bytes = record.encode(&CLUSTER, &key(1)).unwrap();
        (record, bytes)
    }

    #[test]
    fn a_record_reads_back() {
        let (record, bytes) = encoded();
        assert_eq!(found(&bytes), Found::Record(Box::new(record)));
    }

    #[test]
    fn a_removal_reads_back() {
        let bytes = encode_removal(&name("cp1"), NOW, &CLUSTER, &key(1)).unwrap();
        assert_eq!(found(&bytes), Found::Removed(NOW));
    }

    /// The bytes of the format, composed by other means: printf of the record, HKDF and HMAC by
    /// Python's hashlib.
    #[test]
    fn golden_removal() {
        let bytes = encode_removal(&name("cp1"), NOW, &CLUSTER, &key(1)).unwrap();
        let expected = concat!(
            r#"{"name":"cp1","removed":"1970-01-01T00:00:00Z","mac":""#,
            "ab468f2c3636233cc055e632ebfd73b62f4c4dba5dd5ee90b2bf9357807a4e99",
            r#""}"#
        );
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn another_key_cluster_or_name_is_refused() {
        let (_, bytes) = encoded();
        let unreadable = |name: &str, cluster: &ClusterId, by: u8| {
            let member = decode(name.parse().unwrap(), &bytes, cluster, &key(by)).unwrap();
            match member.found {
                Found::Unreadable(why) => why,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(unreadable("cp1", &CLUSTER, 2), MemberError::Mac);
        assert_eq!(unreadable("cp1", &Hex([6; 16]), 1), MemberError::Mac);
        let other = MemberError::OtherName("cp1".to_owned());
        assert_eq!(unreadable("cp2", &CLUSTER, 1), other);
    }

    #[test]
    fn unknown_fields_and_other_spellings_are_refused() {
        let record = serde_json::to_value(encoded().0).unwrap();
        let mut more = record.clone();
        more["more"] = 1.into();
        let mut less = record.clone();
        less.as_object_mut().unwrap().remove("lastRead");
        for value in [
            more,
            less,
            serde_json::json!({}),
            serde_json::json!({"name": "cp1"}),
        ] {
            let bytes = encode(&name("cp1"), &value, &CLUSTER, &key(1)).unwrap();
            let refused = matches!(found(&bytes), Found::Unreadable(MemberError::Malformed(_)));
            assert!(refused, "{value}");
        }
        // The same value with its fields in another order.
        let bytes = encode(&name("cp1"), &record, &CLUSTER, &key(1)).unwrap();
        assert!(matches!(
            found(&bytes),
            Found::Unreadable(MemberError::Malformed(_))
        ));
    }

    #[test]
    fn one_that_is_too_long_is_neither_written_nor_read() {
        let (mut record, _) = encoded();
        record.formats = vec![u64::MAX; MAX_MEMBER_LEN / 20];
        let refused = record.encode(&CLUSTER, &key(1)).unwrap_err();
        assert!(refused.to_string().contains("cp1"), "{refused}");
        let long = vec![b' '; MAX_MEMBER_LEN + 1];
        assert_eq!(found(&long), Found::Unreadable(MemberError::TooLong));
    }

    #[test]
    fn it_is_fresh_for_three_minutes_in_both_directions() {
        let record = member_record("cp1", NOW + SignedDuration::from_hours(1));
        for (seconds, fresh) in [
            (-181, false),
            (-180, true),
            (0, true),
            (180, true),
            (181, false),
        ] {
            let now = record.written + SignedDuration::from_secs(seconds);
            assert_eq!(record.is_fresh(now), fresh, "{seconds}");
        }
    }

    #[test]
    fn names_are_safe_in_paths() {
        for good in ["cp1", "CP-1.example.org", "0", "a_b"] {
            assert_eq!(good.parse::<MemberName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(129);
        for bad in [
            "", ".", "..", "-a", "_a", "a/b", "a b", "ä", "a\n", "a\0", &long,
        ] {
            assert_eq!(bad.parse::<MemberName>(), Err(MemberError::Name), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_change_of_a_byte_is_noticed(at: prop::sample::Index, by in 1..=255_u8) {
            let (_, mut bytes) = encoded();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            let unreadable = matches!(found(&bytes), Found::Unreadable(_));
            prop_assert!(unreadable);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
            let unreadable = matches!(found(&bytes), Found::Unreadable(_));
            prop_assert!(unreadable);
        }
    }
}
