use super::*;

fn state(modified: i64) -> KeyState {
    KeyState {
        modified,
        created: 1,
        version: 2,
    }
}

fn write(path: &Path) -> Head {
    let head = Head {
        cluster: 1,
        term: 2,
        revision: 9,
        prefix: "/registry".to_owned(),
    };
    let mut writer = LedgerWriter::create(Some(path), &head).unwrap();
    writer.row(&Protection::Plaintext).unwrap();
    writer.object(b"/a", state(3), None).unwrap();
    writer.object(b"/registry/x/1", state(4), Some(0)).unwrap();
    writer.object(b"/registry/x/2", state(5), Some(0)).unwrap();
    let mark = Some([7; 32]);
    writer.finish(head.clone(), mark).unwrap().keep().unwrap();
    head
}

#[test]
fn what_was_written_is_read_and_a_cut_or_changed_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    assert!(Ledger::open(&path).unwrap().is_none());
    let head = write(&path);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let ledger = Ledger::open(&path).unwrap().unwrap();
    assert_eq!(*ledger.head(), head);
    assert_eq!(ledger.mark(), Some([7; 32]));
    let entries: Vec<Entry> = ledger.entries().unwrap().map(Result::unwrap).collect();
    let keys: Vec<&[u8]> = entries.iter().map(|entry| &entry.key[..]).collect();
    assert_eq!(keys, [&b"/a"[..], b"/registry/x/1", b"/registry/x/2"]);
    assert_eq!((entries[0].row, entries[2].row), (None, Some(0)));
    assert_eq!(entries[2].protection, Some(Protection::Plaintext));
    assert_eq!(entries[2].state, state(5));

    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        fs::write(&path, &whole[..at]).unwrap();
        assert!(Ledger::open(&path).is_err(), "cut at {at}");
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&path, changed).unwrap();
        assert!(Ledger::open(&path).is_err(), "changed at {at}");
    }
}

#[test]
fn an_etcd_that_went_back_is_another_one() {
    let head = |cluster, term, revision| Head {
        cluster,
        term,
        revision,
        prefix: "/registry".to_owned(),
    };
    let earlier = head(1, 2, 9);
    assert!(earlier.leads_to(&head(1, 2, 9)) && earlier.leads_to(&head(1, 3, 10)));
    for later in [head(2, 2, 9), head(1, 1, 9), head(1, 2, 8)] {
        assert!(!earlier.leads_to(&later), "{later:?}");
    }
}
