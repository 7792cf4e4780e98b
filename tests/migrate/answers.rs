//! Whatever kube-apiserver answers, each object is counted once, as what it is.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use claviger::migrate::api::NoAnswer;
use claviger::migrate::rewrite::{self, FAILURES, Failed, Limits, Stop, Tally};
use futures_util::stream;
use http::Method;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::double::{Double, Reply, client, tell};

/// Short pauses, so that tests need not wait; long patience, so that nothing is given up by chance.
fn limits() -> Limits {
    Limits {
        pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(20),
        ..Limits::default()
    }
}

fn keys(names: impl IntoIterator<Item = impl std::fmt::Display>) -> Vec<Vec<u8>> {
    let key = |name| format!("/registry/secrets/test/{name}").into_bytes();
    names.into_iter().map(key).collect()
}

async fn run(double: &Double, limits: &Limits, keys: Vec<Vec<u8>>) -> (Tally, Option<Stop>) {
    run_until(double, limits, keys, &CancellationToken::new()).await
}

async fn run_until(
    double: &Double,
    limits: &Limits,
    keys: Vec<Vec<u8>>,
    stop: &CancellationToken,
) -> (Tally, Option<Stop>) {
    let keys = stream::iter(keys.into_iter().map(Ok::<_, Infallible>));
    let with = (&double.api, &double.apis, limits);
    let done = rewrite::rewrite(with, "/registry", keys, |_| (), stop).await;
    done.unwrap_or_else(|never| match never {})
}

fn failed(object: &str, reason: &str) -> Failed {
    Failed {
        object: object.to_owned(),
        reason: reason.to_owned(),
    }
}

#[tokio::test]
async fn an_object_is_sent_one_empty_patch() {
    let double = Double::start(|_, _| Reply::Ok).await;
    let (tally, stop) = run(&double, &limits(), keys(["a b"])).await;
    assert_eq!((tally.rewritten, stop), (1, None));
    let [call] = &double.calls()[..] else {
        panic!("{:?}", double.calls());
    };
    assert_eq!(call.method, Method::PATCH);
    assert_eq!(call.path, "/api/v1/namespaces/test/secrets/a%20b");
    assert_eq!(call.body, "{}");
    let header = |name: &str| call.headers[name].clone();
    assert_eq!(header("content-type"), "application/merge-patch+json");
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    assert_eq!(header("accept"), metadata);
    assert_eq!(header("authorization"), "Bearer t");
    assert!(header("user-agent").starts_with("claviger/"));
}

#[tokio::test]
async fn each_object_is_patched_once_and_few_at_a_time() {
    let told = Arc::<Notify>::default();
    let when = told.clone();
    // The first ones are answered only once as many are there as may be.
    let wait = move |path: &str, _| match path.len() == "/api/v1/namespaces/test/secrets/0".len() {
        true => Reply::When(when.clone()),
        false => Reply::Ok,
    };
    let double = Double::start(wait).await;
    let release = async {
        double.came(limits().in_flight).await;
        tell(&told).await;
    };
    let limits = limits();
    let (tally, stop) = tokio::select! {
        done = run(&double, &limits, keys(0..500)) => done,
        () = release => unreachable!("it never ends"),
    };
    assert_eq!((tally.rewritten, tally.failed, stop), (500, 0, None));
    let calls = double.calls();
    let paths: BTreeSet<_> = calls.iter().map(|call| &call.path).collect();
    assert_eq!((calls.len(), paths.len()), (500, 500));
    assert_eq!(double.most_at_once(), limits.in_flight);
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    for reply in [
        Reply::Refuse(409, "the object has been modified"),
        Reply::Refuse(500, "etcdserver: request timed out"),
        Reply::Page(502, "bad gateway"),
        Reply::Refuse(503, "the server is currently unable"),
        Reply::Later("1"),
        Reply::Cut,
    ] {
        let double = Double::start(move |_, before| match before {
            0..4 => reply.clone(),
            _ => Reply::Ok,
        })
        .await;
        let (tally, stop) = run(&double, &limits(), keys(["x"])).await;
        assert_eq!((tally.rewritten, tally.failed, stop), (1, 0, None));
        assert_eq!(double.calls().len(), 5);
    }
}

