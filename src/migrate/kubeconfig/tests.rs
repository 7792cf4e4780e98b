mod cluster;
mod user;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::migrate::session::Login;

fn found(flag: Option<&str>, env: Option<&str>, configured: Option<&str>) -> Option<String> {
    let place = find(
        flag.map(Path::new),
        env.map(OsStr::new),
        configured.map(Path::new),
    );
    place.map(|place| place.to_string())
}

#[test]
fn the_nearest_names_the_kubeconfig() {
    let all = found(Some("/f"), Some("/e:/e2"), Some("/c"));
    assert_eq!(all.as_deref(), Some("/f (--kubeconfig)"));
    let env = found(None, Some("/e::/e2"), Some("/c"));
    assert_eq!(env.as_deref(), Some("/e:/e2 ($KUBECONFIG)"));
    for empty in [None, Some(""), Some(":")] {
        let configured = found(None, empty, Some("/c"));
        assert!(configured.is_some_and(|place| place.starts_with("/c (")));
    }
}

fn kubeconfig(cluster: &Value, user: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test", "preferences": {},
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
}

fn place(dir: &TempDir, files: &[&str]) -> Place {
    Place {
        files: files.iter().map(|name| dir.path().join(name)).collect(),
        by: "the test",
    }
}

/// What becomes of a user at an apiserver in the clear.
fn user(user: &Value) -> Result<Settings, Error> {
    parsed(&kubeconfig(&json!({"server": "http://kube.test"}), user))
}

fn cluster(cluster: &Value) -> Result<Settings, Error> {
    parsed(&kubeconfig(cluster, &json!({})))
}

fn parsed(kubeconfig: &Value) -> Result<Settings, Error> {
    let file = File::parse(&kubeconfig.to_string(), Path::new("/etc/kube"));
    let (cluster, user) = file
        .map_err(|fault| Error::Parse(fault.to_string()))?
        .current()?;
    settings(cluster, user)
}

#[track_caller]
fn refused(settings: Result<Settings, Error>, why: &str) {
    let error = settings.err().unwrap().to_string();
    assert!(error.contains(why), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

fn header(settings: &Settings) -> &str {
    match &settings.login {
        Login::Header(value) => value.to_str().unwrap(),
        _ => panic!("another login"),
    }
}

fn authority() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["kube.test".to_owned()]).unwrap();
    params.self_signed(&key).unwrap().pem()
}

#[test]
fn of_several_files_the_first_that_says_something_counts() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, file: &Value| {
        fs::write(dir.path().join(name), file.to_string()).unwrap();
    };
    // The first names a user of the second, whose entry hides the third's as a whole.
    let server = json!({"server": "http://first.test"});
    let mut first = kubeconfig(&server, &json!({}));
    first["users"] = json!([]);
    write("first", &first);
    let mut second = kubeconfig(
        &json!({"server": "http://second.test"}),
        &json!({"token": "2"}),
    );
    second["current-context"] = "second".into();
    write("second", &second);
    write(
        "third",
        &kubeconfig(&json!({}), &json!({"token": "3", "as": "somebody"})),
    );

    let place = place(&dir, &["absent", "first", "second", "third"]);
    let (cluster, user) = read(&place).unwrap().current().ok().unwrap();
    let settings = settings(cluster, user).ok().unwrap();
    assert_eq!(settings.server, "http://first.test");
    assert_eq!(header(&settings), "Bearer 2");
    assert!(settings.headers.is_empty());
}

#[test]
fn where_no_file_is_there_the_first_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let missed = read(&place(&dir, &["a", "b"])).err().unwrap().to_string();
    assert!(missed.contains("/a: No such file"), "{missed}");
    fs::write(dir.path().join("b"), "").unwrap();
    let empty = read(&place(&dir, &["a", "b"])).ok().unwrap().current();
    let empty = empty.err().unwrap().to_string();
    assert!(empty.contains("no current-context"), "{empty}");
}

