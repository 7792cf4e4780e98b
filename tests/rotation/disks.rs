//! Disks that are full, read-only or broken in the middle of a rotation: it fails and says why, calls
//! go on under the old key, and once the disk is well again the rotation goes on.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use claviger_keystore::header::Header;
use claviger_keystore::member::MemberRecord;
use rustix::process::Signal;

use crate::components::component;
use crate::evidence::{all_opens, header, no_id_goes_back};
use crate::load::Load;
use crate::process::{Process, command, folder};
use crate::rotate;
use crate::serve::{Claviger, answer, run};
use crate::web::wait_until;

/// Where the test in the namespace finds its disk.
const DISK: &str = "CLAVIGER_TEST_DISK";

#[test]
fn a_disk_that_is_full_read_only_or_broken_holds_a_rotation_up_and_fails_no_call() {
    if component("strace").is_none() {
        return;
    }
    let disk = folder();
    // A file system of its own, in a mount namespace that ends with the child.
    let script = r#"mount -t tmpfs -o size=512k tmpfs "$0" && exec "$@""#;
    let unshare = |command: &[OsString]| {
        let mut unshare = crate::process::command("unshare");
        unshare
            .args(["--mount", "sh", "-c", script])
            .arg(disk.path());
        unshare
            .args(command)
            .env(DISK, disk.path())
            .output()
            .unwrap()
    };
    let may = unshare(&["true".into()]);
    if !may.status.success() {
        let why = String::from_utf8_lossy(&may.stderr);
        // Past the harness's capture; a closed stderr must not fail a test.
        let _ = writeln!(std::io::stderr(), "NOT RUN: {}: {why}", module_path!());
        return;
    }
    let test = std::env::current_exe().unwrap().into_os_string();
    let inside = [
        "disks::on_a_small_disk",
        "--exact",
        "--ignored",
        "--nocapture",
    ];
    let inside: Vec<_> = [test]
        .into_iter()
        .chain(inside.map(OsString::from))
        .collect();
    let output = unshare(&inside);
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "the test above runs it in a mount namespace"]
fn on_a_small_disk() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else {
        return;
    };
    let home = disk.join("claviger");
    let claviger = Claviger::serve(&home).ready();
    let load = Load::start(&home.join("kms.sock"));
    let node = Node {
        disk,
        home,
        claviger,
        load,
    };
    node.is_full_before_a_rotation();
    node.is_full_before_the_activation();
    node.is_read_only();
    node.does_not_sync_what_the_command_writes();
    node.does_not_sync_what_the_plugin_reads();

    let log = node.load.finish();
    all_opens(&node.home, &log.wrapped);
    no_id_goes_back(&node.home, &log);
}

/// A node on a disk that can be filled.
struct Node {
    disk: PathBuf,
    home: PathBuf,
    claviger: Claviger,
    load: Load,
}

impl Node {
    fn is_full_before_a_rotation(&self) {
        for pages in [0, 1] {
            let before = header(&self.home);
            let ballast = self.fill(pages);
            let refused = run(&self.home, &["rotate", "--timeout", "2s"]);
            self.fails(&refused, 1, "No space left on device");
            fs::remove_file(ballast).unwrap();
            assert_eq!(header(&self.home), before);
        }
        self.goes_on();
    }

    fn is_full_before_the_activation(&self) {
        answer(&self.home, &["rotate", "--stage-only"]);
        let staged = header(&self.home);
        self.acknowledges(&staged);
        let ballast = self.fill(0);
        let activate = ["rotate", "--activate", "--timeout", "2s"];
        let refused = run(&self.home, &activate);
        self.fails(&refused, 1, "No space left on device");
        assert_eq!(header(&self.home), staged);
        fs::remove_file(ballast).unwrap();
        self.goes_on();
        assert_eq!(header(&self.home).primary(), staged.staged());
    }

