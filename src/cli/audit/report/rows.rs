//! What protects what: the rows of the answer.

use claviger_keystore::key::{KeyId, KeyState};
use serde::Serialize;

use crate::audit::object::Protection;
use crate::audit::scope::{Scope, Verdict};
use crate::audit::tally::{Row, Tally};

/// Longer key ids of other plugins are cut on the screen.
const LONGEST_SHOWN: usize = 48;

/// One resource under one protection.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(in crate::cli::audit) struct RowShown {
    /// The resource; `(outside /registry)` for what is none of this cluster's objects.
    pub(in crate::cli::audit) resource: String,
    pub(in crate::cli::audit) protection: ProtectionShown,
    /// The state of our key.
    #[cfg_attr(test, schemars(schema_with = "crate::cli::schema::key_state_or_null"))]
    pub(in crate::cli::audit) state: Option<KeyState>,
    pub(in crate::cli::audit) current: u64,
    pub(in crate::cli::audit) history: u64,
    /// Snapshot files that have at least one.
    pub(super) snapshots: u64,
    /// Values in all of them.
    pub(in crate::cli::audit) snapshot_values: u64,
    /// Whether a rewrite would protect the current ones otherwise.
    pub(super) stale: bool,
    examples: Vec<String>,
}

/// What protects.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(in crate::cli::audit) struct ProtectionShown {
    /// `plaintext`, `kms:v2`, `aescbc:v1`, …
    pub(in crate::cli::audit) kind: String,
    /// The KMS provider's name.
    pub(in crate::cli::audit) provider: Option<String>,
    /// The key id, or the key's name.
    pub(in crate::cli::audit) key: Option<String>,
    #[serde(skip)]
    pub(super) shown: String,
}

impl RowShown {
    /// Every row that is about something: what is in the clear and should be is not.
    pub(super) fn all(
        tally: &Tally,
        verdicts: &[Verdict],
        prefix: &str,
        scope: &Scope,
    ) -> Vec<Self> {
        let judged = tally.rows().iter().zip(verdicts);
        let mut rows: Vec<Self> = judged
            .filter(|(_, verdict)| **verdict != Verdict::Clear)
            .map(|(row, verdict)| Self::of(row, *verdict == Verdict::Stale, prefix, scope))
            .collect();
        rows.sort_by(|a, b| {
            (&a.resource, &a.protection.shown).cmp(&(&b.resource, &b.protection.shown))
        });
        rows
    }

    fn of(row: &Row, stale: bool, prefix: &str, scope: &Scope) -> Self {
        let resource = row.resource.as_ref();
        let (kind, provider, key) = match &row.protection {
            Protection::Plaintext => ("plaintext", None, None),
            Protection::KmsV2 { provider, key_id } => ("kms:v2", Some(provider), Some(key_id)),
            Protection::Other { scheme, name } if scheme == "kms:v1" => {
                ("kms:v1", Some(name), None)
            }
            Protection::Other { scheme, name } => (scheme.as_str(), None, Some(name)),
        };
        Self {
            resource: resource.map_or(format!("(outside {prefix})"), ToString::to_string),
            protection: ProtectionShown {
                kind: kind.to_owned(),
                provider: provider.cloned(),
                key: key.cloned(),
                shown: shown(&row.protection, scope),
            },
            state: scope.state(&row.protection).map(|(_, state)| state),
            current: row.counts.current,
            history: row.counts.history,
            snapshots: row.counts.snapshots,
            snapshot_values: row.counts.snapshot_values,
            stale,
            examples: row.examples.clone(),
        }
    }
}

/// How each row's protection is shown.
pub(super) fn rows_shown(tally: &Tally, scope: &Scope) -> Vec<String> {
    let rows = tally.rows().iter();
    rows.map(|row| shown(&row.protection, scope)).collect()
}

/// What protects, as a screen has room for it.
pub(super) fn shown(protection: &Protection, scope: &Scope) -> String {
    if let Some((id, state)) = scope.state(protection) {
        return format!("{} {}", id.short(), state.as_str());
    }
    let text = match protection {
        Protection::KmsV2 { provider, key_id } => match key_id.parse::<KeyId>() {
            Ok(id) => format!("{}/{}", provider.escape_debug(), id.short()),
            Err(_) => protection.to_string(),
        },
        _ => protection.to_string(),
    };
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
