//! What each step does to the world. Nothing is returned where the step cannot be taken.

use std::collections::BTreeSet;

use claviger_keystore::header::Header;
use claviger_keystore::key::KeyState;
use claviger_keystore::member::{Acknowledged, Found, Member, MemberName, Since};
use claviger_keystore::rotation::guards::{KeyAudit, may_destroy, may_disable, may_migrate};
use claviger_keystore::rotation::{Action, Request, Situation, decide};
use claviger_keystore::testing::{NOW, member_record};

use crate::document::{Doc, Key, hash, id, key};
use crate::world::{Fault, Node, Phase, Process, Record, Small, Step, World};

/// Who commits: the writer. The others follow.
const WRITER: usize = 0;

fn name(m: usize) -> MemberName {
    format!("cp{m}").parse().unwrap()
}

impl Small {
    pub(crate) fn take(&self, world: &mut World, step: Step) -> Option<()> {
        match step {
            Step::Rotate => {
                let from = world.stored.primary().map(id);
                self.decided(world, Request::Rotate { from })
            }
            Step::Activate => self.decided(world, Request::Activate),
            Step::Abort => self.decided(world, Request::Abort),
            Step::Disable(key) => self.disable(world, key),
            Step::Enable(key) => {
                let disabled = world.stored.state(key) == Some(KeyState::Disabled);
                let set = |doc: &mut Doc| doc.set(key, KeyState::Retired);
                disabled.then_some(())?;
                self.commit(world, set)
            }
            Step::Destroy(key) => self.destroy(world, key),
            Step::Migrate => self.migrate(world),
            Step::Backup => world
                .backup
                .is_none()
                .then(|| world.backup = Some(world.stored.clone())),
            Step::PutBack => put_back(world),
            Step::Restore => self.restore(world),
            Step::WriteMark(m) => write_mark(&mut world.members[m]),
            Step::Swap(m) => swap(&mut world.members[m]),
            Step::Sync(m) => self.sync(world, m),
            Step::WriteRecord(m) => self.write_record(&mut world.members[m]),
            Step::Seal(m) => seal(world, m),
            Step::WriteObject(m) => {
                let key = world.members[m].apiserver?;
                world.objects.insert(key);
                Some(())
            }
            Step::Crash(m) => {
                (world.crashes < self.crashes).then_some(())?;
                world.members[m].process.take()?;
                world.crashes += 1;
                Some(())
            }
            Step::Start(m) => self.start(world, m),
        }
    }

    /// Whether helpful steps alone bring every rotation to its end from here.
    pub(crate) fn can_end(&self, world: &World) -> bool {
        let ended = |world: &World| {
            world.stored.primary().is_some() && world.stored.in_state(KeyState::Staged).is_none()
        };
        // What was put back has to be taken away again first.
        if world.put_back || ended(world) {
            return true;
        }
        let mut world = world.clone();
        for _ in 0..4 {
            for m in 0..self.members {
                for step in [
                    Step::WriteMark(m),
                    Step::Swap(m),
                    Step::Start(m),
                    Step::Sync(m),
                ] {
                    self.take(&mut world, step);
                }
                self.take(&mut world, Step::WriteRecord(m));
            }
            if ended(&world) {
                return true;
            }
            match world.stored.in_state(KeyState::Staged) {
                Some(_) => self.take(&mut world, Step::Activate),
                None => self.take(&mut world, Step::Rotate),
            };
        }
        ended(&world)
    }

