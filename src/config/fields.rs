//! Reads structs from a tree and goes on after a fault, so that all faults are known at once.
//!
//! A raw struct is a plain `#[derive(Deserialize)]` whose fields are all [`Field`]s. Unknown and
//! repeated keys, and values of the wrong type, are noted with their place; what can be read is.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::fault::{Fault, nearest, shown};
use super::refusal::Refusal;
use super::yaml::{Key, Node, Value};

/// A field that may be absent; an empty one (`key:` and nothing) counts as absent.
pub(crate) type Field<T> = Option<At<T>>;

/// A value and its place. `value` is none where the value had a fault, which is noted.
pub(crate) struct At<T> {
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) value: Option<T>,
}

impl<T> At<T> {
    /// A fault at this value's place.
    pub(crate) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.line, self.column, message)
    }
}

/// In a schema, a value's place is not seen.
#[cfg(test)]
impl<T: schemars::JsonSchema> schemars::JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

/// Reads a struct from a tree, with every fault that was found on the way.
pub(crate) fn read<T: DeserializeOwned>(node: &Node) -> (At<T>, Vec<Fault>) {
    let faults = RefCell::new(Vec::new());
    let value = T::deserialize(Reader {
        node,
        faults: &faults,
    })
    .ok();
    (
        At {
            line: node.line,
            column: node.column,
            value,
        },
        faults.into_inner(),
    )
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    faults: &'a RefCell<Vec<Fault>>,
}

impl<'a> Reader<'a> {
    /// Notes an error at this value, unless an inner value has done so.
    fn note<T>(self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        result.map_err(|refusal| {
            if let Refusal::Because(message) = refusal {
                self.fault(self.node.line, self.node.column, message);
            }
            Refusal::Noted
        })
    }

    fn fault(self, line: u64, column: u64, message: String) {
        self.faults
            .borrow_mut()
            .push(Fault::new(line, column, message));
    }

    /// The entries that a struct knows; all others, and repeated ones, are faults.
    fn known(
        self,
        entries: &'a [(Key, Node)],
        fields: &'static [&'static str],
    ) -> Vec<(&'a str, Self)> {
        let mut known: Vec<(&str, Self)> = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let name = key.name.as_str();
            if !fields.contains(&name) {
                self.fault(key.line, key.column, unknown(name, fields));
            } else if known.iter().any(|(earlier, _)| *earlier == name) {
                self.fault(key.line, key.column, format!("`{name}` stands here twice"));
            } else {
                known.push((name, Self { node, ..self }));
            }
        }
        known
    }
}

fn unknown(name: &str, fields: &[&str]) -> String {
    let name_shown = shown(name);
    match nearest(name, fields) {
        Some(meant) => format!("unknown field `{name_shown}`; did you mean `{meant}`?"),
        None if fields.is_empty() => format!("unknown field `{name_shown}`; none is known here"),
        None => format!(
            "unknown field `{name_shown}`; known are {}",
            fields.join(", ")
        ),
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let read = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(*value),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_borrowed_str(value),
            Value::List(nodes) => visitor.visit_seq(SeqDeserializer::new(
                nodes.iter().map(|node| Self { node, ..self }),
            )),
            Value::Map(entries) => visitor.visit_map(MapDeserializer::new(
                entries
                    .iter()
                    .map(|(key, node)| (key.name.as_str(), Self { node, ..self })),
            )),
        };
        self.note(read)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let Value::Map(entries) = &self.node.value else {
            let found = kind_of(&self.node.value);
            return self.note(Err(Refusal::Because(format!(
                "expected fields, found {found}"
            ))));
        };
        let known = self.known(entries, fields);
        self.note(visitor.visit_map(MapDeserializer::new(known.into_iter())))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        if name == AT {
            visitor.visit_seq(Place {
                reader: self,
                next: 0,
            })
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Refusal> for Reader<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The name by which [`At`] asks [`Reader`] for a value's place.
const AT: &str = "$claviger::At";

/// Hands [`At`] its line, its column and its value, in this order.
struct Place<'a> {
    reader: Reader<'a>,
    next: u8,
}

impl<'de> SeqAccess<'de> for Place<'de> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refusal> {
        self.next += 1;
        match self.next {
            1 => seed
                .deserialize(self.reader.node.line.into_deserializer())
                .map(Some),
            2 => seed
                .deserialize(self.reader.node.column.into_deserializer())
                .map(Some),
            3 => seed.deserialize(self.reader).map(Some),
            _ => Ok(None),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(AT, AtVisitor(PhantomData))
    }
}

