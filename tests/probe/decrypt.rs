//! Decrypt of what Encrypt gave, and of what it never gave.

use super::*;

fn answered(answer: fn(Vec<u8>) -> Vec<u8>) -> Faults {
    Faults::none().decrypt(move |_, opened| Ok(answer(opened?)))
}

#[tokio::test]
async fn an_error_is_not_noticed_until_a_restart() {
    let report = probed(Faults::none().decrypt(|_, _| Err(failed()))).await;
    let found = "failed to decrypt DEK, error: Internal: asked for";
    only_fault(&report, Check::RoundTrip, Verdict::NotNotice, found);
    noted(&report, "damaged input was not tried");
    assert!(report.line(Check::FlippedBit).is_none());
}

#[tokio::test]
async fn other_bytes_are_not_noticed_until_a_restart() {
    for (faults, found) in [
        (
            answered(|mut seed| (seed[31] ^= 1, seed).1),
            "32 other bytes",
        ),
        (
            answered(|seed| seed[1..].to_vec()),
            "31 bytes: invalid seed length",
        ),
        (answered(|_| Vec::new()), "0 bytes: invalid seed length"),
        (
            answered(|seed| [&seed[..], b"x"].concat()),
            "33 other bytes",
        ),
    ] {
        let report = probed(faults).await;
        only_fault(&report, Check::RoundTrip, Verdict::NotNotice, found);
    }
}

#[tokio::test]
async fn only_the_second_seed_fails() {
    let faults = Faults::none().decrypt(|nth, opened| match nth {
        1 => Err(failed()),
        _ => Ok(opened?),
    });
    only_fault(
        &probed(faults).await,
        Check::RoundTrip,
        Verdict::NotNotice,
        "asked for",
    );
}

#[tokio::test]
async fn many_at_once_that_fail_are_found() {
    // Three one after the other come first.
    let faults = Faults::none().decrypt(|nth, opened| match nth {
        3..=10 if nth % 2 == 0 => Err(Fail::Error(Status::resource_exhausted("busy"))),
        _ => Ok(opened?),
    });
    let found = "4 of 8 failed: ResourceExhausted: busy";
    only_fault(
        &probed(faults).await,
        Check::Parallel,
        Verdict::NotNotice,
        found,
    );

    let faults = Faults::none().decrypt(|nth, opened| match nth {
        3 => Ok(vec![0; 32]),
        _ => Ok(opened?),
    });
    let found = "1 of 8 failed: 32 other bytes";
    only_fault(
        &probed(faults).await,
        Check::Parallel,
        Verdict::NotNotice,
        found,
    );
}

mod bad_input {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use claviger_proto::v2::DecryptRequest;

    use super::*;

    fn mended(mend: fn(&mut DecryptRequest)) -> Faults {
        Faults::none().request(move |_, request| {
            mend(request);
            Ok(())
        })
    }

    #[tokio::test]
    async fn forged_bytes_are_not_noticed() {
        let faults = Faults::none().decrypt(|_, opened| Ok(opened.unwrap_or(vec![0; 32])));
        let report = probed(faults).await;
        for check in [
            Check::FlippedBit,
            Check::Truncated,
            Check::UnknownKeyId,
            Check::OtherAnnotations,
        ] {
            let line = report.line(check).unwrap();
            assert_eq!(line.verdict, Verdict::NotNotice, "{report:#?}");
            assert_eq!(
                line.found, "taken, and 32 bytes given for it",
                "{report:#?}"
            );
        }
    }

    /// A last byte that nobody looks at: the double's ciphertexts end with a digit.
    #[tokio::test]
    async fn one_bit_that_does_not_count_is_found() {
        let faults = Faults::none()
            .encrypt(|_, _, answer| {
                answer.ciphertext.push(b'.');
                Ok(())
            })
            .request(|_, request| {
                if let Some(last) = request.ciphertext.get_mut(24) {
                    *last = b'.';
                }
                Ok(())
            });
        only_fault(
            &probed(faults).await,
            Check::FlippedBit,
            Verdict::NotNotice,
            "taken",
        );
    }

    #[tokio::test]
    async fn a_missing_tail_is_found() {
        let faults = Faults::none()
            .encrypt(|_, _, answer| {
                answer.ciphertext.push(0);
                Ok(())
            })
            .request(|_, request| {
                if request.ciphertext.len() == 24 {
                    request.ciphertext.push(0);
                }
                Ok(())
            });
        only_fault(
            &probed(faults).await,
            Check::Truncated,
            Verdict::NotNotice,
            "taken",
        );
    }

    #[tokio::test]
    async fn an_empty_ciphertext_that_opens_is_found() {
        let faults = Faults::none().request(|_, request| {
            if request.ciphertext.is_empty() {
                request.ciphertext = b"0000 is the wrapped seed".to_vec();
            }
            Ok(())
        });
        only_fault(
            &probed(faults).await,
            Check::Truncated,
            Verdict::NotNotice,
            "taken",
        );
    }

