//! Encrypt, at the start and later.

use claviger_proto::v2::EncryptResponse;
use data_encoding::BASE64;

use super::*;

fn spoiled(spoil: fn(&mut EncryptResponse)) -> Faults {
    Faults::none().encrypt(move |_, _, answer| {
        spoil(answer);
        Ok(())
    })
}

#[tokio::test]
async fn an_error_ends_everything() {
    let report = probed(Faults::none().encrypt(|_, _, _| Err(failed()))).await;
    let found = "failed to encrypt DEK, error: Internal: asked for";
    only_fault(&report, Check::EncryptAnswers, Verdict::Refuse, found);
    assert!(report.line(Check::RoundTrip).is_none());
}

#[tokio::test]
async fn an_empty_ciphertext_ends_everything() {
    let report = probed(spoiled(|answer| answer.ciphertext.clear())).await;
    only_fault(
        &report,
        Check::Ciphertext,
        Verdict::Refuse,
        "encrypted DEK source is empty",
    );
    assert!(report.line(Check::RoundTrip).is_none());
}

#[tokio::test]
async fn a_ciphertext_of_1025_bytes_is_refused_and_one_of_1024_is_not() {
    all_ok(&probed(spoiled(|answer| answer.ciphertext.resize(1024, 0))).await);
    let report = probed(spoiled(|answer| answer.ciphertext.resize(1025, 0))).await;
    only_fault(&report, Check::Ciphertext, Verdict::Refuse, "is 1025 bytes");
}

#[tokio::test]
async fn another_key_id_than_that_of_status_is_refused() {
    let report = probed(spoiled(|answer| answer.key_id.push('x'))).await;
    let found = "Encrypt uses double-1x, Status says double-1";
    only_fault(&report, Check::EncryptKeyId, Verdict::Refuse, found);
}

#[tokio::test]
async fn annotations_that_are_no_domains_are_refused() {
    let report = probed(spoiled(|answer| {
        answer
            .annotations
            .insert("kms.example.io/version".to_owned(), vec![1]);
    }))
    .await;
    let found = "annotation key \"kms.example.io/version\"";
    only_fault(&report, Check::Annotations, Verdict::Refuse, found);
}

#[tokio::test]
async fn annotations_of_32769_bytes_are_refused() {
    let report = probed(spoiled(|answer| {
        answer
            .annotations
            .insert("a.example".to_owned(), vec![1; 32768 - 8]);
    }))
    .await;
    let found = "total size of annotations is 32769";
    only_fault(&report, Check::Annotations, Verdict::Refuse, found);
}

#[tokio::test]
async fn a_later_error_coasts() {
    let faults = |bad| {
        Faults::none().encrypt(move |nth, _, _| if nth == bad { Err(failed()) } else { Ok(()) })
    };
    let report = probed(faults(1)).await;
    only_fault(
        &report,
        Check::TwoSeeds,
        Verdict::Coast,
        "Internal: asked for",
    );
    let report = probed(faults(2)).await;
    only_fault(
        &report,
        Check::OneSeedTwice,
        Verdict::Coast,
        "Internal: asked for",
    );
}

#[tokio::test]
async fn a_later_fault_coasts() {
    let faults = Faults::none().encrypt(|nth, _, answer| {
        match nth {
            1 => answer.key_id.push('x'),
            2 => answer.ciphertext.resize(1025, 0),
            _ => {}
        }
        Ok(())
    });
    let report = probed(faults).await;
    for (check, found) in [
        (
            Check::TwoSeeds,
            "Encrypt uses double-1x, Status says double-1",
        ),
        (
            Check::OneSeedTwice,
            "only the first was good: encrypted DEK source is 1025 bytes",
        ),
    ] {
        let line = report.line(check).unwrap();
        assert_eq!(line.verdict, Verdict::Coast, "{report:#?}");
        assert!(line.found.contains(found), "{report:#?}");
    }
}

#[tokio::test]
async fn one_answer_for_two_seeds_is_not_noticed() {
    let report = probed(spoiled(|answer| answer.ciphertext = b"always".to_vec())).await;
    let line = report.line(Check::TwoSeeds).unwrap();
    assert_eq!(line.verdict, Verdict::NotNotice, "{report:#?}");
    assert!(line.found.contains("one answer for both"), "{report:#?}");
}

#[tokio::test]
async fn one_answer_for_one_seed_is_good() {
    let faults = Faults::none().encrypt(|_, seed, answer| {
        let sum: u64 = seed
            .iter()
            .zip(1..)
            .map(|(byte, at)| u64::from(*byte) * at)
            .sum();
        answer.ciphertext = format!("wrapped {:04} {sum:016}", seed.len()).into_bytes();
        Ok(())
    });
    let report = probed(faults).await;
    all_ok(&report);
    assert_eq!(
        report.line(Check::OneSeedTwice).unwrap().found,
        "same answer"
    );
}

#[tokio::test]
async fn a_seed_in_clear_is_not_noticed() {
    let faults = Faults::none().encrypt(|_, seed, answer| {
        answer.ciphertext.extend(BASE64.encode(seed).bytes());
        Ok(())
    });
    let found = "the ciphertext holds the seed";
    only_fault(
        &probed(faults).await,
        Check::NothingInClear,
        Verdict::NotNotice,
        found,
    );

    let faults = Faults::none().encrypt(|_, seed, answer| {
        answer
            .annotations
            .insert("a.example".to_owned(), seed.to_vec());
        Ok(())
    });
    let found = "the annotation a.example holds the seed";
    only_fault(
        &probed(faults).await,
        Check::NothingInClear,
        Verdict::NotNotice,
        found,
    );
}

mod other_lengths {
    use super::*;

    #[tokio::test]
    async fn may_be_refused() {
        let faults = Faults::none().encrypt(|_, seed, _| match seed.len() {
            32 => Ok(()),
            _ => Err(Fail::Error(Status::invalid_argument("32 bytes, please"))),
        });
        let report = probed(faults).await;
        all_ok(&report);
        assert_eq!(report.line(Check::OtherLengths).unwrap().found, "refused");
        let faults = Faults::none().encrypt(|_, seed, _| match seed.len() {
            1.. => Ok(()),
            0 => Err(Fail::Error(Status::invalid_argument("nothing to wrap"))),
        });
        let report = probed(faults).await;
        all_ok(&report);
        assert_eq!(report.line(Check::OtherLengths).unwrap().found, "0 refused");
    }

    #[tokio::test]
    async fn may_not_be_cut() {
        let faults = Faults::none().decrypt(|_, opened| {
            let mut seed = opened?;
            seed.truncate(32);
            Ok(seed)
        });
        let found = "of 33 bytes, 32 came back";
        only_fault(
            &probed(faults).await,
            Check::OtherLengths,
            Verdict::NotNotice,
            found,
        );
    }

    #[tokio::test]
    async fn may_not_be_lost() {
        let faults = Faults::none().decrypt(|_, opened| match opened {
            Ok(seed) if seed.is_empty() => Err(failed()),
            opened => Ok(opened?),
        });
        let found = "0 bytes taken, never given back: Internal";
        only_fault(
            &probed(faults).await,
            Check::OtherLengths,
            Verdict::NotNotice,
            found,
        );
    }
}
