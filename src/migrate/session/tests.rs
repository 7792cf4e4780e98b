use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

const V1: &str = "client.authentication.k8s.io/v1";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

async fn open(login: Login) -> Result<Session, SessionError> {
    Session::open(Settings {
        server: "http://kube.test".to_owned(),
        trust: None,
        identity: None,
        login,
        headers: HeaderMap::new(),
    })
    .await
}

/// What a pass says of us.
fn shown(pass: &Pass) -> &str {
    let authorization = pass.authorization.as_ref().unwrap();
    assert!(authorization.is_sensitive());
    authorization.to_str().unwrap()
}

async fn shown_at(session: &Session, second: i64) -> String {
    shown(&session.pass(at(second)).await.ok().unwrap()).to_owned()
}

/// A shell's script. It is not run by itself: a file that was just written may still be open for
/// writing in a process that another test is forking.
fn script(text: &str) -> Program {
    Program {
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), text.to_owned()],
        env: vec![("PLACE".to_owned(), "here".to_owned())],
        api_version: V1.to_owned(),
        install_hint: None,
        info: r#"{"kind":"ExecCredential"}"#.to_owned(),
    }
}

/// Counts its runs in a file, and prints a token with the count that expires at this second.
fn counting(dir: &TempDir, expires: i64) -> Program {
    let runs = dir.path().join("runs").display().to_string();
    let expires = at(expires);
    script(&format!(
        r#"echo x >> '{runs}'; n=$(grep -c x '{runs}')
        echo '{{"apiVersion":"{V1}","kind":"ExecCredential","status":{{"token":"t'$n'",
        "expirationTimestamp":"{expires}"}}}}'"#
    ))
}

#[tokio::test]
async fn a_header_is_always_the_same_and_is_not_tried_twice() {
    let session = open(Login::Header(bearer("t").unwrap()))
        .await
        .ok()
        .unwrap();
    let pass = session.pass(at(0)).await.ok().unwrap();
    assert_eq!(shown(&pass), "Bearer t");
    assert!(session.after_refusal(&pass).await.ok().unwrap().is_none());
    let nobody = open(Login::None).await.ok().unwrap();
    let pass = nobody.pass(at(0)).await.ok().unwrap();
    assert!(pass.authorization.is_none());
    assert!(nobody.after_refusal(&pass).await.ok().unwrap().is_none());
}

#[tokio::test]
async fn a_program_runs_again_when_its_answer_expired_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let session = open(Login::Program(counting(&dir, 100)))
        .await
        .ok()
        .unwrap();
    for second in [0, 99] {
        assert_eq!(shown_at(&session, second).await, "Bearer t1");
    }
    assert_eq!(shown_at(&session, 100).await, "Bearer t2");
}

#[tokio::test]
async fn a_program_runs_once_for_all_who_were_refused() {
    let dir = tempfile::tempdir().unwrap();
    let session = open(Login::Program(counting(&dir, 100)))
        .await
        .ok()
        .unwrap();
    let first = session.pass(at(0)).await.ok().unwrap();
    let second = session.pass(at(0)).await.ok().unwrap();
    for refused in [&first, &second] {
        let renewed = session.after_refusal(refused).await.ok().unwrap().unwrap();
        assert_eq!(shown(&renewed), "Bearer t2");
    }
    assert_eq!(shown_at(&session, 0).await, "Bearer t2");
}

#[tokio::test]
async fn a_program_is_told_what_is_wanted_and_has_no_stdin() {
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    let text = r#"cat - > "$0"; echo "$PLACE $KUBERNETES_EXEC_INFO" >> "$0"; exit 1"#;
    let mut program = script(text);
    program.args.push(told.display().to_string());
    let failed = open(Login::Program(program)).await.err().unwrap();
    assert!(
        failed.0.contains("`sh` failed (exit status: 1)"),
        "{failed}"
    );
    let told = fs::read_to_string(told).unwrap();
    assert_eq!(told, "here {\"kind\":\"ExecCredential\"}\n");
}

