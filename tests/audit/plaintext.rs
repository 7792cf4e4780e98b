//! What counts as plaintext that should not be, and that an audit says yes only where history needs
//! nothing old either.

use crate::etcds::{Store, audit, file};

const ENCRYPTED: &[u8] = b"k8s:enc:aescbc:v1:key1:x";
const PLAIN: &[u8] = b"k8s\0";

fn aescbc_for(resource: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [{resource}]\n  providers:\n\
         \x20 - aescbc: {{keys: [{{name: key1, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}}]}}\n\
         \x20 - identity: {{}}\n"
    )
}

#[test]
fn only_what_should_be_encrypted_is_counted_as_plaintext() {
    let Some(store) = Store::start() else { return };
    for kind in ["secrets", "configmaps", "pods"] {
        store.put(&format!("/registry/{kind}/a/plain"), PLAIN);
    }
    store.put("/registry/configmaps/a/encrypted", ENCRYPTED);
    let folder = store.path(".");
    let encryption = file(&folder, "encryption.yaml", &aescbc_for("configmaps"));
    let by_configuration = ["--key", "plaintext", "--encryption-config", &encryption];

    // Nobody says what is to be encrypted: Secrets are, and what is like something encrypted.
    let guessed = store.audit(&["--key", "plaintext"]);
    assert_eq!(guessed.answer["encryptionConfiguration"], false);
    assert_eq!(guessed.answer["keys"][0]["current"], 2);
    assert_eq!(guessed.answer["clearObjects"], 1);
    // Secrets are not: somebody says so.
    let told = store.audit(&by_configuration);
    assert_eq!(told.answer["encryptionConfiguration"], true);
    assert_eq!(told.answer["keys"][0]["current"], 1, "{:#}", told.answer);
    assert_eq!(told.answer["clearObjects"], 2);
    assert_eq!(told.code, 3);

    store.put("/registry/configmaps/a/plain", ENCRYPTED);
    store.compact();
    let told = store.audit(&by_configuration);
    assert_eq!(told.code, 0, "{:#}", told.answer);
    let claim = told.answer["claims"][0].as_str().unwrap();
    let shown = "no object is in the clear that the EncryptionConfiguration wants encrypted";
    assert!(claim.contains(shown), "{claim}");

    let url = store.etcd.url();
    let screen = |arguments: &[&str]| {
        let output = audit(&[&["--endpoints", &url, "--key", "plaintext"], arguments].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let guess = "plaintext counts secrets, and resources of which some object is encrypted";
    let said = screen(&[]);
    assert!(said.contains(guess), "{said}");
    let clear = "1 object in the clear of resources of which none is encrypted";
    assert!(said.contains(clear), "{said}");
    let said = screen(&["--encryption-config", &encryption]);
    assert!(!said.contains(guess), "{said}");
    let clear = "2 objects in the clear of resources that are not to be encrypted";
    assert!(said.contains(clear), "{said}");
}

#[test]
fn what_only_history_needs_is_a_no_until_it_is_compacted() {
    let Some(store) = Store::start() else { return };
    let folder = store.path(".");
    let encryption = file(&folder, "encryption.yaml", &aescbc_for("secrets"));
    let told = ["--encryption-config", encryption.as_str()];
    store.put("/registry/secrets/a/b", PLAIN);
    store.put("/registry/secrets/a/b", ENCRYPTED);

    let audited = store.audit(&told);
    assert_eq!(audited.answer["staleObjects"], 0);
    assert_eq!(audited.answer["keys"][0]["history"], 1);
    assert_eq!(audited.answer["clean"], false);
    assert_eq!(audited.code, 3, "{:#}", audited.answer);
    let url = store.etcd.url();
    let screen = audit(&[&["--endpoints", url.as_str()], &told[..]].concat());
    let screen = String::from_utf8(screen.stdout).unwrap();
    for text in [
        "plaintext: needed (history of 1)",
        "Next:  wait until etcd compacts its history",
    ] {
        assert!(screen.contains(text), "{text:?} is not in\n{screen}");
    }

    store.compact();
    let audited = store.audit(&told);
    assert_eq!(audited.answer["clean"], true);
    assert_eq!(audited.code, 0, "{:#}", audited.answer);
}
