//! The rules for storage and roots, each of exactly one kind.

use std::collections::BTreeSet;

use super::fault::Fault;
use super::fields::{At, Field};
use super::raw::{RawConfig, RawKeyFile, RawRoot};
use super::rules::{checked, name, path, required};
use super::{RootConfig, RootKindConfig, StorageConfig};

/// The name of the slot that `init` makes for the recovery key.
const RECOVERY_SLOT: &str = "recovery";

pub(super) fn storage(
    raw: &RawConfig,
    top: &At<RawConfig>,
    faults: &mut Vec<Fault>,
) -> Option<StorageConfig> {
    let Some(storage) = &raw.storage else {
        faults.push(top.fault("`storage` is missing; the simplest is {file: {path: …}}"));
        return None;
    };
    let kinds = storage.value.as_ref()?;
    if let Some(etcd) = &kinds.etcd {
        faults.push(etcd.fault("storage `etcd` is not in this version; use `file`"));
        return None;
    }
    let Some(file) = &kinds.file else {
        faults.push(storage.fault("one kind of storage is needed: `file`"));
        return None;
    };
    let fields = file.value.as_ref()?;
    checked(&fields.replica, faults, |replica| match replica {
        true => Err("a replica comes with many nodes, which are not in this version".to_owned()),
        false => Ok(()),
    });
    let path = required(&fields.path, "path", file, faults, |text| path(text))?;
    Some(StorageConfig::File { path })
}

pub(super) fn roots(
    raw: &RawConfig,
    top: &At<RawConfig>,
    faults: &mut Vec<Fault>,
) -> Vec<RootConfig> {
    let list = required(&raw.roots, "roots", top, faults, |list| {
        if list.is_empty() {
            Err("at least one root is needed".to_owned())
        } else {
            Ok(list)
        }
    });
    let mut names = BTreeSet::new();
    let mut roots = Vec::new();
    for root in list.into_iter().flatten() {
        let Some(fields) = &root.value else { continue };
        let kind = kind(root, fields, faults);
        let Some(name) = required(&fields.name, "name", root, faults, |text| name(text)) else {
            continue;
        };
        if name == RECOVERY_SLOT && !matches!(kind, None | Some(RootKindConfig::Recovery { .. })) {
            faults.push(
                root.fault("`recovery` is the name of the recovery key's slot; choose another"),
            );
        }
        if !names.insert(name.clone()) {
            faults.push(root.fault(format!(
                "two roots have the name `{name}`; names match slots"
            )));
        }
        roots.extend(kind.map(|kind| RootConfig { name, kind }));
    }
    roots
}

/// The root's one kind.
fn kind(root: &At<RawRoot>, fields: &RawRoot, faults: &mut Vec<Fault>) -> Option<RootKindConfig> {
    let later = [
        ("vault", place(&fields.vault)),
        ("pkcs11", place(&fields.pkcs11)),
        ("awsKMS", place(&fields.aws_kms)),
        ("azureKeyVault", place(&fields.azure_key_vault)),
        ("gcpKMS", place(&fields.gcp_kms)),
        ("passphrase", place(&fields.passphrase)),
    ];
    let settings = [
        ("maxStaleness", place(&fields.max_staleness)),
        ("onDenied", place(&fields.on_denied)),
        ("wipeAfter", place(&fields.wipe_after)),
    ];
    for (name, place) in later.iter().chain(&settings) {
        if let Some((line, column)) = place {
            faults.push(Fault::new(
                *line,
                *column,
                format!("`{name}` is not in this version"),
            ));
        }
    }
    let now = [place(&fields.key_file), place(&fields.recovery)];
    let later = later.map(|(_, place)| place);
    let mut kinds: Vec<Place> = now.into_iter().chain(later).flatten().collect();
    kinds.sort_unstable();
    match kinds[..] {
        [] => faults.push(root.fault("a root needs a kind: `keyFile` or `recovery`")),
        [_, (line, column), ..] => {
            faults.push(Fault::new(
                line,
                column,
                "a root is of one kind; this is a second one",
            ));
        }
        [_] => {}
    }
    match (&fields.key_file, &fields.recovery) {
        (Some(key_file), _) => key_file_kind(key_file, faults),
        (None, Some(recovery)) => {
            let fields = recovery.value.as_ref()?;
            let file = required(&fields.file, "file", recovery, faults, |text| path(text))?;
            Some(RootKindConfig::Recovery { file })
        }
        (None, None) => None,
    }
}

fn key_file_kind(at: &At<RawKeyFile>, faults: &mut Vec<Fault>) -> Option<RootKindConfig> {
    let fields = at.value.as_ref()?;
    let file = checked(&fields.path, faults, |text| path(text));
    let credential = checked(&fields.credential, faults, |text| name(text));
    match (&fields.path, &fields.credential) {
        (Some(_), Some(second)) => {
            faults.push(second.fault("`path` or `credential`, not both"));
            None
        }
        (None, None) => {
            faults.push(at.fault("`path` or `credential` is needed"));
            None
        }
        _ => file
            .map(|path| RootKindConfig::KeyFile { path })
            .or(credential.map(|name| RootKindConfig::Credential { name })),
    }
}

/// Line and column.
type Place = (u64, u64);

fn place<T>(field: &Field<T>) -> Option<Place> {
    field.as_ref().map(|at| (at.line, at.column))
}
