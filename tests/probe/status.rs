//! Status, at the start and later.

use super::*;

#[tokio::test]
async fn an_error_ends_everything() {
    let report = probed(Faults::none().status(|_, _| Err(failed()))).await;
    only_fault(
        &report,
        Check::StatusAnswers,
        Verdict::Refuse,
        "Internal: asked for",
    );
    noted(&report, "nothing else was tried");
    assert!(report.line(Check::EncryptAnswers).is_none());
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time_is_an_error() {
    let faults = Faults::none().status(|_, _| Err(Fail::Hang));
    let report = probed_within(faults, TIMEOUT, None).await;
    let found = "DeadlineExceeded: no answer within 3s";
    only_fault(&report, Check::StatusAnswers, Verdict::Refuse, found);
}

#[tokio::test]
async fn another_healthz_is_never_ready() {
    let faults = Faults::none().status(|_, answer| {
        answer.healthz = "not\u{1b}[31m today".to_owned();
        Ok(())
    });
    let report = probed(faults).await;
    let found = "got unexpected healthz status: not\\u{1b}[31m today";
    only_fault(&report, Check::Healthz, Verdict::Refuse, found);
    // The rest is looked at all the same, as the apiserver goes on.
    assert_eq!(report.lines.len(), CHECKS);
}

#[tokio::test]
async fn another_version_is_never_ready() {
    let faults = Faults::none().status(|_, answer| {
        answer.version = "v1".to_owned();
        Ok(())
    });
    let found = "expected KMSv2 API version v2, got v1";
    only_fault(
        &probed(faults).await,
        Check::Version,
        Verdict::Refuse,
        found,
    );
}

fn beta() -> Faults {
    Faults::none().status(|_, answer| {
        answer.version = "v2beta1".to_owned();
        Ok(())
    })
}

#[tokio::test]
async fn v2beta1_is_good_with_a_note() {
    let report = probed(beta()).await;
    all_ok(&report);
    noted(&report, "1.27 and 1.28");
}

#[tokio::test]
async fn an_old_apiserver_wants_its_own_version() {
    all_ok(&probed_within(beta(), PATIENT, Some("v2beta1")).await);
    let report = probed_within(Faults::none(), PATIENT, Some("v2beta1")).await;
    only_fault(
        &report,
        Check::Version,
        Verdict::Refuse,
        "got v2, wanted v2beta1",
    );
}

#[tokio::test]
async fn a_key_id_of_0_or_1025_bytes_is_refused() {
    for (key_id, found) in [
        (String::new(), "is empty"),
        ("k".repeat(1025), "is 1025 bytes"),
    ] {
        let same = key_id.clone();
        let faults = Faults::none()
            .status(move |_, answer| {
                answer.key_id.clone_from(&key_id);
                Ok(())
            })
            .encrypt(move |_, _, answer| {
                answer.key_id.clone_from(&same);
                Ok(())
            });
        let report = probed(faults).await;
        for check in [Check::StatusKeyId, Check::EncryptKeyId] {
            let line = report.line(check).unwrap();
            assert_eq!(line.verdict, Verdict::Refuse);
            assert!(line.found.contains(found), "{report:#?}");
        }
    }
}

#[tokio::test]
async fn a_later_error_coasts() {
    let faults = Faults::none().status(|nth, _| if nth == 3 { Err(failed()) } else { Ok(()) });
    let report = probed(faults).await;
    only_fault(
        &report,
        Check::StatusStable,
        Verdict::Coast,
        "Internal: asked for",
    );
}

#[tokio::test]
async fn a_later_version_is_refused() {
    let faults = Faults::none().status(|nth, answer| {
        if nth > 2 {
            answer.version = "v2beta1".to_owned();
        }
        Ok(())
    });
    let report = probed(faults).await;
    only_fault(
        &report,
        Check::StatusStable,
        Verdict::Refuse,
        "version v2, then v2beta1",
    );
}

#[tokio::test]
async fn a_later_healthz_is_refused() {
    let faults = Faults::none().status(|nth, answer| {
        if nth == 4 {
            answer.healthz = "no".to_owned();
        }
        Ok(())
    });
    let report = probed(faults).await;
    only_fault(
        &report,
        Check::StatusStable,
        Verdict::Refuse,
        "healthz ok, then no",
    );
}

#[tokio::test]
async fn key_ids_that_come_and_go_are_not_noticed() {
    let faults = Faults::none().status(|nth, answer| {
        if nth == 2 {
            answer.key_id = "double-2".to_owned();
        }
        Ok(())
    });
    let found = "key ids double-1, then double-2, then double-1";
    only_fault(
        &probed(faults).await,
        Check::StatusStable,
        Verdict::NotNotice,
        found,
    );
}

mod rotation {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Key 2 from the nth Status on, in Encrypt too.
    fn rotates_at(nth_status: usize) -> Faults {
        let rotated = Arc::new(AtomicBool::new(false));
        let also = Arc::clone(&rotated);
        Faults::none()
            .status(move |nth, answer| {
                if nth >= nth_status {
                    rotated.store(true, Ordering::SeqCst);
                    answer.key_id = "double-2".to_owned();
                }
                Ok(())
            })
            .encrypt(move |_, _, answer| {
                if also.load(Ordering::SeqCst) {
                    answer.key_id = "double-2".to_owned();
                }
                Ok(())
            })
    }

    #[tokio::test]
    async fn while_the_probe_runs_is_no_fault() {
        let report = probed(rotates_at(3)).await;
        all_ok(&report);
        noted(&report, "the key id changed from double-1 to double-2");
    }

    #[tokio::test]
    async fn between_status_and_encrypt_is_no_fault() {
        // Encrypt has rotated before Status says so for the first time.
        let faults = Faults::none()
            .status(|nth, answer| {
                if nth > 0 {
                    answer.key_id = "double-2".to_owned();
                }
                Ok(())
            })
            .encrypt(|_, _, answer| {
                answer.key_id = "double-2".to_owned();
                Ok(())
            });
        all_ok(&probed(faults).await);
    }
}
