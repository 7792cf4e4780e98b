//! `serve --dev`: what it makes, and what it never makes anew.

use std::path::PathBuf;

use claviger::config;

use super::*;

/// A folder for a try-out, in which there is nothing yet.
struct TryOut(TempDir);

impl TryOut {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("dev")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut serve = Command::new(env!("CARGO_BIN_EXE_claviger"));
        serve.args(["serve", "--dev", "--dir"]).arg(self.dir());
        serve.args(arguments).current_dir(self.0.path());
        serve.stdin(Stdio::null());
        serve
    }

    /// Runs it until it serves.
    fn serves(&self, arguments: &[&str]) {
        let address = self.dir().join("metrics.addr");
        let _ = fs::remove_file(&address);
        let mut serve = self.command(arguments);
        let child = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut serving = Serving(child.unwrap());
        let until = Instant::now() + Duration::from_secs(30);
        while !address.exists() {
            assert!(Instant::now() < until, "{arguments:?}: it does not serve");
            assert_eq!(serving.0.try_wait().unwrap(), None, "{arguments:?}");
            std::thread::yield_now();
        }
    }

    /// Runs it where it must refuse, and returns its error.
    fn refuses(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn files(&self) -> [Vec<u8>; 4] {
        ["config.yaml", "root.key", "recovery.key", "keyring"]
            .map(|name| fs::read(self.dir().join(name)).unwrap())
    }
}

#[test]
fn a_try_out_is_made_once() {
    let try_out = TryOut::new();
    try_out.serves(&[]);
    let before = try_out.files();
    try_out.serves(&[]);
    assert_eq!(try_out.files(), before);
}

#[test]
fn a_try_out_keeps_what_it_is_told_of_the_cluster() {
    let try_out = TryOut::new();
    let told = [
        "--endpoints",
        "https://a:2379,https://b:2379",
        "--cacert",
        "ca.crt",
        "--cert",
        "/pki/c",
        "--cert-key",
        "/pki/k",
        "--prefix",
        "/other",
        "--kubeconfig",
        "admin.conf",
    ];
    try_out.serves(&told);
    let before = try_out.files();
    let kept = config::read(&try_out.dir().join("config.yaml"))
        .unwrap()
        .kubernetes;
    let here = try_out.0.path();
    assert_eq!(kept.kubeconfig, Some(here.join("admin.conf")));
    let etcd = kept.etcd.unwrap();
    assert_eq!(etcd.endpoints, ["https://a:2379", "https://b:2379"]);
    assert_eq!(etcd.ca_file, Some(here.join("ca.crt")));
    let client = etcd.client.unwrap();
    assert_eq!(client.cert_file, PathBuf::from("/pki/c"));
    assert_eq!(client.key_file, PathBuf::from("/pki/k"));
    assert_eq!(etcd.prefix, "/other");

    // Told again, less, or nothing: all the same.
    for again in [&told[..], &["--kubeconfig", "admin.conf"], &[]] {
        try_out.serves(again);
    }
    for other in [
        ["--kubeconfig", "other.conf"],
        ["--endpoints", "https://c:2379"],
    ] {
        let error = try_out.refuses(&other);
        assert!(
            error.contains("kubernetes:\n") && error.contains(&other[1][..5]),
            "{error}"
        );
    }
    assert_eq!(try_out.files(), before);
}

#[test]
fn a_try_out_is_not_made_of_what_is_no_configuration() {
    let try_out = TryOut::new();
    let error = try_out.refuses(&["--endpoints", "etcd:2379"]);
    assert!(error.contains("must be https://HOST:PORT"), "{error}");
    for incomplete in [
        &["--cacert", "/a"][..],
        &["--endpoints", "http://a:1", "--cert", "/a"],
    ] {
        try_out.refuses(incomplete);
    }
    assert!(!try_out.dir().exists());
}
