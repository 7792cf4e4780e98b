//! Every object of `--list`, as the ledger has it.

use std::io;

use serde::ser::{Error as _, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::audit::ledger::{Entry, Ledger};
use crate::audit::object::Name;

/// Objects that are read from the ledger while they are written.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) ledger: Ledger,
    pub(super) prefix: String,
    /// For each row of the tally, whether its objects are listed, and what protects them.
    pub(super) listed: Vec<bool>,
    pub(super) names: Vec<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    pub(super) object: String,
    pub(super) protected_by: String,
    resource_version: i64,
}

impl Listing {
    pub(super) fn objects(&self) -> io::Result<impl Iterator<Item = io::Result<Listed>> + '_> {
        let entries = self.ledger.entries()?;
        Ok(entries.filter_map(|entry| entry.map(|entry| self.listed(&entry)).transpose()))
    }

    fn listed(&self, entry: &Entry) -> Option<Listed> {
        let row = entry.row? as usize;
        let wanted = *self.listed.get(row)?;
        wanted.then(|| Listed {
            object: match Name::parse(&entry.key, &self.prefix) {
                Some(name) => name.to_string(),
                None => entry.key.escape_ascii().to_string(),
            },
            protected_by: self.names.get(row).cloned().unwrap_or_default(),
            resource_version: entry.state.modified,
        })
    }
}

impl Serialize for Listing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for object in self.objects().map_err(S::Error::custom)? {
            list.serialize_element(&object.map_err(S::Error::custom)?)?;
        }
        list.end()
    }
}
