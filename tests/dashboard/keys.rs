//! What the panels of row 1 show of a rotation in which one kube-apiserver stays behind: promtool
//! plays the series, since a healthy one does not.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::components::component;
use crate::model::{Choice, query_of};

/// Apiserver `a` is told the new key from 5:15 on, `b` never is.
fn series() -> Value {
    let status = |apiserver: &str, hash: &str, values: &str| {
        let name = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds";
        let labels = format!("cluster=\"prod\",instance=\"{apiserver}\",key_id_hash=\"{hash}\"");
        json!({"series": format!("{name}{{{labels}}}"), "values": values})
    };
    let key = |hash: &str, state: &str, values: &str| {
        let labels = format!(
            "cluster=\"prod\",instance=\"p\",key_id=\"k-{hash}\",key_id_hash=\"{hash}\",state=\"{state}\""
        );
        json!({"series": format!("claviger_key_info{{{labels}}}"), "values": values})
    };
    json!([
        key("old", "primary", "1x20 stale"),
        key("old", "retired", "_x21 1x40"),
        key("new", "staged", "1x20 stale"),
        key("new", "primary", "_x21 1x40"),
        status("a", "old", "0+15x20 300x40"),
        status("a", "new", "_x21 315+15x40"),
        status("b", "old", "0+15x60"),
    ])
}

/// Apiserver, key, and seconds since it was told the key.
type Writable<'a> = [(&'a str, &'a str, u32)];

fn expected(minutes: u32, writable: &Writable<'_>, behind: u32) -> [Value; 2] {
    let sample = |(apiserver, key, seconds): &(&str, &str, u32)| {
        let labels = format!(
            "{{cluster=\"prod\",instance=\"{apiserver}\",key_id=\"k-{key}\",key_id_hash=\"{key}\"}}"
        );
        json!({"labels": labels, "value": seconds})
    };
    let expected = |title: &str, samples: Vec<Value>| {
        json!({
            "expr": Choice::ALL.in_place(&query_of(title)),
            "eval_time": format!("{minutes}m"),
            "exp_samples": samples,
        })
    };
    [
        expected(
            "Keys that kube-apiserver may write with",
            writable.iter().map(sample).collect(),
        ),
        expected(
            "kube-apiservers on an old key",
            vec![json!({"labels": "{}", "value": behind})],
        ),
    ]
}

#[test]
fn an_apiserver_that_stays_on_the_old_key_is_seen() {
    let Some(promtool) = component("promtool") else {
        return;
    };
    let before = expected(4, &[("a", "old", 0), ("b", "old", 0)], 0);
    // The new key's date says nothing yet: `a` may write with the old one for its write lease.
    let during = expected(7, &[("a", "old", 120), ("a", "new", 0), ("b", "old", 0)], 2);
    let after = expected(10, &[("a", "new", 0), ("b", "old", 0)], 1);
    let at_each = [before, during, after].concat();
    let test = json!({
        "evaluation_interval": "15s",
        "tests": [{
            "interval": "15s",
            "input_series": series(),
            "promql_expr_test": at_each,
        }],
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.json");
    fs::write(&file, test.to_string()).unwrap();
    let mut promtool = Command::new(promtool);
    promtool.args(["test", "rules"]).arg(&file);
    let played = promtool.output().unwrap();
    assert!(played.status.success(), "{played:?}");
}
