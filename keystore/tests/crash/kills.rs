//! Row 64: killed before each system call.

use std::os::unix::process::ExitStatusExt;

use crate::after::{Promises, Template};
use crate::strace::{self, in_parallel, numbered};

#[test]
fn row_64_killed_before_every_system_call() {
    if !strace::is_there() {
        return;
    }
    let template = Template::new();
    let whole = strace::run(&template.copy("whole"), None);
    assert!(
        whole.output.status.success(),
        "{}",
        String::from_utf8_lossy(&whole.output.stderr)
    );
    let on_keyring: Vec<_> = whole
        .calls
        .into_iter()
        .filter(|call| !call.text.contains(".report"))
        .collect();
    let calls = numbered(&on_keyring);
    assert!(
        calls.len() > 100,
        "{} calls are too few for two commits",
        calls.len()
    );

    let found = std::sync::Mutex::new(std::collections::BTreeMap::new());
    in_parallel(&calls, |i, (name, number)| {
        let folder = template.copy(&i.to_string());
        let fault = format!("{name}:signal=SIGKILL:when={number}");
        let run = strace::run(&folder, Some(&fault));
        // strace ends as its tracee did.
        assert_eq!(run.output.status.signal(), Some(9), "{fault} killed nobody");
        let promises = Promises::read(&run.report);
        assert!(!promises.ended, "{fault} came too late");
        let revision = template.assert_sound(&folder, &promises);
        let state = (revision - template.revision(), promises.committed);
        *found.lock().unwrap().entry(state).or_insert(0) += 1;
    });
    // Both sides of both renames were seen: of what is there, and of what was promised.
    let states: Vec<_> = found.into_inner().unwrap().into_keys().collect();
    assert_eq!(states, [(0, 0), (1, 0), (1, 1), (2, 1)]);
}