    #[tokio::test]
    async fn a_key_id_that_does_not_count_is_found() {
        let report = probed(mended(|request| request.key_id = KEY_ID.to_owned())).await;
        only_fault(&report, Check::UnknownKeyId, Verdict::NotNotice, "taken");
        // Its last character does not count.
        let report = probed(mended(|request| {
            if request.key_id.len() == KEY_ID.len() {
                request.key_id = KEY_ID.to_owned();
            }
        }))
        .await;
        only_fault(&report, Check::UnknownKeyId, Verdict::NotNotice, "taken");
        // Only its beginning counts.
        let report = probed(mended(|request| request.key_id.truncate(KEY_ID.len()))).await;
        only_fault(&report, Check::UnknownKeyId, Verdict::NotNotice, "taken");
    }

    #[tokio::test]
    async fn annotations_that_were_never_given_may_be_ignored() {
        let report = probed(mended(|request| request.annotations.clear())).await;
        all_ok(&report);
        noted(&report, "ignores annotations");
    }

    #[tokio::test]
    async fn annotations_that_were_given_may_not() {
        let faults = || {
            Faults::none().encrypt(|_, _, answer| {
                answer
                    .annotations
                    .insert("a.example".to_owned(), b"1".to_vec());
                Ok(())
            })
        };
        all_ok(&probed(faults()).await);
        let careless = faults().request(|_, request| {
            request
                .annotations
                .insert("a.example".to_owned(), b"1".to_vec());
            Ok(())
        });
        let report = probed(careless).await;
        only_fault(
            &report,
            Check::OtherAnnotations,
            Verdict::NotNotice,
            "taken",
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_found() {
        let faults = Faults::none().decrypt(|_, opened| opened.map_err(|_| Fail::Hang));
        let report = probed_within(faults, TIMEOUT, None).await;
        for check in [Check::FlippedBit, Check::Truncated, Check::UnknownKeyId] {
            let line = report.line(check).unwrap();
            assert_eq!(line.verdict, Verdict::NotNotice, "{report:#?}");
            assert!(
                line.found.contains("no answer: DeadlineExceeded"),
                "{report:#?}"
            );
        }
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_found() {
        let faults = Faults::none().decrypt(|_, opened| Ok(opened.expect("asked for")));
        let report = probed(faults).await;
        let line = report.line(Check::FlippedBit).unwrap();
        assert_eq!(line.verdict, Verdict::NotNotice, "{report:#?}");
        assert!(line.found.contains("no answer: Cancelled"), "{report:#?}");
    }

    #[tokio::test]
    async fn a_plugin_that_fell_over_is_found() {
        let fell = Arc::new(AtomicBool::new(false));
        let falls = Arc::clone(&fell);
        let faults = Faults::none()
            .decrypt(move |_, opened| {
                falls.fetch_or(opened.is_err(), Ordering::SeqCst);
                Ok(opened?)
            })
            .status(move |_, _| {
                if fell.load(Ordering::SeqCst) {
                    Err(failed())
                } else {
                    Ok(())
                }
            });
        let report = probed(faults).await;
        only_fault(
            &report,
            Check::StillWell,
            Verdict::Coast,
            "Status: Internal: asked for",
        );
    }

    #[tokio::test]
    async fn a_seed_that_was_lost_on_the_way_is_found() {
        type Answer = fn() -> Result<Vec<u8>, Fail>;
        let lost: [(Answer, &str); 2] = [
            (|| Err(failed()), "Decrypt: Internal: asked for"),
            (|| Ok(vec![0; 32]), "Decrypt gives other bytes"),
        ];
        for (answer, found) in lost {
            let fell = AtomicBool::new(false);
            let faults = Faults::none().decrypt(move |_, opened| {
                if fell.fetch_or(opened.is_err(), Ordering::SeqCst) && opened.is_ok() {
                    return answer();
                }
                Ok(opened?)
            });
            let report = probed(faults).await;
            let line = report.line(Check::StillWell).unwrap();
            assert_eq!(line.verdict, Verdict::Coast, "{report:#?}");
            assert_eq!(line.found, found, "{report:#?}");
        }
    }
}

mod messages {
    use std::sync::Mutex;

    use data_encoding::HEXLOWER;

    use super::*;

    #[tokio::test]
    async fn that_hold_a_seed_are_found() {
        let seen = Mutex::new(Vec::new());
        let faults = Faults::none().decrypt(move |_, opened| {
            let mut seen = seen.lock().unwrap();
            match &opened {
                Ok(seed) => seen.clone_from(seed),
                Err(_) => {
                    let text = format!("not {}", HEXLOWER.encode(&seen));
                    return Err(Fail::Error(Status::invalid_argument(text)));
                }
            }
            Ok(opened?)
        });
        let found = "a message holds the seed";
        only_fault(
            &probed(faults).await,
            Check::Messages,
            Verdict::NotNotice,
            found,
        );
    }

    #[tokio::test]
    async fn that_are_not_utf_8_are_found() {
        let report = probed(Faults::none().raw_message("%FF%FE")).await;
        only_fault(
            &report,
            Check::Messages,
            Verdict::NotNotice,
            "a message is not UTF-8",
        );
    }
}
