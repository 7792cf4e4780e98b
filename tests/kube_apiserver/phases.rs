//! The way in and the way out, by the very commands of `deploy/WAY-IN-AND-OUT.md`, from each provider
//! that a cluster may have had before.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::cluster::{Apiserver, Etcd, Kind};
use crate::process::folder;
use crate::rotation::record;
use crate::serve::Claviger;
use crate::web::wait_until;

const GUIDE: &str = include_str!("../../deploy/WAY-IN-AND-OUT.md");

/// How the guide calls the EncryptionConfiguration that is on its way to the nodes.
const FILE: &str = "encryption.yaml";

const IDENTITY: &str = "  - identity: {}\n";
const KMS: &str = "k8s:enc:kms:v2:claviger:";

#[test]
fn from_plaintext_and_back() {
    in_and_out(&Before {
        provider: IDENTITY,
        prefix: "k8s\0",
    });
}

#[test]
fn from_aescbc_and_back() {
    in_and_out(&Before {
        provider: "  - aescbc: {keys: [{name: key1, \
                   secret: QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=}]}\n",
        prefix: "k8s:enc:aescbc:v1:key1:",
    });
}

#[test]
fn from_secretbox_and_back() {
    in_and_out(&Before {
        provider: "  - secretbox: {keys: [{name: key1, \
                   secret: QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=}]}\n",
        prefix: "k8s:enc:secretbox:v1:key1:",
    });
}

/// What protected Secrets before Claviger did.
struct Before {
    /// As an EncryptionConfiguration has it.
    provider: &'static str,
    /// How its objects begin in etcd.
    prefix: &'static str,
}

fn in_and_out(before: &Before) {
    let Some(mut way) = Way::start(before) else {
        return;
    };
    way.goes_on_in("before", before.prefix);

    way.enters("prepare", before.prefix);
    way.enters("write", KMS);
    way.migrates();
    way.all_are(KMS);
    way.etcd.compact();
    way.command("audit");
    way.enters("final", KMS);

    way.enters("leave", before.prefix);
    way.migrates();
    way.all_are(before.prefix);
    way.etcd.compact();
    way.command("audit --key claviger");
    // kms is taken out of the file.
    way.settles();
    way.loads(&way.without_kms());
    way.claviger.stop(Signal::TERM);
    way.apiserver.restart();
    way.goes_on_in("after", before.prefix);
    assert_eq!(way.ran.into_inner(), commands_of(GUIDE));
}

/// The commands of a guide: the lines of its blocks that begin with `claviger`.
fn commands_of(guide: &str) -> Vec<&str> {
    let commands = guide.lines().filter_map(|line| {
        let command = line.strip_prefix("claviger ")?;
        Some(command.split('#').next().unwrap_or_default().trim_end())
    });
    commands.collect()
}

/// A cluster on its way, and the folder that its administrator works in.
struct Way<'a> {
    before: &'a Before,
    claviger: Claviger,
    apiserver: Apiserver,
    etcd: Etcd,
    dir: TempDir,
    /// The commands that were needed, in their order.
    ran: RefCell<Vec<String>>,
    /// The Secrets that were made until now.
    names: Vec<String>,
}

impl<'a> Way<'a> {
    /// A cluster that has the provider from before, and Claviger beside it. `None` where a component
    /// is missing.
    fn start(before: &'a Before) -> Option<Self> {
        let dir = folder();
        let etcd = Etcd::start(dir.path())?;
        let claviger = Claviger::serve(&dir.path().join("claviger")).ready();
        let home = dir.path().join("apiserver");
        let apiserver = Apiserver::start(&home, &etcd, &configuration(before.provider))?;
        apiserver.ready();
        tell_where_the_cluster_is(claviger.dir(), &home, &etcd);
        Some(Self {
            before,
            claviger,
            apiserver,
            etcd,
            dir,
            ran: RefCell::default(),
            names: Vec::new(),
        })
    }