#[tokio::test]
async fn what_does_not_pass_is_given_up_with_its_reason() {
    let double = Double::start(|_, _| Reply::Refuse(500, "failed calling webhook")).await;
    let (tally, stop) = run(&double, &limits(), keys(["x"])).await;
    assert_eq!(stop, None);
    let wanted = failed("secrets/test/x", "500 failed calling webhook");
    assert_eq!((tally.failed, &tally.failures[..]), (1, &[wanted][..]));
    assert_eq!(double.calls().len(), 5);
}

#[tokio::test]
async fn a_resource_that_always_fails_is_soon_tried_once() {
    let double = Double::start(|path, _| match path.ends_with("/last") {
        true => Reply::Ok,
        false => Reply::Refuse(500, "failed calling webhook"),
    })
    .await;
    let one_by_one = Limits {
        in_flight: 1,
        ..limits()
    };
    let names = (0..100).map(|name| name.to_string());
    let names = names.chain(["last".to_owned(), "again".to_owned()]);
    let (tally, _) = run(&double, &one_by_one, keys(names)).await;
    assert_eq!((tally.rewritten, tally.failed), (1, 101));
    // Eight objects five times, the other 92 once; and after a success everything is tried again.
    assert_eq!(double.calls().len(), 8 * 5 + 92 + 1 + 5);
}

#[tokio::test]
async fn a_refusal_is_a_failure_of_that_object_alone() {
    let forbidden = "User \"x\" cannot patch resource \"secrets\" in API group \"\"";
    for (reply, reason) in [
        (
            Reply::Refuse(422, "data: Invalid value"),
            "422 data: Invalid value",
        ),
        (Reply::Refuse(400, "bad"), "400 bad"),
        (
            Reply::Page(404, "404 page not found"),
            "404 404 page not found",
        ),
        (Reply::Page(405, ""), "405 Method Not Allowed"),
        (
            Reply::Refuse(403, forbidden),
            "403 User \"x\" cannot patch resource \"secrets\" in API group \"\"",
        ),
        (Reply::Page(302, ""), "302 Found"),
    ] {
        let one = reply.clone();
        let double = Double::start(move |path, _| match path.ends_with("/bad") {
            true => one.clone(),
            false => Reply::Ok,
        })
        .await;
        let (tally, stop) = run(&double, &limits(), keys(["a", "bad", "z"])).await;
        assert_eq!((tally.rewritten, tally.failed, stop), (2, 1, None));
        assert_eq!(tally.failures, [failed("secrets/test/bad", reason)]);
        assert_eq!(double.calls().len(), 3);
        let names: Vec<_> = tally.forbidden.iter().map(ToString::to_string).collect();
        let is_forbidden = matches!(reply, Reply::Refuse(403, _));
        assert_eq!(
            names,
            if is_forbidden {
                vec!["secrets"]
            } else {
                vec![]
            }
        );
    }
}

#[tokio::test]
async fn what_was_deleted_meanwhile_is_no_failure() {
    let double = Double::start(|_, _| Reply::Refuse(404, "secrets \"x\" not found")).await;
    let (tally, stop) = run(&double, &limits(), keys(["x"])).await;
    assert_eq!((tally.deleted, tally.failed, stop), (1, 0, None));
}

#[tokio::test]
async fn what_has_no_path_is_a_failure_without_a_call() {
    let double = Double::start(|_, _| Reply::Ok).await;
    let keys = [
        "/registry/example.com/things/x",
        "/registry/secrets/x",
        "/other/secrets/x",
    ];
    let keys = keys.map(|key| key.as_bytes().to_vec()).to_vec();
    let (tally, stop) = run(&double, &limits(), keys).await;
    assert_eq!((tally.failed, stop), (3, None));
    assert!(
        tally.failures[0]
            .reason
            .starts_with("no API serves things.example.com")
    );
    assert_eq!(double.calls().len(), 0);
}

