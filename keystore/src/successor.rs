//! Successors only: which documents a member may accept after the ones that it has seen.

use crate::document::Document;
use crate::error::NotSuccessor;
use crate::header::{DocumentHash, Header};
use crate::key::{KeyId, KeyState};
use crate::mark::Mark;

/// How a document stands to what was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The very document that was seen last.
    Same,
    /// A legal successor.
    Successor,
}

impl Mark {
    /// Whether a member with this mark may accept the document; it must have been opened, since
    /// until then anybody may have written it.
    pub fn accepts(&self, document: &Document) -> Result<Standing, NotSuccessor> {
        check(self, document.header(), &document.hash(), false)
    }

    /// As [`Mark::accepts`], where the chain of rekey proofs was walked from this mark's keyring key
    /// to the document's.
    pub(crate) fn accepts_proven(&self, document: &Document) -> Result<Standing, NotSuccessor> {
        check(self, document.header(), &document.hash(), true)
    }
}

/// Holds an opened document's header against what this member has seen.
pub(crate) fn check(
    mark: &Mark,
    header: &Header,
    hash: &DocumentHash,
    key_proven: bool,
) -> Result<Standing, NotSuccessor> {
    if header.cluster_id != mark.cluster_id {
        return Err(NotSuccessor::OtherCluster {
            seen: mark.cluster_id.to_string(),
            found: header.cluster_id.to_string(),
        });
    }
    if *hash == mark.hash {
        return Ok(Standing::Same);
    }
    if header.revision < mark.revision {
        return Err(NotSuccessor::Older {
            seen: mark.revision,
            found: header.revision,
        });
    }
    // A merge stands in the place of one of those that it names, and behind all of them.
    let names_it = header
        .merged
        .iter()
        .any(|merged| merged.sha256 == mark.hash);
    let follows = header.previous == mark.hash || names_it;
    let follows_directly = header.revision == mark.revision + 1;
    if header.revision == mark.revision || follows_directly && !follows {
        return Err(NotSuccessor::Forked(header.revision));
    }
    if header.keyring_key_id != mark.keyring_key_id && !key_proven {
        return Err(NotSuccessor::OtherKeyringKey);
    }
    let merged = header
        .merged
        .iter()
        .any(|merged| merged.revision > mark.revision);
    for (id, seen) in &mark.keys {
        check_key(header, id, *seen, merged)?;
    }
    Ok(Standing::Successor)
}

