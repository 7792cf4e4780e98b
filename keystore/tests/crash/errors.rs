//! Rows 68, 69 and 70: every system call of opening and committing fails once, in each way that it
//! can.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

use crate::after::{Promises, Template, names};
use crate::child::keyring_in;
use crate::strace::{self, Call, Run, in_parallel, numbered};

/// How a system call fails. What is not listed may fail with an I/O error, and `close` cannot.
fn errors_of(name: &str) -> &'static [&'static str] {
    match name {
        "open" | "openat" => &["EMFILE", "EROFS", "EACCES", "EIO", "ENOSPC"],
        "write" => &["ENOSPC", "EDQUOT", "EIO", "EROFS"],
        "fsync" => &["EIO", "ENOSPC", "EDQUOT"],
        "rename" | "renameat" | "renameat2" => &["EIO", "EROFS", "ENOSPC", "EDQUOT"],
        // The standard library asks in debug builds whether what it closes is open.
        "close" | "fcntl" => &[],
        _ => &["EIO"],
    }
}

/// The calls of opening the keyring and of one commit.
fn calls_of_one_commit(template: &Template) -> Vec<Call> {
    let run = strace::run(&template.copy("whole"), None);
    assert!(
        run.output.status.success(),
        "{}",
        String::from_utf8_lossy(&run.output.stderr)
    );
    let committed = run
        .calls
        .iter()
        .position(|call| call.text.contains(".report") && call.text.contains("committed"))
        .expect("it committed");
    let calls = run.calls.into_iter().take(committed);
    calls
        .filter(|call| !call.text.contains(".report"))
        .collect()
}

/// What the child says after an error, and what it leaves, whichever call failed.
fn assert_told(template: &Template, folder: &Path, run: &Run, fault: &str) -> Promises {
    let text = String::from_utf8_lossy(&run.output.stderr);
    assert!(run.output.status.success(), "{fault}: {text}");
    let promises = Promises::read(&run.report);
    assert!(promises.ended, "{fault}");
    // A key is used only after its commit was said to have succeeded, and then it is.
    let may_seal = !promises.sealed.is_empty();
    assert_eq!(
        promises.keys_used(),
        u64::from(may_seal) + promises.committed,
        "{fault}"
    );
    for told in promises
        .refused
        .iter()
        .chain(&promises.unknown)
        .chain(&promises.not_opened)
    {
        let path = folder.display().to_string();
        assert!(told.contains(&path), "{fault}: {told:?} names no file");
    }
    template.assert_sound(folder, &promises);
    promises
}

#[test]
fn rows_68_69_and_70_every_system_call_fails_once() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let calls = calls_of_one_commit(&template);
    let faults: Vec<(String, &str)> = numbered(&calls)
        .into_iter()
        .flat_map(|(name, number)| {
            let errors = errors_of(name).iter();
            errors.map(move |error| (format!("{name}:error={error}:when={number}"), name))
        })
        .collect();
    assert!(faults.len() > 100, "{} faults are too few", faults.len());

    let seen = Mutex::new([0; 3]);
    in_parallel(&faults, |i, (fault, name)| {
        let folder = template.copy(&i.to_string());
        let run = strace::run(&folder, Some(fault));
        let injected = run
            .calls
            .iter()
            .filter(|call| call.text.contains("(INJECTED)"))
            .count();
        assert_eq!(injected, 1, "{fault} was not injected");
        let left = names(&folder)
            .into_iter()
            .find(|name| name.ends_with(".new"));
        let cannot_remove = name.starts_with("unlink");
        assert!(left.is_none() || cannot_remove, "{fault} left {left:?}");
        let promises = assert_told(&template, &folder, &run, fault);
        assert_no_second_sync(&run.calls, fault);
        let outcome = match (&promises.refused, &promises.unknown) {
            (None, None) => 0,
            (Some(_), _) => 1,
            (None, Some(_)) => 2,
        };
        seen.lock().unwrap()[outcome] += 1;
    });
    let [committed, refused, unknown] = seen.into_inner().unwrap();
    assert!(
        committed > 0 && refused > 0 && unknown > 0,
        "{committed}, {refused}, {unknown}"
    );
}

/// Row 69: after a failed fsync the same descriptor is only closed.
fn assert_no_second_sync(calls: &[Call], fault: &str) {
    let failed = |call: &Call| call.name == "fsync" && call.text.contains("(INJECTED)");
    let Some(position) = calls.iter().position(failed) else {
        return;
    };
    let descriptor = calls[position].text.split(')').next().unwrap();
    let next = calls[position + 1..]
        .iter()
        .find(|call| call.text.starts_with(descriptor) && call.name != "fcntl")
        .map(|call| call.name.as_str());
    assert_eq!(next, Some("close"), "{fault}: {descriptor} was used again");
}

