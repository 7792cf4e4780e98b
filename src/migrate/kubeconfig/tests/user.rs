use std::os::unix::fs::symlink;

use data_encoding::BASE64;
use http::HeaderMap;

use super::*;
use crate::migrate::session::program::Program;

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

fn program(settings: Settings) -> Program {
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
