//! `deploy/METRICS.md` and `/metrics` say the same, both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use claviger::metrics::names;

use crate::support::{Served, get};

/// Type, label names and help of each metric.
type Metrics = BTreeMap<String, (String, BTreeSet<String>, String)>;
/// The values of each metric's labels.
type Values = BTreeMap<(String, String), BTreeSet<String>>;

/// Labels whose values come from the keyring, the configuration and the build.
const OPEN: [&str; 4] = ["key_id", "key_id_hash", "root", "version"];

fn set<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    words.into_iter().map(str::to_owned).collect()
}

/// The words in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn page() -> (Metrics, Values) {
    let page = include_str!("../../deploy/METRICS.md");
    let (mut metrics, mut values) = (Metrics::new(), Values::new());
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        match cells[..] {
            [name, kind, labels, help] => {
                let name = quoted(name).next().unwrap().to_owned();
                let is = (kind.to_owned(), set(quoted(labels)), help.to_owned());
                assert_eq!(metrics.insert(name, is), None, "twice: {row}");
            }
            [names, label, list] => {
                for name in quoted(names) {
                    let of = (name.to_owned(), quoted(label).next().unwrap().to_owned());
                    assert_eq!(values.insert(of, set(quoted(list))), None, "twice: {row}");
                }
            }
            _ => panic!("a row of neither table: {row}"),
        }
    }
    (metrics, values)
}

/// What the text format says. A histogram's samples belong to the family before them.
fn scraped(text: &str) -> (Metrics, Values) {
    let (mut metrics, mut values) = (Metrics::new(), Values::new());
    let mut help = "";
    let mut family = "";
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            (family, help) = said.split_once(' ').unwrap();
        } else if let Some(said) = line.strip_prefix("# TYPE ") {
            let (name, kind) = said.split_once(' ').unwrap();
            assert_eq!(name, family, "a type without its help");
            let is = (kind.to_owned(), BTreeSet::new(), help.to_owned());
            assert_eq!(metrics.insert(name.to_owned(), is), None, "twice: {name}");
        } else {
            let (series, _) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(family), "{series} stands under {family}");
            let labels = series.split_once('{').map_or("", |(_, labels)| labels);
            for label in labels
                .trim_end_matches('}')
                .split(',')
                .filter(|label| !label.is_empty())
            {
                let (name, value) = label.split_once('=').unwrap();
                if name != "le" {
                    metrics.get_mut(family).unwrap().1.insert(name.to_owned());
                    let of = (family.to_owned(), name.to_owned());
                    let value = value.trim_matches('"').to_owned();
                    values.entry(of).or_default().insert(value);
                }
            }
        }
    }
    (metrics, values)
}

fn assert_same<K: Ord + Debug, V: PartialEq + Debug>(code: &BTreeMap<K, V>, page: &BTreeMap<K, V>) {
    let names: BTreeSet<_> = code.keys().chain(page.keys()).collect();
    assert!(!names.is_empty());
    for name in names {
        let (code, page) = (code.get(name), page.get(name));
        assert_eq!(
            code, page,
            "{name:?}: the code (left) and deploy/METRICS.md (right)"
        );
    }
}

#[test]
fn the_page_has_every_metric_and_no_other() {
    let served = Served::plain();
    let (scraped, _) = scraped(&get(served.address, "/metrics").body);
    let (page, _) = page();
    assert_same(&scraped, &page);

    let declared = names::ALL.iter().map(|family| {
        let kind = names::kind_word(family.kind).to_owned();
        let labels = set(family.labels.iter().copied());
        (
            family.name.to_owned(),
            (kind, labels, family.help.to_owned()),
        )
    });
    assert_eq!(
        declared.collect::<Metrics>(),
        page,
        "left: names.rs, right: deploy/METRICS.md"
    );
}

#[test]
fn the_page_has_every_value_of_every_closed_label() {
    let served = Served::plain();
    let (_, mut scraped) = scraped(&get(served.address, "/metrics").body);
    let (_, page) = page();
    scraped.retain(|(_, label), _| !OPEN.contains(&label.as_str()));

    // Keys exist only in the states that they have.
    let of_keys = ("claviger_key_info".to_owned(), "state".to_owned());
    let states = scraped.get_mut(&of_keys).unwrap();
    assert!(
        states.is_subset(&page[&of_keys]) && states.len() == 2,
        "{states:?}"
    );
    *states = set(claviger_keystore::key::KeyState::ALL.map(|state| state.as_str()));

    assert_same(&scraped, &page);
}
