use proptest::prelude::*;

use super::*;

const START: Duration = Duration::from_secs(1000);

fn status(key_id: &str) -> StatusResponse {
    StatusResponse {
        version: "v2".to_owned(),
        healthz: "ok".to_owned(),
        key_id: key_id.to_owned(),
    }
}

fn sealed(key_id: &str) -> EncryptResponse {
    EncryptResponse {
        ciphertext: vec![1],
        key_id: key_id.to_owned(),
        ..Default::default()
    }
}

/// An apiserver that has started with key A.
fn on_a() -> Apiserver {
    let mut apiserver = Apiserver::default();
    assert!(apiserver.status(START, Ok(&status("A"))));
    apiserver.encrypted(Ok(&sealed("A")));
    assert_eq!(apiserver.view(START).writes, Writes::Yes);
    apiserver
}

#[test]
fn a_good_start_writes() {
    let view = on_a().view(START);
    let wanted = View {
        ready: true,
        writes: Writes::Yes,
        key_id: Some("A".to_owned()),
        problems: Vec::new(),
    };
    assert_eq!(view, wanted);
    assert_eq!(
        view.to_string(),
        "ready; the apiserver reads and writes, key id A"
    );
    assert_eq!(on_a().poll(), POLL);
}

#[test]
fn before_any_answer_nothing_works() {
    let mut apiserver = Apiserver::default();
    assert_eq!(apiserver.view(START).writes, Writes::Never);
    assert!(!apiserver.view(START).ready);
    assert!(!apiserver.status(START, Err("Unavailable: not yet")));
    let view = apiserver.view(START);
    assert_eq!((view.ready, view.writes), (false, Writes::Never));
    assert_eq!(view.problems, ["Status: Unavailable: not yet"]);
    assert_eq!(apiserver.poll(), POLL_UNWELL);
}

#[test]
fn a_status_error_coasts_for_180_s_then_stops_writes_and_recovers() {
    let mut apiserver = on_a();
    let last = START + LEASE - Duration::from_nanos(1);
    assert!(!apiserver.status(last, Err("down")));
    assert_eq!(apiserver.view(last).writes, Writes::Coasting);
    assert_eq!(apiserver.view(START + LEASE).writes, Writes::Stopped);
    // The old seed lives again, without a new Encrypt.
    let later = START + 3 * LEASE;
    assert!(!apiserver.status(later, Ok(&status("A"))));
    assert_eq!(apiserver.view(later), on_a().view(START));
}

#[test]
fn an_equal_key_id_renews_the_lease_without_encrypt() {
    let mut apiserver = on_a();
    let later = START + LEASE / 2;
    assert!(!apiserver.status(later, Ok(&status("A"))));
    apiserver.status(later + LEASE / 2, Err("down"));
    assert_eq!(apiserver.view(START + LEASE).writes, Writes::Coasting);
    assert_eq!(apiserver.view(later + LEASE).writes, Writes::Stopped);
}

#[test]
fn another_key_id_takes_a_new_seed() {
    let mut apiserver = on_a();
    let later = START + LEASE / 2;
    assert!(apiserver.status(later, Ok(&status("B"))));
    apiserver.encrypted(Ok(&sealed("B")));
    assert_eq!(apiserver.view(later).key_id.as_deref(), Some("B"));
    apiserver.status(later, Err("down"));
    assert_eq!(apiserver.view(START + LEASE).writes, Writes::Coasting);
}

