//! The alerts under `deploy/prometheus`: promtool finds no fault in them, each fires and recovers in
//! a test, and each leads to a section of the runbook whose commands exist.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/components.rs"]
mod components;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde::Deserialize;

use components::component;

const RULES: &str = include_str!("../deploy/prometheus/claviger.rules.yaml");
const TESTS: [&str; 2] = [
    include_str!("../deploy/prometheus/claviger.rules.test.yaml"),
    include_str!("../deploy/prometheus/claviger.rules.days.test.yaml"),
];
const RUNBOOK: &str = include_str!("../deploy/RUNBOOK.md");
const METRICS: &str = include_str!("../deploy/METRICS.md");

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// An alert, or a recording rule.
#[derive(Deserialize)]
struct Rule {
    alert: Option<String>,
    record: Option<String>,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn rules() -> Vec<Rule> {
    let rules: Rules = serde_saphyr::from_str(RULES).unwrap();
    rules
        .groups
        .into_iter()
        .flat_map(|group| group.rules)
        .collect()
}

/// Every alert by its name.
fn alerts() -> BTreeMap<String, Rule> {
    let alerts: BTreeMap<_, _> = rules()
        .into_iter()
        .filter_map(|rule| Some((rule.alert.clone()?, rule)))
        .collect();
    assert!(!alerts.is_empty());
    alerts
}

/// The words of a text that begin like this and go on as a metric's name.
fn names<'a>(text: &'a str, begin: &str) -> BTreeSet<&'a str> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !of_name(c))
        .filter(|word| word.starts_with(begin) && *word != begin)
        .collect()
}

/// What a page's headings of the second level are linked by.
fn anchors(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect()
}

/// `ClavigerKeyOld` is `claviger-key-old`.
fn anchor_of(alert: &str) -> String {
    let words = alert.char_indices().map(|(at, c)| match c {
        c if at > 0 && c.is_ascii_uppercase() => format!("-{}", c.to_ascii_lowercase()),
        c => c.to_ascii_lowercase().to_string(),
    });
    words.collect()
}

/// Runs promtool, and says what it said if it found a fault.
fn promtool(arguments: &[&str]) {
    let Some(promtool) = component("promtool") else {
        return;
    };
    let output = Command::new(promtool)
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.contains("SUCCESS"),
        "{said}"
    );
}

#[test]
fn promtool_finds_no_fault_in_the_rules() {
    promtool(&["check", "rules", "claviger.rules.yaml"]);
}

#[test]
fn alerts_fire_and_recover_within_minutes() {
    promtool(&["test", "rules", "claviger.rules.test.yaml"]);
}

#[test]
fn alerts_fire_and_recover_within_days() {
    promtool(&["test", "rules", "claviger.rules.days.test.yaml"]);
}

#[test]
fn every_alert_says_how_bad_it_is_and_leads_to_its_section() {
    let (alerts, sections) = (alerts(), anchors(RUNBOOK));
    for (name, alert) in &alerts {
        let severity = alert.labels.get("severity").map(String::as_str);
        assert!(
            matches!(severity, Some("page" | "warning")),
            "{name}: {severity:?}"
        );
        for text in ["summary", "description"] {
            let text = alert.annotations.get(text);
            assert!(text.is_some_and(|text| !text.is_empty()), "{name}");
        }
        let section = anchor_of(name);
        let link = format!("deploy/RUNBOOK.md#{section}");
        assert_eq!(alert.annotations.get("runbook_url"), Some(&link), "{name}");
        assert!(sections.contains(&section), "no section {section}");
    }
    let linked: BTreeSet<_> = alerts.keys().map(|name| anchor_of(name)).collect();
    let of_alerts = sections
        .iter()
        .filter(|anchor| anchor.starts_with("claviger-"));
    assert_eq!(of_alerts.cloned().collect::<BTreeSet<_>>(), linked);
}

#[test]
fn every_link_within_the_runbook_has_its_section() {
    let sections = anchors(RUNBOOK);
    let links: Vec<_> = RUNBOOK
        .split("](#")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .collect();
    assert!(!links.is_empty());
    for (link, _) in links {
        assert!(sections.contains(link), "no section {link}");
    }
}

#[test]
fn every_metric_is_one_that_exists() {
    let exist = names(METRICS, "claviger_");
    let recorded: BTreeSet<_> = rules().into_iter().filter_map(|rule| rule.record).collect();
    let exists = |name: &str| {
        let family = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        exist.contains(name) || family.is_some_and(|family| exist.contains(family))
    };
    for rule in rules() {
        for name in names(&rule.expr, "claviger_") {
            assert!(exists(name), "{name} is not in METRICS.md");
        }
        for name in names(&rule.expr, "claviger:") {
            assert!(recorded.contains(name), "{name} is not recorded");
        }
    }
    for name in names(RUNBOOK, "claviger_") {
        assert!(exists(name), "{name} is not in METRICS.md");
    }
}

#[derive(Deserialize)]
struct TestFile {
    tests: Vec<Scenario>,
}

#[derive(Deserialize)]
struct Scenario {
    alert_rule_test: Vec<Moment>,
}

/// What is expected of an alert at one time; the next moment is later.
#[derive(Deserialize)]
struct Moment {
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<serde_json::Value>,
}

#[test]
fn every_alert_is_shown_silent_then_firing_then_silent_again() {
    let mut shown = BTreeSet::new();
    for file in TESTS {
        let file: TestFile = serde_saphyr::from_str(file).unwrap();
        for scenario in file.tests {
            let moments = &scenario.alert_rule_test;
            for (at, moment) in moments.iter().enumerate() {
                let silent = |others: &[Moment]| {
                    others.iter().any(|other| {
                        other.alertname == moment.alertname && other.exp_alerts.is_empty()
                    })
                };
                let fires = !moment.exp_alerts.is_empty();
                if fires && silent(&moments[..at]) && silent(&moments[at + 1..]) {
                    shown.insert(moment.alertname.clone());
                }
            }
        }
    }
    assert_eq!(shown, alerts().into_keys().collect());
}

/// The program's command lines in a page: in blocks of their own, and within sentences.
fn commands(page: &str) -> BTreeSet<&str> {
    let mut block = false;
    let mut commands = BTreeSet::new();
    for line in page.lines() {
        if line.starts_with("```") {
            block = !block;
        } else if block {
            commands.insert(line);
        } else {
            commands.extend(line.split('`').skip(1).step_by(2));
        }
    }
    commands.retain(|command| command.starts_with("claviger "));
    commands
}

#[test]
fn every_command_of_the_runbook_is_one_that_the_program_has() {
    let commands = commands(RUNBOOK);
    assert!(commands.len() > 20);
    for command in commands {
        let arguments = command.split_whitespace().skip(1);
        // Arguments are read up to --help, which then does nothing else.
        let output = Command::new(env!("CARGO_BIN_EXE_claviger"))
            .args(arguments)
            .arg("--help")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
    }
}