fn check_key(
    header: &Header,
    id: &KeyId,
    seen: KeyState,
    merged: bool,
) -> Result<(), NotSuccessor> {
    let found = header
        .keys
        .iter()
        .find(|key| key.id == *id)
        .ok_or(NotSuccessor::KeyLost(*id))?;
    // A merge keeps the bytes that one side still had, as a disabled key, which may be enabled. That
    // is all it may do beyond the legal edges.
    let revived = merged
        && seen == KeyState::Destroyed
        && matches!(found.state, KeyState::Disabled | KeyState::Retired);
    if seen.leads_to(found.state) || revived {
        return Ok(());
    }
    Err(NotSuccessor::Backwards {
        id: *id,
        seen,
        found: found.state,
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::header::{Hex, Merged};
    use crate::keyring::Keyring;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn header() -> Header {
        let keyring = Keyring::create("", Hex([1; 32]), NOW)
            .unwrap()
            .stage(NOW)
            .unwrap();
        let staged = keyring.staged().unwrap();
        keyring.activate(&staged, NOW).unwrap().header().clone()
    }

    fn hash_of(revision: u64) -> DocumentHash {
        Hex([u8::try_from(revision).unwrap(); 32])
    }

    /// A mark at revision 5, and a header of revision 6 that follows it.
    fn seen_and_next() -> (Mark, Header) {
        let mut header = header();
        header.revision = 5;
        let mark = Mark::of(&header, hash_of(5), None, NOW);
        header.revision = 6;
        header.previous = hash_of(5);
        (mark, header)
    }

    fn verdict(mark: &Mark, header: &Header) -> Result<Standing, NotSuccessor> {
        check(mark, header, &hash_of(header.revision), false)
    }

    #[test]
    fn the_next_revision_is_accepted() {
        let (mark, header) = seen_and_next();
        assert_eq!(verdict(&mark, &header), Ok(Standing::Successor));
    }

    #[test]
    fn the_same_document_is_the_same() {
        let (mark, mut header) = seen_and_next();
        header.revision = 5;
        assert_eq!(verdict(&mark, &header), Ok(Standing::Same));
    }

    #[test]
    fn a_later_revision_is_accepted_without_those_between() {
        let (mark, mut header) = seen_and_next();
        header.revision = 9;
        header.previous = hash_of(8);
        assert_eq!(verdict(&mark, &header), Ok(Standing::Successor));
    }

    #[test]
    fn an_older_one_is_refused() {
        let (mark, mut header) = seen_and_next();
        header.revision = 4;
        assert_eq!(
            verdict(&mark, &header),
            Err(NotSuccessor::Older { seen: 5, found: 4 })
        );
    }

    #[test]
    fn another_document_of_the_same_revision_is_a_fork() {
        let (mark, mut header) = seen_and_next();
        header.revision = 5;
        let other = check(&mark, &header, &Hex([9; 32]), false);
        assert_eq!(other, Err(NotSuccessor::Forked(5)));
    }

    #[test]
    fn the_next_revision_of_another_predecessor_is_a_fork() {
        let (mark, mut header) = seen_and_next();
        header.previous = Hex([9; 32]);
        assert_eq!(verdict(&mark, &header), Err(NotSuccessor::Forked(6)));
    }

    #[test]
    fn another_cluster_is_refused() {
        let (mark, mut header) = seen_and_next();
        header.cluster_id = Hex([9; 16]);
        assert!(matches!(
            verdict(&mark, &header),
            Err(NotSuccessor::OtherCluster { .. })
        ));
    }

    #[test]
    fn another_keyring_key_is_refused() {
        let (mark, mut header) = seen_and_next();
        header.keyring_key_id = Hex([2; 32]);
        assert_eq!(verdict(&mark, &header), Err(NotSuccessor::OtherKeyringKey));
        let proven = check(&mark, &header, &hash_of(6), true);
        assert_eq!(proven, Ok(Standing::Successor));
    }

    #[test]
    fn a_merge_follows_every_document_that_it_names() {
        let (mark, mut header) = seen_and_next();
        header.previous = Hex([9; 32]);
        let merged = |sha256| Merged {
            sha256,
            revision: 6,
        };
        header.merged = vec![merged(Hex([9; 32]))];
        assert_eq!(verdict(&mark, &header), Err(NotSuccessor::Forked(6)));
        header.merged.push(merged(mark.hash));
        assert_eq!(verdict(&mark, &header), Ok(Standing::Successor));
        // But never one of the same revision.
        header.revision = 5;
        let same = check(&mark, &header, &Hex([9; 32]), false);
        assert_eq!(same, Err(NotSuccessor::Forked(5)));
    }

    #[test]
    fn no_key_may_vanish() {
        let (mark, mut header) = seen_and_next();
        let gone = header.keys.remove(0).id;
        assert_eq!(verdict(&mark, &header), Err(NotSuccessor::KeyLost(gone)));
    }

    #[test]
    fn keys_move_only_along_legal_edges_unless_merged() {
        for seen in KeyState::ALL {
            for found in KeyState::ALL {
                let (mut mark, mut header) = seen_and_next();
                mark.keys[0].1 = seen;
                header.keys[0].state = found;
                assert_eq!(verdict(&mark, &header).is_ok(), seen.leads_to(found));
                header.merged = vec![Merged {
                    sha256: Hex([7; 32]),
                    revision: 6,
                }];
                let revived = seen == KeyState::Destroyed
                    && matches!(found, KeyState::Disabled | KeyState::Retired);
                assert_eq!(
                    verdict(&mark, &header).is_ok(),
                    seen.leads_to(found) || revived
                );
            }
        }
    }
}