#[test]
fn an_encrypt_that_is_no_good_coasts_on_the_old_seed() {
    let bad: [(Result<EncryptResponse, &str>, &str); 4] = [
        (Err("Internal: no"), "Encrypt: Internal: no"),
        (Ok(sealed("A")), "Encrypt uses A, Status says B"),
        (Ok(sealed("")), "Encrypt: keyID is empty"),
        (
            Ok(EncryptResponse {
                ciphertext: Vec::new(),
                ..sealed("B")
            }),
            "Encrypt: encrypted DEK source is empty",
        ),
    ];
    for (answer, problem) in bad {
        let mut apiserver = on_a();
        assert!(apiserver.status(START, Ok(&status("B"))));
        apiserver.encrypted(answer.as_ref().map_err(|error| *error));
        let view = apiserver.view(START);
        assert_eq!(
            (view.ready, view.writes),
            (false, Writes::Coasting),
            "{problem}"
        );
        assert_eq!(view.key_id.as_deref(), Some("A"));
        assert_eq!(view.problems, [problem]);
        assert_eq!(apiserver.view(START + LEASE).writes, Writes::Stopped);
    }
}

#[test]
fn an_empty_key_id_is_not_used() {
    let mut apiserver = on_a();
    assert!(!apiserver.status(START, Ok(&status(""))));
    assert_eq!(apiserver.view(START).writes, Writes::Coasting);
    assert_eq!(apiserver.view(START).problems, ["keyID is empty"]);
}

#[test]
fn a_bad_healthz_or_version_is_not_ready_but_never_stops_writes() {
    let unwell = StatusResponse {
        healthz: "no".to_owned(),
        ..status("A")
    };
    let changed = StatusResponse {
        version: "v2beta1".to_owned(),
        ..status("A")
    };
    for answer in [unwell, changed] {
        let mut apiserver = on_a();
        for at in [START, START + LEASE, START + 2 * LEASE] {
            assert!(!apiserver.status(at, Ok(&answer)));
            let view = apiserver.view(at);
            assert_eq!((view.ready, view.writes), (false, Writes::Yes));
            assert_eq!(view.problems.len(), 1);
        }
    }
}

#[test]
fn the_first_known_version_is_kept() {
    let mut apiserver = Apiserver::default();
    let unknown = StatusResponse {
        version: "v1".to_owned(),
        ..status("A")
    };
    assert!(apiserver.status(START, Ok(&unknown)));
    apiserver.encrypted(Ok(&sealed("A")));
    assert!(!apiserver.view(START).ready);
    let beta = StatusResponse {
        version: "v2beta1".to_owned(),
        ..status("A")
    };
    apiserver.status(START, Ok(&beta));
    assert!(apiserver.view(START).ready);
    apiserver.status(START, Ok(&status("A")));
    let problems = apiserver.view(START).problems;
    assert!(
        problems[0].contains("should not change after"),
        "{problems:?}"
    );
}

proptest! {
    /// Whatever happens: writes go on only under a key id that Status and Encrypt both gave, and
    /// never 180 s after the last Status that gave it.
    #[test]
    fn writes_need_a_lease(steps in proptest::collection::vec((0u64..100, 0u8..4, 0u8..4), 1..40)) {
        let names = ["", "A", "B"];
        let mut apiserver = Apiserver::default();
        let (mut now, mut given, mut good) = (START, None, None);
        for (wait, says, uses) in steps {
            now += Duration::from_secs(wait);
            let answer = names.get(usize::from(says)).map(|name| status(name)).ok_or("down");
            let asks = apiserver.status(now, answer.as_ref().map_err(|error| *error));
            if asks {
                let answer = names.get(usize::from(uses)).map(|name| sealed(name)).ok_or("down");
                apiserver.encrypted(answer.as_ref().map_err(|error| *error));
                if says == uses {
                    (given, good) = (Some(says), Some(now));
                }
            } else if says == 1 || says == 2 {
                prop_assert_eq!(given, Some(says), "Encrypt was not asked for");
                good = Some(now);
            }
            let wanted = match good {
                None => Writes::Never,
                Some(good) if good == now && given == Some(says) => Writes::Yes,
                Some(good) if now < good + LEASE => Writes::Coasting,
                Some(_) => Writes::Stopped,
            };
            prop_assert_eq!(apiserver.view(now).writes, wanted);
        }
    }
}
