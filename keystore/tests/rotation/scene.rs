//! A keyring and its members at one moment.

use claviger_keystore::header::{Header, Hex, KeyringKeyId};
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::keyring::Keyring;
use claviger_keystore::member::{Found, Member, MemberName, MemberRecord, Since};
use claviger_keystore::rotation::Situation;
use claviger_keystore::testing::member_record;
use jiff::{SignedDuration, Timestamp};

/// Keys are made at the epoch; this is later.
pub(crate) const NOW: Timestamp = Timestamp::constant(100 * 86_400, 0);
pub(crate) const HASH: Hex<32> = Hex([3; 32]);

#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) header: Header,
    pub(crate) members: Vec<Member>,
    pub(crate) ourselves: Option<MemberName>,
}

impl Scene {
    /// One key, primary since the epoch, and these members, which have loaded it.
    pub(crate) fn new(names: &[&str]) -> Self {
        let keyring = Keyring::create("", KeyringKeyId::ZERO, Timestamp::UNIX_EPOCH).unwrap();
        let mut scene = Self {
            header: keyring.header().clone(),
            members: Vec::new(),
            ourselves: None,
        };
        scene.header.revision = 7;
        for name in names {
            let mut record = member_record(name, NOW);
            record.acknowledged.revision = 7;
            record.acknowledged.sha256 = HASH;
            scene.put(name, Found::Record(Box::new(record)));
        }
        scene
    }

    /// With a second key in this state, or several.
    pub(crate) fn with_key(mut self, state: KeyState) -> Self {
        let mut key = self.header.keys[0].clone();
        let last = self.header.keys.len();
        key.id = format!("k1-{last:032x}").parse().unwrap();
        key.state = state;
        self.header.keys.push(key);
        self
    }

    pub(crate) fn with_replicas(mut self, names: &[&str]) -> Self {
        self.header.policy.replicas = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub(crate) fn acting_for(mut self, name: &str) -> Self {
        self.ourselves = Some(name.parse().unwrap());
        self
    }

    /// Puts what is found under a name in the place of what was.
    pub(crate) fn put(&mut self, name: &str, found: Found) {
        let name: MemberName = name.parse().unwrap();
        self.members.retain(|member| member.name != name);
        self.members.push(Member { name, found });
    }

    pub(crate) fn change(&mut self, name: &str, change: impl FnOnce(&mut MemberRecord)) {
        let member = self
            .members
            .iter_mut()
            .find(|member| member.name.as_str() == name);
        match &mut member.unwrap().found {
            Found::Record(record) => change(record),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn everybody(&mut self, change: impl Fn(&mut MemberRecord)) {
        for member in &mut self.members {
            if let Found::Record(record) = &mut member.found {
                change(record);
            }
        }
    }

    pub(crate) fn primary(&self) -> KeyId {
        self.header.primary().unwrap()
    }

    /// The last key.
    pub(crate) fn last(&self) -> KeyId {
        self.header.keys.last().unwrap().id
    }

    pub(crate) fn situation(&self) -> Situation<'_> {
        Situation {
            header: &self.header,
            hash: HASH,
            members: &self.members,
            ourselves: self.ourselves.as_ref(),
            now: NOW,
        }
    }
}

pub(crate) fn since(id: KeyId) -> Since {
    Since { id, since: NOW }
}

pub(crate) fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}
