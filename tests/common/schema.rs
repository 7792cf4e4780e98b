//! Holds JSON against a schema of `deploy/schema`, more strictly than the schema says: a field that
//! it does not name is a fault too. It knows what those schemas use, and fails on anything else.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// What is wrong with a document, by the schema of its `kind`; empty if nothing is.
pub(crate) fn faults(document: &Value) -> Vec<String> {
    let kind = document["kind"].as_str().unwrap_or_default();
    let mut name = String::new();
    for char in kind.chars() {
        if char.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(char.to_ascii_lowercase());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("deploy/schema/{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let root = serde_json::from_str(&text).unwrap();
    let mut check = Check {
        root: &root,
        faults: Vec::new(),
    };
    check.value(&root, document, kind);
    check.faults
}

struct Check<'a> {
    root: &'a Value,
    faults: Vec<String>,
}

impl<'a> Check<'a> {
    fn value(&mut self, schema: &'a Value, value: &Value, at: &str) {
        let Some(keywords) = schema.as_object() else {
            return assert_eq!(schema, &Value::Bool(true), "the schema of {at}");
        };
        for (keyword, wanted) in keywords {
            let fits = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "default" | "examples" => true,
                "type" => is_of(wanted, value),
                "const" => value == wanted,
                "enum" => list(wanted).contains(value),
                "format" => has_format(wanted, value),
                "minimum" => value.as_i64().is_none_or(|n| Some(n) >= wanted.as_i64()),
                "minItems" => value.as_array().is_none_or(|items| {
                    Some(items.len()) >= wanted.as_u64().map(|least| least as usize)
                }),
                "oneOf" => self.fitting(wanted, value) == 1,
                "anyOf" => self.fitting(wanted, value) > 0,
                "required" => value.as_object().is_none_or(|object| {
                    let mut names = list(wanted).iter().map(|name| name.as_str().unwrap());
                    names.all(|name| object.contains_key(name))
                }),
                _ => {
                    self.inside(keyword, wanted, value, at);
                    true
                }
            };
            if !fits {
                let fault = format!("{at}: {value} breaks {keyword} {wanted}");
                self.faults.push(fault);
            }
        }
        if let Some(properties) = keywords.get("properties") {
            self.properties(properties, keywords.get("additionalProperties"), value, at);
        }
    }

    /// The keywords that say something of what is inside.
    fn inside(&mut self, keyword: &str, wanted: &'a Value, value: &Value, at: &str) {
        match keyword {
            "$ref" => {
                let pointer = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                self.value(self.root.pointer(pointer).unwrap(), value, at);
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.value(wanted, item, &format!("{at}[{index}]"));
                }
            }
            "properties" | "additionalProperties" => {}
            unknown => panic!("the schema of {at} has {unknown}, which this test does not know"),
        }
    }

    fn properties(&mut self, named: &'a Value, others: Option<&'a Value>, value: &Value, at: &str) {
        let others = others.filter(|schema| schema.is_object());
        for (name, value) in value.as_object().into_iter().flatten() {
            match named.get(name).or(others) {
                Some(schema) => self.value(schema, value, &format!("{at}.{name}")),
                None => self.faults.push(format!("{at}: {name} is unknown")),
            }
        }
    }

    fn fitting(&self, choices: &'a Value, value: &Value) -> usize {
        let fits = |choice: &&'a Value| {
            let mut check = Check {
                root: self.root,
                faults: Vec::new(),
            };
            check.value(choice, value, "a choice");
            check.faults.is_empty()
        };
        list(choices).iter().filter(fits).count()
    }
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn is_of(types: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("no type {unknown}"),
    };
    match types {
        Value::Array(types) => types.iter().any(is),
        one => is(one),
    }
}

fn has_format(format: &Value, value: &Value) -> bool {
    match format.as_str().unwrap() {
        "date-time" => value
            .as_str()
            .is_none_or(|text| text.parse::<jiff::Timestamp>().is_ok()),
        "uint64" | "uint" => value.as_i64().is_none_or(|number| number >= 0),
        "uint32" => value
            .as_i64()
            .is_none_or(|number| u32::try_from(number).is_ok()),
        "double" => true,
        unknown => panic!("no format {unknown}"),
    }
}