#[test]
fn paths_are_relative_to_the_file_that_they_stand_in() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    fs::create_dir(dir.path().join("pki")).unwrap();
    write("pki/ca.crt", &authority());
    write("pki/a.crt", "certificate");
    write("pki/a.key", "key");
    let user = json!({
        "client-certificate": "pki/a.crt", "client-key": dir.path().join("pki/a.key"),
        "tokenFile": "pki/token",
    });
    let cluster = json!({"server": "https://kube.test", "certificate-authority": "pki/ca.crt"});
    write("kubeconfig", &kubeconfig(&cluster, &user).to_string());
    let (cluster, user) = read(&place(&dir, &["kubeconfig"]))
        .unwrap()
        .current()
        .ok()
        .unwrap();
    let settings = settings(cluster, user).ok().unwrap();
    let identity = settings.identity.unwrap();
    assert_eq!(
        (&*identity.certificate, &*identity.key),
        (&b"certificate"[..], &b"key"[..])
    );
    let Login::TokenFile(token, None) = settings.login else {
        panic!("another login")
    };
    assert_eq!(token, dir.path().join("pki/token"));
    assert!(settings.trust.is_some());
}

#[test]
fn what_a_kubeconfig_misses_is_named() {
    let whole = kubeconfig(
        &json!({"server": "http://kube.test"}),
        &json!({"token": "secret"}),
    );
    let without = |list: &str| {
        let mut less = whole.clone();
        less[list] = json!([]);
        parsed(&less)
    };
    refused(without("contexts"), "current-context `test` is not among");
    refused(
        without("clusters"),
        "the cluster `test` of its context `test`",
    );
    refused(without("users"), "the user `test` of its context `test`");
    for (list, field) in [
        ("users", "user"),
        ("clusters", "cluster"),
        ("contexts", "context"),
    ] {
        let mut wrong = whole.clone();
        wrong[list] = json!([{"name": "test"}]);
        refused(parsed(&wrong), &format!("has no {field}"));
        wrong[list] = json!([{field: {}}]);
        refused(parsed(&wrong), "has no name");
        wrong[list] = json!([whole[list][0], whole[list][0]]);
        refused(parsed(&wrong), "two entries");
    }
    let mut odd = whole.clone();
    odd["current-context"] = "\u{1b}[2J".into();
    refused(parsed(&odd), "current-context `\\u{1b}[2J` is not");
    let mut other = whole;
    other["kind"] = "Pod".into();
    refused(parsed(&other), "its kind is not Config");
}

#[test]
fn a_fault_in_a_file_has_its_path_and_place_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    for (text, place_of) in [
        (
            "users:\n- name: x\n  user: {token: [secret]}\n",
            "line 3, column 17: ",
        ),
        ("a: secret\nb: [1, 2\nc: 3\n", "line "),
        ("users: secret\n", "line 1, column 8: "),
        ("- secret\n", "line 1, column 1: this is no kubeconfig"),
    ] {
        fs::write(dir.path().join("broken"), text).unwrap();
        let fault = read(&place(&dir, &["broken"])).err().unwrap().to_string();
        let expected = format!("{}: {place_of}", dir.path().join("broken").display());
        assert!(fault.starts_with(&expected), "{fault}");
        assert!(!fault.contains("secret"), "{fault}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let names =
        "(name|user|cluster|token|exec|command|args|env|as|server|client-key-data|[a-z]{1,3})";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(test|http://a|[ -~]{0,6}|\\PC{0,3})".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(names, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", lines in "([a-z:\\-\\[{ \n]|users|token)*") {
        for text in [text, lines] {
            if let Ok(file) = File::parse(&text, Path::new("")) {
                let _ = file.current();
            }
        }
    }

    #[test]
    fn no_kubeconfig_makes_it_panic(cluster in value(), user in value(), context in value()) {
        let mut any = kubeconfig(&cluster, &user);
        let _ = parsed(&any);
        any["contexts"][0]["context"] = context;
        let _ = parsed(&any);
    }
}
