//! The world at one moment, and what may happen next in it.

use std::collections::BTreeSet;

use claviger_keystore::key::KeyState;
use stateright::{Model, Property};

use crate::document::{Doc, Key};

/// What is durable or lives in a process, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) stored: Doc,
    /// Somebody put an older document into the storage.
    pub(crate) put_back: bool,
    pub(crate) backup: Option<Doc>,
    pub(crate) members: Vec<Node>,
    /// The keys that objects in etcd name.
    pub(crate) objects: BTreeSet<Key>,
    /// The next number of a key, of a document.
    pub(crate) next_key: Key,
    pub(crate) next_serial: u8,
    pub(crate) crashes: u8,
    pub(crate) restores: u8,
    /// What must never happen, as soon as it happened.
    pub(crate) broken: BTreeSet<&'static str>,
}

/// A member, its node and the apiserver beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    /// What it has loaded, while it runs.
    pub(crate) process: Option<Process>,
    /// What its mark holds.
    pub(crate) mark: Option<Doc>,
    pub(crate) record: Record,
    /// The key of the seed that its apiserver writes with; it outlives the plugin.
    pub(crate) apiserver: Option<Key>,
    /// The last key that it ever answered.
    pub(crate) answered: Option<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) doc: Doc,
    /// An older document than its mark's: it only decrypts.
    pub(crate) decrypt_only: bool,
    /// A commit that is durable, but whose mark and swap are still to come.
    pub(crate) pending: Option<(Doc, Phase)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Mark,
    Swap,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Record {
    None,
    Removed,
    Written {
        /// Revision and serial.
        acknowledged: (u8, u8),
        published: Option<Key>,
        converged: Option<Key>,
        quiet: BTreeSet<Key>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The rotation of the policy or of a command takes its next step.
    Rotate,
    Activate,
    Abort,
    Disable(Key),
    Enable(Key),
    Destroy(Key),
    Migrate,
    Backup,
    PutBack,
    Restore,
    /// A member's commit goes on.
    WriteMark(usize),
    Swap(usize),
    Sync(usize),
    WriteRecord(usize),
    /// The apiserver asks Status, and has a new seed sealed.
    Seal(usize),
    /// The apiserver writes an object with the seed that it has.
    WriteObject(usize),
    Crash(usize),
    Start(usize),
}

/// A guard that is left out, to see that the properties notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    NoAcknowledgement,
    NoQuiet,
    NoAudit,
    NoConvergence,
    NoMark,
    NoPersistence,
    PrimaryAfterMerge,
    LossOnRestore,
}

/// How much happens.
#[derive(Debug, Clone)]
pub(crate) struct Small {
    pub(crate) members: usize,
    pub(crate) replicas: bool,
    pub(crate) keys: Key,
    pub(crate) revisions: u8,
    pub(crate) crashes: u8,
    pub(crate) restores: u8,
    pub(crate) fault: Option<Fault>,
}

impl World {
    fn first(members: usize) -> Self {
        let node = Node {
            process: None,
            mark: None,
            record: Record::None,
            apiserver: None,
            answered: None,
        };
        Self {
            stored: Doc::first(),
            put_back: false,
            backup: None,
            members: vec![node; members],
            objects: BTreeSet::new(),
            next_key: 1,
            next_serial: 2,
            crashes: 0,
            restores: 0,
            broken: BTreeSet::new(),
        }
    }

    /// The keys that must open: of objects, and of seeds that were returned.
    fn in_use(&self) -> impl Iterator<Item = Key> + '_ {
        let seeds = self.members.iter().filter_map(|node| node.apiserver);
        self.objects.iter().copied().chain(seeds)
    }

    fn all_open(&self) -> bool {
        let opens = |key| {
            matches!(
                self.stored.state(key),
                Some(KeyState::Primary | KeyState::Retired)
            )
        };
        self.put_back || self.in_use().all(opens)
    }

    fn one_primary(&self) -> bool {
        let primaries = self
            .stored
            .keys
            .iter()
            .filter(|(_, state)| *state == KeyState::Primary);
        primaries.count() <= 1
    }
}

impl Model for Small {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::first(self.members)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        use Step as S;
        steps.extend([S::Rotate, S::Activate, S::Abort, S::Migrate]);
        if self.restores > 0 {
            steps.extend([S::Backup, S::PutBack, S::Restore]);
        }
        for key in 0..world.next_key {
            steps.extend([S::Disable(key), S::Enable(key), S::Destroy(key)]);
        }
        for m in 0..self.members {
            steps.extend([S::WriteMark(m), S::Swap(m), S::Sync(m), S::WriteRecord(m)]);
            steps.extend([S::Seal(m), S::WriteObject(m), S::Crash(m), S::Start(m)]);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        self.take(&mut next, step)?;
        // A step that changes nothing is none.
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("what was returned opens", |_, world: &World| {
                world.all_open()
            }),
            Property::always("at most one primary", |_, world: &World| {
                world.one_primary()
            }),
            Property::always("nothing forbidden happened", |_, world: &World| {
                world.broken.is_empty()
            }),
            Property::always("a rotation can be ended", |model: &Self, world| {
                model.can_end(world)
            }),
            Property::sometimes("a key is destroyed", |_, world: &World| {
                world.stored.in_state(KeyState::Destroyed) == Some(0)
            }),
        ];
        if self.restores > 0 {
            properties.push(Property::sometimes(
                "a restored keyring writes again",
                |_, world: &World| {
                    world.stored.merged.is_some() && world.stored.primary().is_some()
                },
            ));
        }
        properties
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.next_key <= self.keys && world.stored.revision <= self.revisions
    }
}
