use super::*;
use crate::probe::report::Check;

fn shown(report: &Report) -> String {
    let mut out = Vec::new();
    write(report, &mut out, Paint(None)).unwrap();
    String::from_utf8(out).unwrap()
}

fn report() -> Report {
    let mut report = Report::new("/run/kms.sock".to_owned());
    report.version = "v2".to_owned();
    report.key_id = "k1".to_owned();
    report
}

#[test]
fn a_good_report_is_a_table() {
    let mut report = report();
    report.ok(Check::StatusAnswers, "");
    report.ok(Check::Ciphertext, "73 bytes");
    assert_eq!(
        shown(&report),
        "\
/run/kms.sock
version v2, key id k1
CHECK                                THE APISERVER     FOUND
Status answers                       ok
Encrypt: ciphertext fits             ok                73 bytes
2 checks, all ok
"
    );
    assert!(report.well);
}

#[test]
fn a_fault_says_what_it_means() {
    let mut report = report();
    report.ok(Check::StatusAnswers, "");
    let means = "every object written now is unreadable once an apiserver starts anew with it";
    report.fault(
        Check::RoundTrip,
        Verdict::NotNotice,
        "32 other bytes than those given",
        means,
    );
    report.note("n ".repeat(50));
    assert_eq!(
        shown(&report),
        "\
/run/kms.sock
version v2, key id k1
CHECK                                THE APISERVER     FOUND
Status answers                       ok
Decrypt gives the seed back          would not notice
    found: 32 other bytes than those given
    means: every object written now is unreadable once an apiserver starts anew
           with it
note: n n n n n n n n n n n n n n n n n n n n n n n n n n n n n n n n n n n n n
      n n n n n n n n n n n n n
1 of 2 checks is not ok
"
    );
    assert!(!report.well);
}

#[test]
fn nothing_is_wider_than_a_terminal() {
    let mut report = report();
    report.key_id = "k".repeat(1024);
    for check in ALL {
        assert!(check.title().len() < COLUMNS.0, "{check:?}");
        for verdict in [
            Verdict::Ok,
            Verdict::NotNotice,
            Verdict::Coast,
            Verdict::Refuse,
        ] {
            assert!(verdict.to_string().len() < COLUMNS.1 - COLUMNS.0);
            for length in [1, 24, 25, 26, 69, 70, 200] {
                report.fault(check, verdict, "x".repeat(length), "a word and another one");
            }
        }
    }
    report.note("y".repeat(200));
    for line in shown(&report).lines() {
        assert!(line.chars().count() <= WIDTH, "{line}");
    }
}

const ALL: [Check; 21] = [
    Check::StatusAnswers,
    Check::Healthz,
    Check::Version,
    Check::StatusKeyId,
    Check::StatusStable,
    Check::EncryptAnswers,
    Check::Ciphertext,
    Check::EncryptKeyId,
    Check::Annotations,
    Check::TwoSeeds,
    Check::OneSeedTwice,
    Check::NothingInClear,
    Check::RoundTrip,
    Check::Parallel,
    Check::FlippedBit,
    Check::Truncated,
    Check::UnknownKeyId,
    Check::OtherAnnotations,
    Check::OtherLengths,
    Check::Messages,
    Check::StillWell,
];