#[tokio::test]
async fn later_is_no_failure_until_patience_ends() {
    let double = Double::start(|path, before| match (path.ends_with("/0"), before) {
        (true, 0..20) => Reply::Later("1"),
        _ => Reply::Ok,
    })
    .await;
    let (tally, _) = run(&double, &limits(), keys(0..10)).await;
    assert_eq!((tally.rewritten, tally.failed), (10, 0));

    let double = Double::start(|_, _| Reply::Later("1")).await;
    let impatient = Limits {
        patience: Duration::from_millis(50),
        ..limits()
    };
    let (tally, stop) = run(&double, &impatient, keys(["x"])).await;
    assert_eq!((tally.failed, stop), (1, None));
    assert!(
        tally.failures[0]
            .reason
            .starts_with("429 too many requests")
    );
}

#[tokio::test]
async fn silence_is_a_failure_of_that_object() {
    let silent = |path: &str, _| match path.ends_with("/bad") {
        true => Reply::Silence,
        false => Reply::Ok,
    };
    let double = Double::with_timeout(silent, Duration::from_secs(1)).await;
    let twice = Limits {
        attempts: 2,
        ..limits()
    };
    let (tally, stop) = run(&double, &twice, keys(["a", "bad", "z"])).await;
    assert_eq!((tally.rewritten, tally.failed, stop), (2, 1, None));
    assert!(tally.failures[0].reason.starts_with("no answer within"));
    assert_eq!(double.calls().len(), 4);
}

#[tokio::test]
async fn an_apiserver_that_is_away_stops_everything() {
    let mut double = Double::start(|_, _| Reply::Ok).await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let dir = tempfile::tempdir().unwrap();
    double.api = client(&dir, port, Duration::from_secs(30)).await;
    let impatient = Limits {
        patience: Duration::from_millis(50),
        ..limits()
    };
    let (tally, stop) = run(&double, &impatient, keys(0..1000)).await;
    let Some(Stop::Away(NoAnswer::Unreachable(why))) = stop else {
        panic!("{stop:?}");
    };
    assert!(why.contains("Connection refused"), "{why}");
    assert_eq!((tally.rewritten, tally.failed), (0, 0));
}

#[tokio::test]
async fn credentials_that_are_refused_stop_everything() {
    let double = Double::start(|path, _| match path.ends_with("/20") {
        true => Reply::Refuse(401, "Unauthorized"),
        false => Reply::Ok,
    })
    .await;
    let (tally, stop) = run(&double, &limits(), keys(0..1000)).await;
    assert_eq!(stop, Some(Stop::Unauthorized("Unauthorized".to_owned())));
    assert_eq!(tally.failed, 0);
    assert!((20..40).contains(&tally.rewritten), "{tally:?}");
}

#[tokio::test]
async fn an_interruption_waits_for_what_is_under_way() {
    let told = Arc::<Notify>::default();
    let when = told.clone();
    let double = Double::start(move |_, _| Reply::When(when.clone())).await;
    let two = Limits {
        in_flight: 2,
        ..limits()
    };
    let stop = CancellationToken::new();
    let interrupt = async {
        double.came(2).await;
        stop.cancel();
        tell(&told).await;
    };
    let (tally, why) = tokio::select! {
        done = run_until(&double, &two, keys(0..1000), &stop) => done,
        () = interrupt => unreachable!("it never ends"),
    };
    assert_eq!((tally.rewritten, why), (2, Some(Stop::Asked)));
    assert_eq!(double.calls().len(), 2);
}

#[tokio::test]
async fn a_stream_that_breaks_is_an_error() {
    let double = Double::start(|_, _| Reply::Ok).await;
    let keys = keys(0..3).into_iter().map(Ok);
    let broken = stream::iter(keys.chain([Err("compacted")]));
    let limits = limits();
    let with = (&double.api, &double.apis, &limits);
    let stop = CancellationToken::new();
    let done = rewrite::rewrite(with, "/registry", broken, |_| (), &stop).await;
    assert_eq!(done.err(), Some("compacted"));
    assert!(!stop.is_cancelled(), "the caller's token is the caller's");
}

#[tokio::test]
async fn a_rate_is_kept_and_every_failure_counted() {
    let double = Double::start(|_, _| Reply::Refuse(422, "no")).await;
    let fast = Limits {
        rate: NonZeroU32::new(1_000_000),
        ..limits()
    };
    let (tally, _) = run(&double, &fast, keys(0..FAILURES + 10)).await;
    assert_eq!(tally.failed, FAILURES as u64 + 10);
    assert_eq!(tally.failures.len(), FAILURES);
}
