use std::os::unix::fs::symlink;

use data_encoding::BASE64;
use http::HeaderMap;
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
fn data_count_before_files_and_files_that_are_absent_are_named() {
    let data = BASE64.encode(b"data");
    let both = json!({
        "client-certificate": "/nowhere/a", "client-certificate-data": data,
        "client-key": "/nowhere/b", "client-key-data": data,
    });
    assert_eq!(user(&both).ok().unwrap().identity.unwrap().key, b"data");
    let file = json!({"client-certificate-data": data, "client-key": "gone.key"});
    refused(user(&file), "/etc/kube/gone.key: No such file");
    let half = json!({"client-certificate-data": data});
    refused(user(&half), "not both");
    let wrong = json!({"client-certificate-data": "secret!", "client-key-data": data});
    refused(user(&wrong), "client-certificate-data is not base64");
}

#[test]
fn a_user_has_a_token_or_a_password_or_nothing() {
    assert_eq!(
        header(&user(&json!({"token": "t"})).ok().unwrap()),
        "Bearer t"
    );
    let basic = user(&json!({"username": "u", "password": "p"}))
        .ok()
        .unwrap();
    assert_eq!(header(&basic), "Basic dTpw");
    assert!(matches!(user(&json!({})).ok().unwrap().login, Login::None));
    let both = json!({"username": "u", "password": "p", "token": "secret"});
    refused(user(&both), "a password and a token");
    refused(
        user(&json!({"token": "secret\u{7}"})),
        "token has characters",
    );
    let old = json!({"auth-provider": {"name": "gcp", "config": {"access-token": "secret"}}});
    refused(user(&old), "auth-provider `gcp`");
}

fn exec(more: &Value) -> Value {
    let mut exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "aws"});
    for (name, value) in more.as_object().unwrap() {
        exec[name] = value.clone();
    }
    json!({"exec": exec})
}

fn program(settings: Settings) -> crate::migrate::session::program::Program {
    match settings.login {
        Login::Program(program) => program,
        _ => panic!("another login"),
    }
}

#[test]
fn a_credential_program_runs_where_nothing_else_says_who_we_are() {
    let all = exec(&json!({
        "args": ["eks", "get-token"], "env": [{"name": "A", "value": "b"}, {"name": "C"}],
        "interactiveMode": "IfAvailable", "installHint": "get it",
    }));
    let found = program(user(&all).ok().unwrap());
    assert_eq!((&*found.command, found.args.len()), ("aws", 2));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(found.env, [pair("A", "b"), pair("C", "")]);
    let info: Value = serde_json::from_str(&found.info).unwrap();
    assert_eq!(info["spec"], json!({"interactive": false}));
    for command in ["bin/aws", "../aws", "/usr/bin/aws"] {
        let found = program(user(&exec(&json!({"command": command}))).ok().unwrap());
        assert_eq!(
            Path::new(&found.command),
            Path::new("/etc/kube").join(command)
        );
    }
    let mut token = all;
    token["token"] = "t".into();
    assert_eq!(header(&user(&token).ok().unwrap()), "Bearer t");
}

#[test]
fn a_credential_program_may_be_told_of_the_cluster() {
    let authority = authority();
    let cluster = json!({
        "server": "https://kube.test", "tls-server-name": "other.test",
        "certificate-authority-data": BASE64.encode(authority.as_bytes()),
        "extensions": [
            {"name": "other", "extension": 1},
            {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}},
        ],
    });
    let user = exec(&json!({"provideClusterInfo": true}));
    let found = program(parsed(&kubeconfig(&cluster, &user)).ok().unwrap());
    let info: Value = serde_json::from_str(&found.info).unwrap();
    let told = json!({
        "server": "https://kube.test", "tls-server-name": "other.test",
        "certificate-authority-data": BASE64.encode(authority.as_bytes()),
        "config": {"audience": "x"},
    });
    assert_eq!(info["spec"]["cluster"], told);
}

