use super::*;

fn report() -> Report {
    let mut report = Report::new("/run/kms.sock".to_owned());
    report.version = "v2".to_owned();
    report.key_id = "k1".to_owned();
    report
}

#[test]
fn json_has_stable_words() {
    let mut report = report();
    report.ok(Check::StatusAnswers, "");
    report.fault(Check::RoundTrip, Verdict::NotNotice, "found", "means");
    report.latency_us.status = Some(300);
    let json = serde_json::to_value(&report).unwrap();
    let wanted = serde_json::json!({
        "socket": "/run/kms.sock",
        "keyId": "k1",
        "version": "v2",
        "well": false,
        "lines": [
            {"check": "status-answers", "verdict": "ok"},
            {"check": "round-trip", "verdict": "not-notice", "found": "found", "means": "means"},
        ],
        "notes": [],
        "latencyUs": {"status": 300, "encrypt": null, "decrypt": null},
    });
    assert_eq!(json, wanted);
}

#[test]
fn a_plugin_cannot_draw_on_the_terminal() {
    assert_eq!(printable("it's \"ok\" \\ é"), "it's \"ok\" \\ é");
    assert_eq!(
        printable("\u{1b}[31mred\n\u{202e}abc\u{7}"),
        "\\u{1b}[31mred\\n\\u{202e}abc\\u{7}"
    );
    assert_eq!(printable(&"x".repeat(240)), "x".repeat(240));
    assert_eq!(printable(&"x".repeat(241)), "x".repeat(240) + "…");
}