#[test]
fn row_69_a_folder_that_does_not_sync_is_told_and_the_key_is_not_used() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let calls = calls_of_one_commit(&template);
    // The sync that follows the rename over the keyring.
    let renamed = calls
        .iter()
        .position(|call| call.name.starts_with("rename") && call.text.contains("/keyring\""));
    let number = numbered(&calls)
        .into_iter()
        .skip(renamed.expect("a rename over the keyring"))
        .find(|(name, _)| *name == "fsync")
        .expect("a sync of the folder")
        .1;
    let folder = template.copy("unknown");
    let fault = format!("fsync:error=EIO:when={number}");
    let run = strace::run(&folder, Some(&fault));
    let promises = assert_told(&template, &folder, &run, &fault);
    let told = promises
        .unknown
        .as_ref()
        .expect("it does not say that durability is unknown");
    assert!(told.contains("whether it is durable is unknown"), "{told}");
    assert_eq!(promises.keys_used(), 1, "the new key was used");
}

#[test]
fn a_kept_copy_that_does_not_sync_is_a_refusal_for_nothing_changed() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let calls = calls_of_one_commit(&template);
    // The sync of the folder that follows the rename of the copy.
    let renamed = calls
        .iter()
        .position(|call| call.name.starts_with("rename") && call.text.contains("/keyring.12\""));
    let number = numbered(&calls)
        .into_iter()
        .skip(renamed.expect("a rename of the copy"))
        .find(|(name, _)| *name == "fsync")
        .expect("a sync of the folder")
        .1;
    let folder = template.copy("copy");
    let fault = format!("fsync:error=EIO:when={number}");
    let run = strace::run(&folder, Some(&fault));
    let promises = assert_told(&template, &folder, &run, &fault);
    assert_eq!(promises.unknown, None);
    let told = promises.refused.expect("nobody noticed");
    assert!(told.contains("syncing the folder"), "{told}");
}

#[test]
fn row_68_a_disk_that_stays_full_or_broken_harms_nothing() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    // From the first call on that makes or writes a file, all fail: cleaning up may fail too.
    let faults = [
        "write:error=ENOSPC:when=1+",
        "write:error=EDQUOT:when=2+",
        "write:error=EIO:when=3+",
        "write,fsync,fchmod:error=EIO:when=1+",
        "fsync:error=EIO:when=4+",
        "open,openat:error=EMFILE:when=6+",
        "open,openat:error=EROFS:when=8+",
        "rename,renameat,renameat2,unlink,unlinkat:error=EROFS:when=1+",
        "rename,renameat,renameat2,unlink,unlinkat,fsync:error=EIO:when=2+",
        "read:error=EIO:when=5+",
        "flock:error=ENOLCK:when=1+",
    ];
    in_parallel(&faults, |i, fault| {
        let folder = template.copy(&i.to_string());
        let run = strace::run(&folder, Some(fault));
        let promises = assert_told(&template, &folder, &run, fault);
        let told = promises.refused.or(promises.unknown);
        assert!(told.is_some(), "{fault} harmed nobody");
    });
}

#[test]
fn a_disk_that_lies_about_what_it_wrote_is_found_out() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    for written in ["1", "100"] {
        let folder = template.copy(written);
        // The first write is the mark's, at the start.
        let fault = format!("write:retval={written}:when=2");
        let run = strace::run(&folder, Some(&fault));
        let promises = assert_told(&template, &folder, &run, &fault);
        let told = promises.refused.expect("nobody noticed");
        assert!(told.contains("reads back other bytes"), "{told}");
    }
}

#[test]
fn row_71_no_failing_call_lets_an_unsafe_keyring_in() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let unsafe_copy = |name: &str| {
        let folder = template.copy(name);
        set_permissions(keyring_in(&folder), Permissions::from_mode(0o644)).unwrap();
        folder
    };
    let run = strace::run(&unsafe_copy("whole"), None);
    let calls: Vec<Call> = run
        .calls
        .into_iter()
        .filter(|call| errors_of(&call.name) == ["EIO"])
        .collect();
    assert!(!calls.is_empty());
    for (i, (name, number)) in numbered(&calls).into_iter().enumerate() {
        let fault = format!("{name}:error=EIO:when={number}");
        let run = strace::run(&unsafe_copy(&i.to_string()), Some(&fault));
        let promises = Promises::read(&run.report);
        assert!(promises.ended, "{fault}");
        assert!(
            promises.sealed.is_empty(),
            "{fault} let it in: {}",
            run.report
        );
    }
}