#[test]
fn a_credential_program_that_cannot_be_run_is_refused() {
    for (more, why) in [
        (json!({"command": ""}), "has no command"),
        (
            json!({"apiVersion": "client.authentication.k8s.io/v1alpha1"}),
            "must speak",
        ),
        (json!({"apiVersion": ""}), "must speak"),
        (
            json!({"interactiveMode": "Always"}),
            "interactiveMode Always",
        ),
        (
            json!({"env": [{"value": "secret"}]}),
            "a variable without a usable name",
        ),
        (
            json!({"env": [{"name": "a=b"}]}),
            "a variable without a usable name",
        ),
        (json!({"args": ["a", 1]}), "args must be text"),
    ] {
        refused(user(&exec(&more)), why);
    }
}

#[tokio::test]
async fn a_program_beside_the_kubeconfig_is_found_and_run() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/bin/sh", dir.path().join("program")).unwrap();
    let answer = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",
        "status":{"token":"t"}}"#;
    let user = exec(&json!({
        "command": "./program", "args": ["-c", format!("echo '{answer}'")],
    }));
    let text = kubeconfig(&json!({"server": "http://127.0.0.1:1"}), &user).to_string();
    fs::write(dir.path().join("kubeconfig"), text).unwrap();
    let opened = open(&place(&dir, &["kubeconfig"]), Duration::from_secs(1)).await;
    assert_eq!(opened.ok().unwrap().api.server(), "http://127.0.0.1:1");
}

#[test]
fn as_whom_we_act_is_said_in_headers() {
    let somebody = json!({
        "as": "jane", "as-uid": "7", "as-groups": ["dev", "ops"],
        "as-user-extra": {"example.com/Scope%": ["x", "y"]},
    });
    let headers: HeaderMap = user(&somebody).ok().unwrap().headers;
    let all = |name: &str| {
        let values = headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(all("impersonate-user"), ["jane"]);
    assert_eq!(all("impersonate-uid"), ["7"]);
    assert_eq!(all("impersonate-group"), ["dev", "ops"]);
    assert_eq!(all("impersonate-extra-example.com%2Fscope%25"), ["x", "y"]);
    refused(user(&json!({"as-groups": ["dev"]})), "but not `as`");
    refused(user(&json!({"as": "a\nb"})), "no HTTP header may have");
}

#[test]
fn a_server_is_a_url_without_secrets() {
    for (server, shown) in [
        ("https://kube.test", "https://kube.test"),
        ("https://kube.test:6443/", "https://kube.test:6443"),
        (
            "https://[::1]:6443/k8s/clusters/c-1/",
            "https://[::1]:6443/k8s/clusters/c-1",
        ),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ] {
        let found = cluster(&json!({"server": server, "insecure-skip-tls-verify": true}));
        assert_eq!(found.ok().unwrap().server, shown);
    }
    for wrong in [
        "",
        "kube.test:6443",
        "https://",
        "ftp://kube.test",
        "https://secret:secret@kube.test",
        "https://kube.test/?a=secret",
        "https://kube test",
    ] {
        refused(
            cluster(&json!({"server": wrong})),
            "must be https://HOST:PORT",
        );
    }
}

#[test]
fn a_cluster_is_recognised_or_it_is_said_that_it_is_not() {
    let https = |more: &Value| {
        let mut all = json!({"server": "https://kube.test"});
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        cluster(&all)
    };
    let data = BASE64.encode(authority().as_bytes());
    let named = https(&json!({"certificate-authority-data": data, "tls-server-name": "10.0.0.1"}));
    let (_, name) = named.ok().unwrap().trust.unwrap();
    assert_eq!(name.to_str(), "10.0.0.1");
    for (more, why) in [
        (
            json!({"certificate-authority": "gone.crt"}),
            "/etc/kube/gone.crt: No such file",
        ),
        (
            json!({"certificate-authority-data": BASE64.encode(b"x")}),
            "has no certificate",
        ),
        (
            json!({"certificate-authority-data": data, "insecure-skip-tls-verify": true}),
            "take out",
        ),
        (
            json!({"tls-server-name": "not a name"}),
            "neither a name nor an address",
        ),
        (
            json!({"proxy-url": "http://secret@proxy.test"}),
            "knows no proxies",
        ),
        (
            json!({"insecure-skip-tls-verify": "secret"}),
            "must be true or false",
        ),
    ] {
        refused(https(&more), why);
    }
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