    /// Goes on to a phase, in which objects are written like that.
    fn enters(&mut self, phase: &str, prefix: &str) {
        self.command(&format!(
            "print encryption-config --phase {phase} --resources secrets > {FILE}"
        ));
        let path = self.dir.path().join(FILE);
        let printed = fs::read_to_string(&path).unwrap();
        // As the guide says, where the cluster was encrypted before.
        fs::write(&path, printed.replace(IDENTITY, self.before.provider)).unwrap();
        self.command(&format!("check --encryption-config {FILE} --phase {phase}"));
        if phase != "prepare" {
            self.settles();
        }
        self.loads(&fs::read_to_string(&path).unwrap());
        self.apiserver.restart();
        self.goes_on_in(phase, prefix);
    }

    /// Has the nodes have this file.
    fn loads(&self, file: &str) {
        self.apiserver.set_encryption(file);
    }

    /// An administrator takes longer for a phase than the plugin needs to see the apiserver well; one
    /// that went away before that holds a migration up for five minutes.
    fn settles(&self) {
        wait_until("the apiserver has converged", || {
            self.apiserver.answers("/readyz", 200);
            record(self.claviger.dir()).converged
        });
    }

    /// Writes a Secret, which lies in etcd like that, and reads all that there are.
    fn goes_on_in(&mut self, phase: &str, prefix: &str) {
        let api = self.apiserver.api();
        for number in 0..5 {
            let name = format!("{phase}-{number}");
            api.create(Kind::Secret, &name, &name).is(201);
            self.is(&name, prefix);
            self.names.push(name);
        }
        self.all_are_readable(phase);
    }

    /// Has everything stored as the phase stores it.
    fn migrates(&self) {
        self.command("migrate");
        self.all_are_readable("a migration");
    }

    fn all_are_readable(&self, phase: &str) {
        for name in &self.names {
            let read = self.apiserver.api().get(Kind::Secret, name).is(200);
            assert_eq!(Kind::Secret.value(&read.body), *name, "in {phase}");
        }
    }

    fn all_are(&self, prefix: &str) {
        for name in &self.names {
            self.is(name, prefix);
        }
    }

    #[track_caller]
    fn is(&self, name: &str, prefix: &str) {
        let value = self.etcd.value(&Kind::Secret.etcd_key(name));
        let begins = String::from_utf8_lossy(&value[..value.len().min(prefix.len())]);
        assert_eq!(begins, prefix, "{name}");
    }

    /// Runs a command of the guide until it is not refused any more: exit code 4 says to wait.
    fn command(&self, line: &str) {
        wait_until(line, || {
            self.apiserver.answers("/readyz", 200);
            self.attempt(line)
        });
        self.ran.borrow_mut().push(line.to_owned());
    }

    /// Runs it once, in the administrator's folder. `None` if it is refused.
    fn attempt(&self, line: &str) -> Option<()> {
        let (arguments, file) = match line.split_once(" > ") {
            Some((arguments, file)) => (arguments, Some(file)),
            None => (line, None),
        };
        let output = Command::new(env!("CARGO_BIN_EXE_claviger"))
            .current_dir(&self.dir)
            .arg("--config")
            .arg(self.claviger.dir().join("config.yaml"))
            .args(arguments.split(' '))
            .output()
            .unwrap();
        if output.status.code() == Some(4) {
            return None;
        }
        assert_eq!(output.status.code(), Some(0), "{line}: {output:?}");
        if let Some(file) = file {
            fs::write(self.dir.path().join(file), output.stdout).unwrap();
        }
        Some(())
    }

    /// The last file of the way out.
    fn without_kms(&self) -> String {
        configuration(self.before.provider)
    }
}

/// An EncryptionConfiguration with one provider.
fn configuration(provider: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers:\n{provider}"
    )
}

/// What a node of kubeadm knows from kube-apiserver's manifest.
fn tell_where_the_cluster_is(claviger: &Path, apiserver: &Path, etcd: &Etcd) {
    let cluster = json!({
        "etcd": {"endpoints": [etcd.url()]},
        "kubeconfig": apiserver.join("kubeconfig"),
        "encryptionConfig": apiserver.join(FILE),
    });
    let path = claviger.join("config.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}kubernetes: {cluster}\n")).unwrap();
}