#[tokio::test]
async fn a_program_that_fails_says_so_without_what_it_printed() {
    for text in ["echo secret-17; exit 3", "echo secret-17", "kill -9 $$"] {
        let failed = open(Login::Program(script(text))).await.err().unwrap().0;
        assert!(failed.contains("credential program `sh`"), "{failed}");
        assert!(!failed.contains("17"), "{failed}");
    }
    let absent = |install_hint| Program {
        command: "/nowhere/aws".to_owned(),
        install_hint,
        ..script("")
    };
    let hinted = absent(Some("get it\nfrom its maker".to_owned()));
    let hinted = open(Login::Program(hinted)).await.err().unwrap().0;
    assert!(hinted.ends_with("`/nowhere/aws` was not found: get it from its maker"));
    let unhinted = open(Login::Program(absent(None))).await.err().unwrap().0;
    assert!(unhinted.contains("No such file"), "{unhinted}");
}

#[tokio::test]
async fn a_program_that_fails_later_fails_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = counting(&dir, 100);
    let runs = dir.path().join("runs").display().to_string();
    program.args[1] += &format!("; [ $(grep -c x '{runs}') = 1 ]");
    let session = open(Login::Program(program)).await.ok().unwrap();
    assert_eq!(shown_at(&session, 0).await, "Bearer t1");
    let failed = session.pass(at(100)).await.err().unwrap();
    assert!(failed.0.contains("failed (exit status: 1)"), "{failed}");
}

fn token_file(path: &Path, instead: Option<&str>) -> Login {
    Login::TokenFile(path.to_owned(), instead.map(str::to_owned))
}

#[tokio::test(start_paused = true)]
async fn a_tokens_file_is_read_again_each_minute_and_the_last_good_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "first\n").unwrap();
    let session = open(token_file(&path, None)).await.ok().unwrap();
    fs::write(&path, "second").unwrap();
    tokio::time::advance(TOKEN_FILE - Duration::from_millis(1)).await;
    assert_eq!(shown_at(&session, 0).await, "Bearer first");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(shown_at(&session, 0).await, "Bearer second");
    fs::remove_file(&path).unwrap();
    tokio::time::advance(TOKEN_FILE).await;
    let pass = session.pass(at(0)).await.ok().unwrap();
    assert_eq!(shown(&pass), "Bearer second");
    assert!(session.after_refusal(&pass).await.ok().unwrap().is_none());
    fs::write(&path, "third").unwrap();
    let renewed = session.after_refusal(&pass).await.ok().unwrap().unwrap();
    assert_eq!(shown(&renewed), "Bearer third");
}

#[tokio::test]
async fn a_token_serves_where_its_file_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let refused = open(token_file(&path, None)).await.err().unwrap().0;
    assert!(refused.contains("No such file"), "{refused}");
    let instead = open(token_file(&path, Some("t"))).await.ok().unwrap();
    assert_eq!(shown_at(&instead, 0).await, "Bearer t");
    fs::write(&path, " \n").unwrap();
    let refused = open(token_file(&path, None)).await.err().unwrap().0;
    assert!(refused.ends_with("token: it is empty"), "{refused}");
    fs::write(&path, "file").unwrap();
    let both = open(token_file(&path, Some("t"))).await.ok().unwrap();
    assert_eq!(shown_at(&both, 0).await, "Bearer file");
}

#[test]
fn headers_are_made_of_names_passwords_and_tokens() {
    let header = basic("admin", "p:w").unwrap();
    assert_eq!(header.to_str().unwrap(), "Basic YWRtaW46cDp3");
    assert!(!format!("{header:?}").contains("YWR"));
    let refused = bearer("token-17\n").unwrap_err();
    assert!(!refused.0.contains("17"), "{refused}");
}
