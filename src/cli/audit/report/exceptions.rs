//! Values of which nobody knows what they need, or that do not open; and how many opened.

use claviger_keystore::key::KeyId;
use serde::Serialize;

use crate::audit::object::Protection;
use crate::audit::tally::{Counts, Exception, Place, Row, Tally};
use crate::audit::verify::Unopened;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct Exceptions {
    pub(super) count: u64,
    /// The first of them: at most a hundred of each kind.
    pub(super) first: Vec<ExceptionShown>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct ExceptionShown {
    pub(super) object: String,
    pub(super) history: bool,
    pub(super) snapshot: Option<String>,
    pub(super) reason: String,
}

/// What `--verify` opened: values whose seed opens under their key, and whose data authenticates
/// under that seed at their key in etcd.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct VerifiedShown {
    /// Current ones.
    pub(super) current: u64,
    /// Old ones in etcd.
    pub(super) history: u64,
    /// Those of all snapshot files together.
    pub(super) snapshot_values: u64,
    /// Values of our keys that do not open; they are among the exceptions.
    pub(super) failed: u64,
    /// Values that other providers protect, or our keys outside of Kubernetes' prefix: nobody tried.
    pub(super) others: u64,
    /// Objects in the clear, of which there is nothing to authenticate.
    pub(super) plaintext: u64,
}

impl Exceptions {
    pub(super) fn of(tally: &Tally) -> Self {
        let verified = tally.verified();
        let unopened = verified.map_or(&[][..], |verified| &verified.first);
        let exceptions = tally.exceptions().iter().map(ExceptionShown::of_header);
        Self {
            count: tally.exception_count() + verified.map_or(0, |verified| verified.failed),
            first: exceptions
                .chain(unopened.iter().map(ExceptionShown::of_value))
                .collect(),
        }
    }
}

impl ExceptionShown {
    fn of_header(exception: &Exception) -> Self {
        Self {
            object: exception.object.clone(),
            history: exception.place == Place::History,
            snapshot: exception.snapshot.clone(),
            reason: exception.reason.to_string(),
        }
    }

    fn of_value(unopened: &Unopened) -> Self {
        Self {
            object: unopened.object.clone(),
            history: unopened.place == Place::History,
            snapshot: unopened.snapshot.clone(),
            reason: unopened.reason.clone(),
        }
    }
}

impl VerifiedShown {
    pub(super) fn of(tally: &Tally) -> Option<Self> {
        let verified = tally.verified()?;
        let values = |wanted: &dyn Fn(&Row) -> bool| -> u64 {
            let rows = tally.rows().iter().filter(|row| wanted(row));
            rows.map(|row| all(&row.counts)).sum()
        };
        let plain = |row: &Row| row.protection == Protection::Plaintext;
        Some(Self {
            current: verified.current,
            history: verified.history,
            snapshot_values: verified.snapshots,
            failed: verified.failed,
            others: values(&|row| !plain(row) && !is_ours(row)),
            plaintext: values(&plain),
        })
    }

    /// How many opened.
    pub(super) fn opened(&self) -> u64 {
        self.current + self.history + self.snapshot_values
    }
}

fn all(counts: &Counts) -> u64 {
    counts.current + counts.history + counts.snapshot_values
}

/// Whether the row's values are opened to verify them.
fn is_ours(row: &Row) -> bool {
    match &row.protection {
        Protection::KmsV2 { key_id, .. } => {
            row.resource.is_some() && key_id.parse::<KeyId>().is_ok()
        }
        _ => false,
    }
}