struct AtVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtVisitor<T> {
    type Value = At<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with its place")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut place: A) -> Result<At<T>, A::Error> {
        let line = place.next_element()?.unwrap_or_default();
        let column = place.next_element()?.unwrap_or_default();
        let value = place.next_element_seed(Tolerant(PhantomData))?.flatten();
        Ok(At {
            line,
            column,
            value,
        })
    }
}

/// Reads a value, or nothing where the reader refused it and noted why.
struct Tolerant<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Tolerant<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        Ok(T::deserialize(deserializer).ok())
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "fields",
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::yaml;
    use super::*;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outer {
        inner: Field<Inner>,
        many: Field<Vec<At<u32>>>,
        some_text: Field<String>,
    }

    #[derive(Deserialize)]
    struct Inner {
        flag: Field<bool>,
    }

    fn read_text(text: &str) -> (Option<Outer>, Vec<String>) {
        let tree = yaml::parse(text).unwrap();
        let (outer, faults) = read::<Outer>(&tree);
        (
            outer.value,
            faults.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn good_values_know_their_place() {
        let (outer, faults) = read_text("someText: hi\nmany: [7, 8]\ninner: {flag: true}\n");
        assert!(faults.is_empty(), "{faults:?}");
        let outer = outer.unwrap();
        let text = outer.some_text.unwrap();
        assert_eq!(
            (text.line, text.column, text.value.as_deref()),
            (1, 11, Some("hi"))
        );
        let many = outer.many.unwrap().value.unwrap();
        assert_eq!(
            (many[1].line, many[1].column, many[1].value),
            (2, 11, Some(8))
        );
        assert_eq!(
            outer.inner.unwrap().value.unwrap().flag.unwrap().value,
            Some(true)
        );
    }

    #[test]
    fn every_fault_is_noted_once_and_the_rest_is_read() {
        let (outer, faults) = read_text(
            "someTxt: hi\nsomeText: 12\nmany: [7, x, -1]\ninner: {flag: 3, colour: red}\nmany: []\n",
        );
        assert_eq!(
            faults,
            [
                "line 1, column 1: unknown field `someTxt`; did you mean `someText`?",
                "line 5, column 1: `many` stands here twice",
                "line 2, column 11: expected text, found a number; put it in quotes",
                "line 3, column 11: expected a whole number from 0 to 4294967295, found text",
                "line 3, column 14: out of range for a whole number from 0 to 4294967295",
                "line 4, column 18: unknown field `colour`; known are flag",
                "line 4, column 15: expected true or false, found a number",
            ]
        );
        assert_eq!(
            outer.unwrap().many.unwrap().value.unwrap()[0].value,
            Some(7)
        );
    }

    #[test]
    fn a_wrong_shape_is_one_fault() {
        for (text, fault) in [
            ("[1]", "line 1, column 1: expected fields, found a list"),
            (
                "inner: 5",
                "line 1, column 8: expected fields, found a number",
            ),
            (
                "many: {a: 1}",
                "line 1, column 7: expected a list, found fields",
            ),
            (
                "someText: [a]",
                "line 1, column 11: expected text, found a list",
            ),
        ] {
            assert_eq!(read_text(text).1, [fault]);
        }
    }

    #[test]
    fn nothing_counts_as_absent() {
        let (outer, faults) = read_text("someText:\nmany: ~\ninner:\n");
        assert!(faults.is_empty(), "{faults:?}");
        let outer = outer.unwrap();
        assert!(outer.some_text.is_none() && outer.many.is_none() && outer.inner.is_none());
    }

    #[test]
    fn a_value_is_never_repeated() {
        let (_, faults) = read_text("inner: hunter2\nmany: hunter2\n");
        assert_eq!(faults.len(), 2);
        assert!(!faults.concat().contains("hunter2"), "{faults:?}");
    }
}
