//! `make demo` shows what the README promises, and leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::components::component;
use crate::process::{Process, command, folder};

/// The demo with the program under test, in this folder. `None` where a component is missing.
fn demo(dir: &Path) -> Option<Command> {
    for program in ["etcd", "etcdctl", "kube-apiserver", "kubectl"] {
        component(program)?;
    }
    let mut demo = command(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/demo"));
    demo.env("CLAVIGER", env!("CARGO_BIN_EXE_claviger"))
        .env("TMPDIR", dir);
    Some(demo)
}

/// No file, and no process that was started there.
fn assert_nothing_is_left(dir: &Path) {
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "files are left");
    let ours = dir.to_str().unwrap();
    for process in fs::read_dir("/proc").unwrap() {
        // Most are not processes, and some have ended meanwhile.
        let arguments = fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        assert!(!arguments.contains(ours), "a process is left: {arguments}");
    }
}

#[test]
fn the_demo_shows_ciphertext_in_etcd_and_a_rotation_that_fails_no_write() {
    let dir = folder();
    let Some(mut demo) = demo(dir.path()) else {
        return;
    };
    let output = demo.env("DEMO_ONCE", "1").output().unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}{complained}");
    let mut rest = &*said;
    for shown in [
        "WHAT LIES IN ETCD",
        "k8s:enc:kms:v2:c",
        "correct horse battery staple",
        "\nk1-",
        // The life of a key, in this order.
        "$ claviger rotate --wait",
        "is primary",
        "$ claviger migrate",
        "0 failed",
        "$ etcdctl compact",
        "nothing names it",
        "$ claviger key disable",
        "may still write under the key",
        "Failed writes: 0.",
        "still-7 holds: correct horse battery staple",
        "ROTATING: 6/7 prove",
    ] {
        let Some(at) = rest.find(shown) else {
            panic!("{shown} is not where it should be in {said}{complained}");
        };
        rest = &rest[at..];
    }
    assert_nothing_is_left(dir.path());
}

#[test]
fn the_demo_stays_until_it_is_interrupted_and_says_what_to_type() {
    let dir = folder();
    let Some(demo) = demo(dir.path()) else { return };
    let mut demo = Process::start("demo", demo);
    demo.line("a rotation", |line| line.ends_with("is primary"));
    demo.line("how it ends", |line| {
        line.starts_with("Ctrl-C stops all of it")
    });
    let kubeconfig = demo.line("how to use it", |line| line.contains("export KUBECONFIG="));
    let kubeconfig = kubeconfig.split_once('=').unwrap().1;
    let kubectl = component("kubectl").unwrap();
    let secret = Command::new(kubectl)
        .args([
            "--kubeconfig",
            kubeconfig,
            "get",
            "secret",
            "demo",
            "--output",
            "name",
        ])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&secret.stdout),
        "secret/demo\n",
        "{secret:?}"
    );

    demo.signal(Signal::INT);
    assert!(demo.end().success());
    assert_nothing_is_left(dir.path());
}
