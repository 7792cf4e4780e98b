//! Other ways to serve an apiserver: an abstract socket, and two members for two apiservers.

use std::fs;

use crate::cluster::{Apiserver, Etcd, Kind};
use crate::process::folder;
use crate::serve::{Claviger, copy_keyring};
use crate::stand::{SECRETS, encryption_config};

#[test]
fn an_abstract_socket_serves_an_apiserver() {
    let dir = folder();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let home = dir.path().join("claviger");
    // The names of abstract sockets are the whole machine's.
    let name = dir.path().file_name().unwrap().to_str().unwrap();
    let name = format!("@claviger-{}{name}", std::process::id());
    let config = format!(
        "apiVersion: claviger.io/v1alpha1\n\
         kind: ClavigerConfiguration\n\
         server: {{socket: \"{name}\", allowUIDs: [{uid}]}}\n\
         storage: {{file: {{path: {home}/keyring}}}}\n\
         roots: [{{name: local, keyFile: {{path: {home}/root.key}}}}]\n\
         metrics: {{listen: \"127.0.0.1:0\"}}\n\
         log: {{format: text, level: info}}\n",
        uid = rustix::process::geteuid().as_raw(),
        home = home.display(),
    );
    fs::create_dir(&home).unwrap();
    fs::write(home.join("config.yaml"), config).unwrap();
    let claviger = Claviger::serve(&home);

    let config = encryption_config(&home, &SECRETS);
    assert!(config.contains(&format!("unix:///{name}")), "{config}");
    let Some(apiserver) = Apiserver::start(&dir.path().join("apiserver"), &etcd, &config) else {
        return;
    };
    let api = apiserver.ready().api();
    api.create(Kind::Secret, "abstract", "value").is(201);
    assert_eq!(
        Kind::Secret.value(&api.get(Kind::Secret, "abstract").is(200).body),
        "value"
    );
    assert_eq!(claviger.served("Encrypt"), 1.0);
    assert!(!home.join("kms.sock").exists());
}

#[test]
fn apiservers_with_members_on_copies_of_one_keyring_read_each_others_objects() {
    let dir = folder();
    let Some(etcd) = Etcd::start(dir.path()) else {
        return;
    };
    let first = Claviger::serve(&dir.path().join("first")).ready();
    let second = dir.path().join("second");
    copy_keyring(first.dir(), &second);
    let members = [first, Claviger::serve(&second).ready()];
    assert_eq!(members[0].key("primary"), members[1].key("primary"));

    let start = |number: usize, claviger: &Claviger| {
        let config = encryption_config(claviger.dir(), &SECRETS);
        Apiserver::start(
            &dir.path().join(format!("apiserver-{number}")),
            &etcd,
            &config,
        )
    };
    let (Some(a), Some(b)) = (start(0, &members[0]), start(1, &members[1])) else {
        return;
    };
    let (a, b) = (a.ready().api(), b.ready().api());

    a.create(Kind::Secret, "of-a", "written by a").is(201);
    b.create(Kind::Secret, "of-b", "written by b").is(201);
    assert_eq!(
        Kind::Secret.value(&b.get(Kind::Secret, "of-a").is(200).body),
        "written by a"
    );
    assert_eq!(
        Kind::Secret.value(&a.get(Kind::Secret, "of-b").is(200).body),
        "written by b"
    );
    b.update(Kind::Secret, "of-a", "changed by b").is(200);
    assert_eq!(
        Kind::Secret.value(&a.get(Kind::Secret, "of-a").is(200).body),
        "changed by b"
    );
    for member in &members {
        assert_eq!(member.served("Encrypt"), 1.0);
        assert!(member.served("Decrypt") > 0.0);
    }
}
