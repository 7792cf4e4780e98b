//! The schema of every answer. A new answer derives `JsonSchema` in tests and gets a line in
//! [`ANSWERS`].

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use claviger_keystore::key::KeyState;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use super::output::{API_VERSION, Answer, Versioned};
use crate::config::rules;
use crate::schema::{assert_checked_in, dir, file};

/// Every answer, by its kind.
const ANSWERS: &[fn() -> (&'static str, Schema)] = &[
    answer::<super::audit::report::Report>,
    answer::<super::backup::BackedUp>,
    answer::<super::backup::Verified>,
    answer::<super::check::report::Report>,
    answer::<super::init::Initialized>,
    answer::<crate::probe::report::Report>,
    answer::<super::probe::Change<'static>>,
    answer::<super::key::KeyChanged>,
    answer::<super::key::KeyShown>,
    answer::<super::key::Keys>,
    answer::<super::member::Members>,
    answer::<super::migrate::Migration>,
    answer::<super::policy::PolicyAnswer>,
    answer::<super::restore::Restored>,
    answer::<super::rotate::Rotated>,
    answer::<super::slot::Slots>,
    answer::<super::slot::change::SlotsChanged>,
    answer::<super::slot::Tested>,
    answer::<super::status::Status>,
];

/// A key's state, which the keystore writes.
pub(super) fn key_state(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": KeyState::ALL})
}

/// The state of a key, where it is one of ours.
pub(super) fn key_state_or_null(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [key_state(generator), {"type": "null"}]})
}

fn answer<A: Answer + JsonSchema + 'static>() -> (&'static str, Schema) {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let generator = || settings.clone().into_generator();
    let own = generator().into_root_schema_for::<A>();
    let mut schema = generator().into_root_schema_for::<Versioned<'static, A>>();
    schema.insert("title".to_owned(), json!(A::KIND));
    schema.insert("description".to_owned(), json!(own.get("description")));
    for (field, value) in [("apiVersion", API_VERSION), ("kind", A::KIND)] {
        let pointer = format!("/properties/{field}");
        // A document with two fields of one name is read as anybody likes.
        assert_eq!(own.pointer(&pointer), None, "{} has its own", A::KIND);
        schema.pointer_mut(&pointer).unwrap()["const"] = json!(value);
    }
    (A::KIND, schema)
}

#[test]
fn every_answer_has_its_schema_checked_in() {
    let mut listed = BTreeSet::new();
    for answer in ANSWERS {
        let (kind, schema) = answer();
        assert_checked_in(kind, &schema);
        listed.insert(kind.to_owned());
    }
    let mut written = BTreeSet::new();
    kinds_in(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli")),
        &mut written,
    );
    assert_eq!(written, listed, "ANSWERS of src/cli/schema.rs");

    let files: BTreeSet<_> = fs::read_dir(dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    let known = listed.iter().map(String::as_str);
    let known = known.chain([rules::KIND]).map(file).collect();
    assert_eq!(files, known, "the files of deploy/schema");
}

/// Every `KIND` that a file under this folder gives an answer.
fn kinds_in(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            kinds_in(&path, found);
        } else {
            let text = fs::read_to_string(path).unwrap();
            let after = text.split("const KIND: &'static str = \"").skip(1);
            found.extend(after.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
}