    fn is_read_only(&self) {
        let before = header(&self.home);
        let mount = |arguments: &[&str]| {
            let mut mount = Command::new("mount");
            mount.args(arguments).arg(&self.disk).arg(&self.disk);
            let mounted = mount.output().unwrap();
            assert!(mounted.status.success(), "{mounted:?}");
        };
        // Over itself, since what the plugin holds open keeps it writable below.
        mount(&["--bind"]);
        mount(&["-o", "remount,bind,ro"]);
        let refused = run(&self.home, &["rotate", "--timeout", "2s"]);
        self.fails(&refused, 1, "Read-only file system");
        let unmount = Command::new("umount")
            .arg("--lazy")
            .arg(&self.disk)
            .output();
        assert!(unmount.unwrap().status.success());
        assert_eq!(header(&self.home), before);
        self.goes_on();
    }

    fn does_not_sync_what_the_command_writes(&self) {
        for file in ["keyring", "keyring.new"] {
            let before = header(&self.home);
            let strace = self.strace(file);
            let refused = { strace }
                .arg(env!("CARGO_BIN_EXE_claviger"))
                .arg("--config")
                .arg(self.home.join("config.yaml"))
                .args(["rotate", "--timeout", "2s"])
                .output()
                .unwrap();
            self.fails(&refused, 1, "Input/output error");
            assert_eq!(header(&self.home), before, "{file}");
        }
        self.goes_on();
    }

    fn does_not_sync_what_the_plugin_reads(&self) {
        let before = header(&self.home);
        let mut strace = self.strace("keyring");
        strace.arg("-p").arg(self.plugin().to_string());
        let mut strace = Process::start("strace", strace);
        strace.line("that it watches", |line| line.contains(" attached"));
        let waits = run(&self.home, &["rotate", "--timeout", "3s"]);
        // It cannot know whether what it read will be there after a power loss.
        let revision = format!("has revision {}", before.revision);
        self.fails(&waits, 6, &revision);
        assert_eq!(header(&self.home).primary(), before.primary());
        strace.signal(Signal::TERM);
        strace.end();
        self.goes_on();
    }

    /// strace that lets every fsync of a file fail.
    fn strace(&self, file: &str) -> Command {
        let mut strace = command(component("strace").unwrap());
        strace.args(["-f", "-o"]).arg(self.disk.join("trace"));
        strace.args(["-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "-P"]);
        strace.arg(self.home.join(file));
        strace
    }

    /// The plugin's process.
    fn plugin(&self) -> u32 {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let home = self.home.to_str().unwrap();
        let serves = |id: &u32| {
            let arguments = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments);
            arguments.contains("\0serve\0") && arguments.contains(home)
        };
        let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.find(serves).unwrap()
    }

    /// Takes all but so many pages of what is left.
    fn fill(&self, pages: u64) -> PathBuf {
        let ballast = self.disk.join("ballast");
        let free = rustix::fs::statfs(&self.disk).unwrap().f_bfree;
        let bytes = usize::try_from((free - pages) * 4096).unwrap();
        fs::write(&ballast, vec![0; bytes]).unwrap();
        ballast
    }

    /// The command said what was wrong and with what, and nobody who calls noticed.
    #[track_caller]
    fn fails(&self, output: &Output, code: i32, why: &str) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(why), "{said}");
        let old = header(&self.home).primary().unwrap().to_string();
        self.load.go_on(20);
        assert_eq!(self.claviger.key("primary"), Some(old));
    }

    /// Now a rotation comes to its end.
    fn goes_on(&self) {
        let before = header(&self.home).primary();
        let rotation = rotate(&self.home, &[]);
        rotation.line("that it activated", |line| line.starts_with("3 activate"));
        let now = header(&self.home).primary();
        assert_ne!(now, before);
        let now = now.map(|id| id.to_string());
        wait_until("the plugin uses the new key", || {
            (self.claviger.key("primary") == now).then_some(())
        });
        self.load.go_on(20);
    }

    /// Waits until the plugin says that it has this keyring.
    fn acknowledges(&self, keyring: &Header) {
        wait_until("the plugin has the staged key", || {
            let record = record(&self.home.join("members"))?;
            (record.acknowledged.revision == keyring.revision).then_some(())
        });
    }
}

/// What the one member says of itself, without its MAC.
fn record(members: &Path) -> Option<MemberRecord> {
    let mut files = fs::read_dir(members).ok()?;
    let text = fs::read_to_string(files.next()?.unwrap().path()).ok()?;
    let (record, _mac) = text.rsplit_once(",\"mac\":")?;
    Some(serde_json::from_str(&format!("{record}}}")).unwrap())
}