    /// What the real functions see of this world.
    fn look<T>(&self, world: &World, work: impl FnOnce(&Situation<'_>) -> T) -> T {
        let mut header: Header = world.stored.header();
        if self.replicas {
            let replicas = (1..self.members).map(|m| name(m).to_string());
            header.policy.replicas = replicas.collect();
        }
        let nodes = world.members.iter().enumerate();
        let members: Vec<Member> = nodes
            .filter_map(|(m, node)| self.member(world, m, node))
            .collect();
        let ourselves = name(WRITER);
        work(&Situation {
            header: &header,
            hash: hash(world.stored.serial),
            members: &members,
            ourselves: Some(&ourselves),
            now: NOW,
        })
    }

    fn member(&self, world: &World, m: usize, node: &Node) -> Option<Member> {
        let found = match &node.record {
            Record::None => return None,
            // A day has passed.
            Record::Removed => Found::Removed(NOW - jiff::SignedDuration::from_hours(48)),
            Record::Written {
                acknowledged,
                published,
                converged,
                quiet,
            } => {
                let mut record = member_record(name(m).as_str(), NOW);
                let (revision, serial) = match self.fault {
                    Some(Fault::NoAcknowledgement) => (world.stored.revision, world.stored.serial),
                    _ => *acknowledged,
                };
                record.acknowledged = Acknowledged {
                    revision: revision.into(),
                    sha256: hash(serial),
                };
                let since = |key: Key| Since {
                    id: id(key),
                    since: NOW,
                };
                record.published = published.map(id);
                record.converged = converged.map(since);
                record.quiet = quiet.iter().copied().map(since).collect();
                Found::Record(Box::new(record))
            }
        };
        let name = name(m);
        Some(Member { name, found })
    }

    /// The writer commits, if it has the document that is stored: compare and swap.
    fn commit(&self, world: &mut World, change: impl FnOnce(&mut Doc)) -> Option<()> {
        may_commit(world).then_some(())?;
        let process = world.members[WRITER].process.as_mut()?;
        let mut next = process.doc.clone();
        change(&mut next);
        (next.previous, next.serial) = (next.serial, world.next_serial);
        next.revision += 1;
        world.next_serial += 1;
        if self.fault == Some(Fault::NoPersistence) {
            // Used before it is stored, which a crash undoes.
            process.doc = next;
            return Some(());
        }
        process.pending = Some((next.clone(), Phase::Mark));
        world.stored = next;
        Some(())
    }

    fn decided(&self, world: &mut World, request: Request) -> Option<()> {
        may_commit(world).then_some(())?;
        match self.look(world, |situation| decide(situation, request)) {
            Action::Stage => {
                let fresh = world.next_key;
                self.commit(world, |doc| doc.set(fresh, KeyState::Staged))?;
                world.next_key += 1;
                Some(())
            }
            Action::Activate(id) => self.commit(world, |doc| {
                if let Some(old) = doc.primary() {
                    doc.set(old, KeyState::Retired);
                }
                doc.set(key(&id), KeyState::Primary);
            }),
            Action::Abort(id) => self.commit(world, |doc| doc.set(key(&id), KeyState::Destroyed)),
            Action::Nothing(_) | Action::Wait(_) => None,
        }
    }

    fn audit(&self, world: &World, key: Key) -> KeyAudit {
        let named = world.objects.contains(&key) && self.fault != Some(Fault::NoAudit);
        KeyAudit {
            revision: 1,
            when: NOW,
            current: u64::from(named),
            history: 0,
            snapshots: Vec::new(),
            unshown: 0,
        }
    }

    fn disable(&self, world: &mut World, key: Key) -> Option<()> {
        let retired = world.stored.state(key) == Some(KeyState::Retired);
        (retired && may_commit(world)).then_some(())?;
        let audit = self.audit(world, key);
        let verdict = |situation: &Situation<'_>| may_disable(situation, &id(key), Some(&audit));
        self.look(world, verdict).ok()?;
        self.commit(world, |doc| doc.set(key, KeyState::Disabled))
    }

    fn destroy(&self, world: &mut World, key: Key) -> Option<()> {
        let disabled = world.stored.state(key) == Some(KeyState::Disabled);
        (disabled && may_commit(world)).then_some(())?;
        let audit = self.audit(world, key);
        let verdict =
            |situation: &Situation<'_>| may_destroy(situation, &id(key), Some(&audit), true);
        self.look(world, verdict).ok()?;
        self.commit(world, |doc| doc.set(key, KeyState::Destroyed))
    }

    /// Every object is rewritten, each through any apiserver.
    fn migrate(&self, world: &mut World) -> Option<()> {
        let through = world.members.iter().filter_map(|node| node.apiserver);
        let through: BTreeSet<Key> = through.collect();
        let stale = !through.is_empty() && world.objects != through;
        stale.then_some(())?;
        if self.fault != Some(Fault::NoConvergence) {
            self.look(world, may_migrate).ok()?;
        }
        world.objects = through;
        Some(())
    }

    /// Merges the backup into what is stored, by the format's table.
    fn restore(&self, world: &mut World) -> Option<()> {
        (world.restores < self.restores).then_some(())?;
        let backup = world.backup.clone()?;
        let node = &world.members[WRITER];
        let process = node.process.as_ref()?;
        process.pending.is_none().then_some(())?;
        let seen = node.mark.clone().unwrap_or_else(|| process.doc.clone());
        let docs = [&world.stored, &backup];
        let all = docs.iter().flat_map(|doc| &doc.keys).chain(&seen.keys);
        let ids: BTreeSet<Key> = all.map(|(key, _)| *key).collect();
        let mut merged = Vec::new();
        for key in ids {
            let states: Vec<KeyState> = docs.iter().filter_map(|doc| doc.state(key)).collect();
            let dead = |state: &KeyState| *state == KeyState::Destroyed;
            let buried =
                states.iter().any(dead) || seen.state(key).is_some_and(|state| dead(&state));
            let held: Vec<_> = states.into_iter().filter(|state| !dead(state)).collect();
            let disabled = held.iter().all(|state| *state == KeyState::Disabled);
            match (held.is_empty(), buried, disabled) {
                // Lost, and nobody typed it out.
                (true, false, _) if self.fault == Some(Fault::LossOnRestore) => {}
                (true, false, _) => return None,
                (true, true, _) => merged.push((key, KeyState::Destroyed)),
                (false, true, _) | (false, false, true) => merged.push((key, KeyState::Disabled)),
                (false, false, false) => merged.push((key, KeyState::Retired)),
            }
        }
        if self.fault == Some(Fault::PrimaryAfterMerge)
            && let Some(old) = backup.primary()
            && let Some(found) = merged.iter_mut().find(|(key, _)| *key == old)
        {
            found.1 = KeyState::Primary;
        }
        merged.push((world.next_key, KeyState::Staged));
        self.put_merged(world, &backup, &seen, merged);
        Some(())
    }

    fn put_merged(&self, world: &mut World, backup: &Doc, seen: &Doc, keys: Vec<(Key, KeyState)>) {
        let revision = 1 + world
            .stored
            .revision
            .max(backup.revision)
            .max(seen.revision);
        let doc = Doc {
            revision,
            serial: world.next_serial,
            previous: world.stored.serial,
            merged: Some((
                revision,
                vec![world.stored.serial, backup.serial, seen.serial],
            )),
            keys,
        };
        world.next_serial += 1;
        world.next_key += 1;
        world.restores += 1;
        world.put_back = false;
        world.stored = doc.clone();
        for node in &mut world.members {
            if node.record != Record::None {
                node.record = Record::Removed;
            }
        }
        if let Some(process) = &mut world.members[WRITER].process {
            process.pending = Some((doc, Phase::Mark));
        }
    }

    fn sync(&self, world: &mut World, m: usize) -> Option<()> {
        let (stored, node) = (world.stored.clone(), &mut world.members[m]);
        let process = node.process.as_mut()?;
        let fresh = process.pending.is_none() && stored.serial != process.doc.serial;
        fresh.then_some(())?;
        let seen = node.mark.as_ref().unwrap_or(&process.doc);
        let follows = stored.follows(seen) || self.fault == Some(Fault::NoMark);
        follows.then_some(())?;
        process.pending = Some((stored, Phase::Mark));
        Some(())
    }

    fn start(&self, world: &mut World, m: usize) -> Option<()> {
        let (stored, node) = (world.stored.clone(), &mut world.members[m]);
        node.process.is_none().then_some(())?;
        let seen = node.mark.as_ref();
        let follows = seen.is_none_or(|seen| stored.follows(seen));
        let older = seen.is_some_and(|seen| stored.revision < seen.revision);
        let accepted = follows || self.fault == Some(Fault::NoMark);
        // A fork opens nothing; an older one only decrypts.
        (accepted || older).then_some(())?;
        if accepted {
            node.mark = Some(stored.clone());
        }
        node.process = Some(Process {
            doc: stored,
            decrypt_only: !accepted,
            pending: None,
        });
        Some(())
    }

    /// Nothing can be written under an id any more through this member: it neither answers it, nor
    /// does its apiserver hold a seed under it. (The five minutes, in short.)
    fn write_record(&self, node: &mut Node) -> Option<()> {
        let process = node.process.as_ref()?;
        let ready = process.pending.is_none() && !process.decrypt_only;
        ready.then_some(())?;
        let doc = &process.doc;
        let mut quiet = match &node.record {
            Record::Written { quiet, .. } => quiet.clone(),
            _ => BTreeSet::new(),
        };
        let left = |key: &Key| {
            let state = doc.state(*key);
            ![Some(KeyState::Staged), Some(KeyState::Primary)].contains(&state)
        };
        let moved_on =
            |key: &Key| node.apiserver != Some(*key) || self.fault == Some(Fault::NoQuiet);
        let ids = doc.keys.iter().map(|(key, _)| *key);
        quiet.extend(ids.filter(|key| left(key) && moved_on(key)));
        let primary = doc.primary();
        let converged = primary.filter(|_| node.apiserver.is_none() || node.apiserver == primary);
        node.record = Record::Written {
            acknowledged: (doc.revision, doc.serial),
            published: primary,
            converged,
            quiet,
        };
        Some(())
    }
}

/// Compare and swap: the writer has the document that is stored.
fn may_commit(world: &World) -> bool {
    let process = world.members[WRITER].process.as_ref();
    process.is_some_and(|process| {
        let idle = process.pending.is_none() && !process.decrypt_only;
        idle && process.doc.serial == world.stored.serial
    })
}

fn write_mark(node: &mut Node) -> Option<()> {
    let (doc, phase) = node.process.as_mut()?.pending.as_mut()?;
    (*phase == Phase::Mark).then_some(())?;
    *phase = Phase::Swap;
    node.mark = Some(doc.clone());
    Some(())
}

fn swap(node: &mut Node) -> Option<()> {
    let process = node.process.as_mut()?;
    matches!(process.pending, Some((_, Phase::Swap))).then_some(())?;
    let (doc, _) = process.pending.take()?;
    process.doc = doc;
    process.decrypt_only = false;
    Some(())
}

fn put_back(world: &mut World) -> Option<()> {
    let backup = world.backup.as_ref()?;
    (backup.revision < world.stored.revision && !world.put_back).then_some(())?;
    world.stored = backup.clone();
    world.put_back = true;
    Some(())
}

fn seal(world: &mut World, m: usize) -> Option<()> {
    let node = &world.members[m];
    let process = node.process.as_ref()?;
    (!process.decrypt_only).then_some(())?;
    let primary = process.doc.primary()?;
    if node.answered.is_some_and(|answered| answered > primary) {
        world.broken.insert("a key id went back");
    }
    let stored = world.stored.state(primary);
    let durable = !matches!(stored, None | Some(KeyState::Staged));
    if !durable && !world.put_back {
        world.broken.insert("a key was used before it was durable");
    }
    let lacks = |other: &Node| {
        let process = other.process.as_ref();
        process.is_some_and(|process| process.doc.state(primary).is_none())
    };
    if !world.put_back && world.members.iter().any(lacks) {
        world
            .broken
            .insert("a key was used that a member does not have");
    }
    let node = &mut world.members[m];
    node.answered = Some(primary);
    node.apiserver = Some(primary);
    Some(())
}
