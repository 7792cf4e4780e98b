//! What stands in `deploy/grafana/claviger.json`, without a cluster.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::components::component;

const DASHBOARD: &str = include_str!("../../deploy/grafana/claviger.json");

/// What Grafana puts in place of a variable: all of cluster, job and node, or one.
pub(crate) struct Choice<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) job: &'a str,
    pub(crate) node: &'a str,
}

impl Choice<'_> {
    pub(crate) const ALL: Choice<'static> = Choice {
        cluster: ".*",
        job: ".*",
        node: ".*",
    };

    /// A query as Grafana sends it.
    pub(crate) fn in_place(&self, query: &str) -> String {
        let query = query
            .replace("$cluster", self.cluster)
            .replace("$job", self.job)
            .replace("$node", self.node)
            // So long that nothing of a test falls out of it.
            .replace("$__rate_interval", "30m");
        assert!(!query.contains('$'), "an unknown variable: {query}");
        query
    }
}

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

fn texts(values: &Value, find: impl Fn(&Value) -> Option<&str>) -> Vec<String> {
    let values = values.as_array().unwrap();
    let texts: Vec<_> = values.iter().filter_map(find).map(str::to_owned).collect();
    assert!(!texts.is_empty());
    texts
}

/// Panels, without the headings of rows.
fn panels() -> Vec<Value> {
    let mut dashboard = dashboard();
    let Value::Array(mut panels) = dashboard["panels"].take() else {
        panic!("no panels");
    };
    panels.retain(|panel| panel["type"] != "row");
    assert!(panels.len() >= 10, "row by row of the specification");
    panels
}

/// Every panel's queries.
pub(crate) fn queries() -> Vec<String> {
    let of = |panel: Value| texts(&panel["targets"], |target| target["expr"].as_str());
    panels().into_iter().flat_map(of).collect()
}

/// The first query of the panel with this title.
pub(crate) fn query_of(title: &str) -> String {
    let panel = panels().into_iter().find(|panel| panel["title"] == title);
    let panel = panel.unwrap_or_else(|| panic!("no panel {title}"));
    panel["targets"][0]["expr"].as_str().unwrap().to_owned()
}

/// Metric and label of each choice that is made of a label's values.
pub(crate) fn choices() -> Vec<(String, String)> {
    let variables = &dashboard()["templating"]["list"];
    let of_labels = |variable: &Value| -> Option<(String, String)> {
        let query = variable["query"].as_str()?.strip_prefix("label_values(")?;
        let (metric, label) = query.strip_suffix(')')?.rsplit_once(", ")?;
        Some((metric.to_owned(), label.to_owned()))
    };
    let choices = variables.as_array().unwrap().iter().filter_map(of_labels);
    choices.collect()
}

#[test]
fn the_generator_makes_what_is_checked_in() {
    let Some(python) = component("python") else {
        return;
    };
    let generator = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/dashboard.py");
    // -B: no caches beside the program.
    let mut python = Command::new(python);
    let made = python.arg("-B").arg(generator).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    assert!(
        made.stdout == DASHBOARD.as_bytes(),
        "deploy/grafana/claviger.json is not what dashboard.py prints; its first lines say how to make it"
    );
}

#[test]
fn every_metric_of_ours_is_on_the_page_of_metrics() {
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = words.filter(|word| word.starts_with("claviger_"));
        ours.map(|name| name.trim_end_matches("_bucket").to_owned())
            .collect()
    };
    let page = names(include_str!("../../deploy/METRICS.md"));
    let shown = names(&queries().concat());
    assert!(shown.len() > 10, "{shown:?}");
    let unknown: Vec<_> = shown.difference(&page).collect();
    assert!(unknown.is_empty(), "not in deploy/METRICS.md: {unknown:?}");
}

#[test]
fn every_panel_says_what_it_shows_and_links_to_the_runbook() {
    let runbook = include_str!("../../deploy/RUNBOOK.md").lines();
    let headings = runbook.filter_map(|line| line.strip_prefix("## "));
    let sections: BTreeSet<_> = headings
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels() {
        let title = panel["title"].as_str().unwrap().to_owned();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        assert!(
            panel["description"].as_str().unwrap().ends_with('.'),
            "{title}"
        );
        let url = panel["links"][0]["url"].as_str().unwrap();
        let anchor = url.strip_prefix("${runbook:raw}#").unwrap();
        assert!(sections.contains(anchor), "{title}: no section {anchor}");
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(defaults["thresholds"]["steps"].is_array(), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(titles.insert(title.clone()), "twice: {title}");
    }
}
