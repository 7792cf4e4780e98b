//! YAML as a tree in which every value knows its place.
//!
//! `serde-saphyr` ends at the first value of a wrong type. A tree first, and the structs from the
//! tree, lets every fault of a file be found at once.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{MessageFormatter, Spanned, UserMessageFormatter};

use super::fault::Fault;

/// A value and where it stands, line and column from 1.
pub(crate) struct Node {
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) value: Value,
}

/// What YAML's core schema makes of a value. It has no `Debug`: it may hold a key.
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys may repeat; that is a fault for the reader to note.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key and where it stands.
pub(crate) struct Key {
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) name: String,
}

/// How deep lists and fields may nest; nothing that we read has more than eight levels. Each level
/// costs stack, in the parser and here.
const MAX_DEPTH: usize = 16;

/// How many values a file may have, those that aliases repeat included.
const MAX_NODES: usize = 20_000;

/// Reads the one document of `text`.
pub(crate) fn parse(text: &str) -> Result<Node, Fault> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
    };
    serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options)
        .map(Node::from)
        .map_err(|error| {
            // The error's own text would show the lines around it, and they may hold a key.
            let message = UserMessageFormatter.format_message(&error);
            // The parser's own messages end with the place that a fault has anyway.
            let message = message.split(" at line ").next().unwrap_or_default();
            let place = error.location();
            let (line, column) = place.map_or((1, 1), |place| (place.line(), place.column()));
            Fault::new(line, column, message)
        })
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        let place = spanned.referenced;
        Self {
            line: place.line(),
            column: place.column(),
            value: spanned.value,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Value>>()? {
            nodes.push(item.into());
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<Value>>()? {
            let Value::Text(name) = key.value else {
                return Err(A::Error::custom("a field's name must be text"));
            };
            let place = key.referenced;
            let key = Key {
                line: place.line(),
                column: place.column(),
                name,
            };
            entries.push((key, map.next_value::<Spanned<Value>>()?.into()));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(node: &Node) -> &[(Key, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            _ => panic!("not a mapping"),
        }
    }

    #[test]
    fn places_of_keys_and_values_at_every_depth() {
        let tree = parse("a: 1\nb:\n  - x\n  - {c: \"é\", d: [true]}\n").unwrap();
        let top = map(&tree);
        assert_eq!((tree.line, tree.column), (1, 1));
        assert_eq!((top[1].0.line, top[1].0.column), (2, 1));
        let Value::List(list) = &top[1].1.value else {
            panic!("not a list")
        };
        assert_eq!((list[0].line, list[0].column), (3, 5));
        let inner = map(&list[1]);
        assert_eq!((inner[0].0.line, inner[0].0.column), (4, 6));
        assert_eq!((inner[0].1.line, inner[0].1.column), (4, 9));
        assert_eq!((inner[1].1.line, inner[1].1.column), (4, 17));
    }

    #[test]
    fn repeated_keys_reach_the_reader() {
        assert_eq!(map(&parse("a: 1\na: 2\n").unwrap()).len(), 2);
    }

    #[test]
    fn an_alias_stands_where_it_is_used() {
        let tree = parse("a: &x 1\nb: *x\n").unwrap();
        assert_eq!((map(&tree)[1].1.line, map(&tree)[1].1.column), (2, 4));
    }

    #[test]
    fn syntax_faults_have_a_place_and_repeat_no_line_of_the_file() {
        let fault = parse("a: secret-in-the-file\nb: [1, 2\nc: 3\n")
            .err()
            .unwrap();
        assert!(fault.line >= 2, "{fault}");
        assert!(!fault.message.contains("secret-in-the-file"), "{fault}");
        assert!(
            !fault.message.contains('\n') && !fault.message.contains("line"),
            "{fault}"
        );
    }

    #[test]
    fn bombs_and_second_documents_are_refused() {
        assert!(parse(&"[".repeat(60_000)).is_err());
        assert!(parse(&"- ".repeat(30_000)).is_err());
        assert!(parse("a: 1\n---\nb: 2\n").is_err());
        assert!(parse(&"- x\n".repeat(MAX_NODES - 1)).is_ok());
        assert!(parse(&"- x\n".repeat(MAX_NODES)).is_err());
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for depth in 1..7 {
            let aliases = vec![format!("*a{}", depth - 1); 10].join(", ");
            bomb += &format!("a{depth}: &a{depth} [{aliases}]\n");
        }
        assert!(parse(&bomb).is_err());
    }

    #[test]
    fn nothing_at_all_is_null() {
        assert!(matches!(parse("").unwrap().value, Value::Null));
    }
}
