//! Fields of a kubeconfig's tree, read as kubectl reads them: what it does not know is not looked
//! at, since clouds add to kubeconfigs, and what is empty is absent.
//!
//! No fault repeats a value: any of them may be a key or a token.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use serde_json::Value as Json;

use crate::config::Fault;
use crate::config::yaml::{Key, Node, Value};

/// The fields of one mapping.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    /// Those of this node; nothing at all has none.
    pub(super) fn of(node: &'a Node) -> Result<Self, Fault> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            _ => return Err(fault(node, "fields of a kubeconfig are expected here")),
        };
        let mut names = BTreeSet::new();
        let twice = entries.iter().find(|(key, _)| !names.insert(&*key.name));
        match twice {
            Some((key, _)) => Err(Fault::new(
                key.line,
                key.column,
                "this field stands here twice",
            )),
            None => Ok(Self { entries }),
        }
    }

    /// A field's value, unless it is absent or empty.
    pub(super) fn node(&self, name: &str) -> Option<&'a Node> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        match &node.value {
            Value::Null => None,
            Value::Text(text) if text.is_empty() => None,
            _ => Some(node),
        }
    }

    /// Text.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Fault> {
        self.node(name).map(|node| text(node, name)).transpose()
    }

    /// Bytes in base64.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        let Some(node) = self.node(name) else {
            return Ok(None);
        };
        // Lines may be folded, as base64(1) folds them.
        let mut text = text(node, name)?;
        text.retain(|c| !c.is_ascii_whitespace());
        match BASE64.decode(text.as_bytes()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => Err(fault(node, format!("{name} is not base64"))),
        }
    }

    /// Yes or no; no where it is absent.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Fault> {
        match self.node(name) {
            None => Ok(false),
            Some(node) => match node.value {
                Value::Bool(flag) => Ok(flag),
                _ => Err(fault(node, format!("{name} must be true or false"))),
            },
        }
    }

    /// A list; an empty one where it is absent.
    pub(super) fn list(&self, name: &str) -> Result<&'a [Node], Fault> {
        match self.node(name) {
            None => Ok(&[]),
            Some(node) => match &node.value {
                Value::List(list) => Ok(list),
                _ => Err(fault(node, format!("{name} must be a list"))),
            },
        }
    }

    /// A list of text.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Fault> {
        let list = self.list(name)?.iter();
        list.map(|node| text(node, name)).collect()
    }

    /// The fields of a mapping in this one.
    pub(super) fn inner(&self, name: &str) -> Result<Option<Self>, Fault> {
        self.node(name).map(Self::of).transpose()
    }

    /// A mapping of names that a person chose to lists of text.
    pub(super) fn lists(&self, name: &str) -> Result<Vec<(String, Vec<String>)>, Fault> {
        let Some(inner) = self.inner(name)? else {
            return Ok(Vec::new());
        };
        let entries = inner.entries.iter();
        let named = entries.map(|(key, _)| Ok((key.name.clone(), inner.texts(&key.name)?)));
        named.collect()
    }
}

/// A fault at a node's place.
pub(super) fn fault(node: &Node, message: impl Into<String>) -> Fault {
    Fault::new(node.line, node.column, message)
}

fn text(node: &Node, name: &str) -> Result<String, Fault> {
    match &node.value {
        Value::Text(text) => Ok(text.clone()),
        _ => Err(fault(
            node,
            format!("{name} must be text; put it in quotes"),
        )),
    }
}

/// A tree as JSON, for what a kubeconfig hands to a credential program as it is.
pub(super) fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::from(*flag),
        Value::Integer(number) => i64::try_from(*number).map_or(Json::Null, Json::from),
        Value::Float(number) => Json::from(*number),
        Value::Text(text) => Json::from(text.as_str()),
        Value::List(list) => list.iter().map(json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, node)| (key.name.clone(), json(node)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    #[test]
    fn values_are_read_and_what_is_empty_is_absent() {
        let tree =
            yaml::parse("a: x\nb: ''\nc:\nd: true\ne: [p, q]\nf: |\n  AQ\n  ID\ng: {h: [i]}");
        let tree = tree.unwrap();
        let fields = Fields::of(&tree).unwrap();
        assert_eq!(fields.text("a").unwrap().as_deref(), Some("x"));
        for absent in ["b", "c", "nowhere"] {
            assert_eq!(fields.text(absent), Ok(None), "{absent}");
            assert_eq!(fields.flag(absent), Ok(false), "{absent}");
        }
        assert_eq!(fields.flag("d"), Ok(true));
        assert_eq!(fields.texts("e").unwrap(), ["p", "q"]);
        assert_eq!(fields.bytes("f").unwrap(), Some(vec![1, 2, 3]));
        let lists = fields.lists("g").unwrap();
        assert_eq!(lists, [("h".to_owned(), vec!["i".to_owned()])]);
    }

    #[test]
    fn a_fault_has_a_place_and_repeats_no_value() {
        let tree = yaml::parse("a: 17\nb: [\"*17*\"]\nc:  no base 17 64\nd: 'true 17'").unwrap();
        let fields = Fields::of(&tree).unwrap();
        for (fault, place) in [
            (fields.text("a").err(), "line 1, column 4: "),
            (fields.bytes("b").err(), "line 2, column 4: "),
            (fields.bytes("c").err(), "line 3, column 5: "),
            (fields.flag("d").err(), "line 4, column 4: "),
            (fields.list("a").err(), "line 1, column 4: "),
            (fields.inner("b").err(), "line 2, column 4: "),
        ] {
            let fault = fault.unwrap().to_string();
            assert!(fault.starts_with(place), "{fault}");
            assert!(!fault.contains("17"), "{fault}");
        }
        let twice = yaml::parse("a: 1\na: 2").unwrap();
        assert_eq!(Fields::of(&twice).err().unwrap().line, 2);
    }

    #[test]
    fn a_tree_becomes_json() {
        let tree = yaml::parse("a: [1, 2.5, true, null, x]\nb: {c: d}").unwrap();
        let expected = serde_json::json!({"a": [1, 2.5, true, null, "x"], "b": {"c": "d"}});
        assert_eq!(json(&tree), expected);
    }
}
