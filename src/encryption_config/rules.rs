//! What kube-apiserver validates, in the order of its own code.

use std::collections::BTreeSet;
use std::time::Duration;

use data_encoding::BASE64_MIME_PERMISSIVE;
use zeroize::Zeroizing;

use super::go;
use super::raw::{RawBlock, RawConfiguration, RawKey, RawKeys, RawKms, RawProvider};
use super::{Block, EncryptionConfiguration, Kms, KmsVersion, Provider, ProviderKind, Resource};
use crate::client::{EndpointError, SocketUrl};
use crate::config::Fault;
use crate::config::fault::shown;
use crate::config::fields::{At, Field};
use crate::config::rules::{checked, required};

/// `SetDefaults_KMSConfiguration` of `k8s.io/apiserver`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn configuration(
    top: &At<RawConfiguration>,
    faults: &mut Vec<Fault>,
) -> Option<EncryptionConfiguration> {
    let raw = top.value.as_ref()?;
    for (field, name, wanted) in [
        (&raw.api_version, "apiVersion", "apiserver.config.k8s.io/v1"),
        (&raw.kind, "kind", "EncryptionConfiguration"),
    ] {
        required(field, name, top, faults, |text| match text == wanted {
            true => Ok(()),
            false => Err(format!("must be `{wanted}`")),
        });
    }
    let list = at_least_one(&raw.resources, "resources", top, faults);
    let mut kms_names = BTreeSet::new();
    let blocks: Vec<Block> = list
        .iter()
        .filter_map(|at| block(at, at.value.as_ref()?, &mut kms_names, faults))
        .collect();
    masked(&blocks, faults);
    Some(EncryptionConfiguration { blocks })
}

fn block(
    at: &At<RawBlock>,
    raw: &RawBlock,
    kms_names: &mut BTreeSet<String>,
    faults: &mut Vec<Fault>,
) -> Option<Block> {
    let resources: Vec<Resource> = at_least_one(&raw.resources, "resources", at, faults)
        .iter()
        .filter_map(|name| resource(name, faults))
        .collect();
    overlapping(&resources, at, faults);
    let mut providers = Vec::new();
    for provider_at in at_least_one(&raw.providers, "providers", at, faults) {
        providers.extend(provider(provider_at, kms_names, faults));
    }
    let complete = !resources.is_empty() && !providers.is_empty();
    complete.then_some(Block {
        line: at.line,
        resources,
        providers,
    })
}

/// `validateResourceNames`.
fn resource(at: &At<String>, faults: &mut Vec<Fault>) -> Option<Resource> {
    let text = at.value.as_deref()?;
    let (name, group) = text.split_once('.').unwrap_or((text, ""));
    let refused = if text.to_lowercase() != text {
        "has capital letters; resources are written small and in the plural"
    } else if text == "*" {
        "`*` alone is not known: `*.` is the core group, `*.*` is everything"
    } else if [
        "apiserveripinfo",
        "serviceipallocations",
        "servicenodeportallocations",
    ]
    .contains(&text)
    {
        "has no REST API and cannot be encrypted"
    } else if group == "events.k8s.io" {
        "lies in etcd as `events`; write `events`"
    } else if group == "extensions" {
        "the group `extensions` was removed from Kubernetes"
    } else if group == "*" && name != "*" {
        "one resource across all groups cannot be encrypted"
    } else {
        return Some(Resource {
            line: at.line,
            name: name.to_owned(),
            group: group.to_owned(),
        });
    };
    faults.push(at.fault(format!("resource `{}`: {refused}", shown(text))));
    None
}

/// `validateResourceOverlap`: within one list, nothing twice and nothing beside its own wildcard.
fn overlapping(resources: &[Resource], at: &At<RawBlock>, faults: &mut Vec<Fault>) {
    for (index, one) in resources.iter().enumerate() {
        for other in &resources[index + 1..] {
            let same = (&one.name, &one.group) == (&other.name, &other.group);
            let everything = |r: &Resource| r.name == "*" && r.group == "*";
            let wildcard = one.group == other.group && (one.name == "*" || other.name == "*");
            let fault = if same {
                format!("resource `{other}` stands in this list twice")
            } else if wildcard || everything(one) || everything(other) {
                format!(
                    "`{one}` and `{other}` overlap; kube-apiserver wants them in lists of their own"
                )
            } else {
                continue;
            };
            faults.push(Fault::new(other.line, at.column, fault));
        }
    }
}

/// `getTransformerOverridesAndKMSPluginProbes`: nothing below a wildcard that covers it.
fn masked(blocks: &[Block], faults: &mut Vec<Fault>) {
    for (index, block) in blocks.iter().enumerate() {
        for resource in &block.resources {
            let earlier = blocks[..index].iter().flat_map(|block| &block.resources);
            let covers = |wildcard: &&Resource| {
                wildcard.name == "*" && (wildcard.group == "*" || wildcard.group == resource.group)
            };
            if let Some(wildcard) = earlier.into_iter().find(covers) {
                let message = format!(
                    "resource `{resource}` is masked by `{wildcard}` on line {}; put this block first",
                    wildcard.line
                );
                faults.push(Fault::new(resource.line, 1, message));
            }
        }
    }
}

/// `validateSingleProvider`, and what its kind asks for.
fn provider(
    at: &At<RawProvider>,
    kms_names: &mut BTreeSet<String>,
    faults: &mut Vec<Fault>,
) -> Option<Provider> {
    let raw = at.value.as_ref()?;
    let given = [
        raw.aesgcm.is_some(),
        raw.aescbc.is_some(),
        raw.secretbox.is_some(),
        raw.identity.is_some(),
        raw.kms.is_some(),
    ];
    match given.iter().filter(|given| **given).count() {
        1 => {}
        0 => {
            faults.push(at.fault(
                "no provider here: one of kms, identity, aescbc, aesgcm, secretbox, with its fields; \
                 `identity: {}` needs the braces",
            ));
            return None;
        }
        _ => {
            faults.push(at.fault("more than one provider in one element; give each its own `-`"));
            return None;
        }
    }
    let kind = if let Some(keys_at) = &raw.aesgcm {
        keys(keys_at, &[16, 24, 32], faults);
        ProviderKind::AesGcm
    } else if let Some(keys_at) = &raw.aescbc {
        keys(keys_at, &[16, 24, 32], faults);
        ProviderKind::AesCbc
    } else if let Some(keys_at) = &raw.secretbox {
        keys(keys_at, &[32], faults);
        ProviderKind::Secretbox
    } else if let Some(kms_at) = &raw.kms {
        ProviderKind::Kms(kms(kms_at, kms_names, faults)?)
    } else {
        ProviderKind::Identity
    };
    Some(Provider {
        line: at.line,
        kind,
    })
}

/// `validateKeys`.
fn keys(at: &At<RawKeys>, lengths: &[usize], faults: &mut Vec<Fault>) {
    let Some(raw) = &at.value else { return };
    for key_at in at_least_one(&raw.keys, "keys", at, faults) {
        let Some(key) = &key_at.value else { continue };
        let RawKey { name, secret } = key;
        required(name, "name", key_at, faults, |text| not_empty(text));
        required(secret, "secret", key_at, faults, |text| {
            let bytes = BASE64_MIME_PERMISSIVE
                .decode(text.as_bytes())
                .map(Zeroizing::new)
                .map_err(|_| "must be base64".to_owned())?;
            if lengths.contains(&bytes.len()) {
                Ok(())
            } else {
                Err(format!(
                    "has {} bytes; {lengths:?} are possible",
                    bytes.len()
                ))
            }
        });
    }
}

/// `validateKMSConfiguration`. Names are held to be unique as under automatic reload.
fn kms(at: &At<RawKms>, names: &mut BTreeSet<String>, faults: &mut Vec<Fault>) -> Option<Kms> {
    let raw = at.value.as_ref()?;
    let version = checked(&raw.api_version, faults, |text| match &**text {
        // Absent is v1: kube-apiserver's default, and a trap.
        "" | "v1" => Ok(KmsVersion::V1),
        "v2" => Ok(KmsVersion::V2),
        _ => Err("must be v2 (or v1, which is deprecated)".to_owned()),
    });
    let version = version.unwrap_or(KmsVersion::V1);
    let name = required(&raw.name, "name", at, faults, |text| {
        not_empty(text)?;
        if version == KmsVersion::V2 && text.contains(':') {
            return Err("a v2 provider's name has no `:`".to_owned());
        }
        if !names.contains(text) {
            Ok(text.clone())
        } else {
            Err(format!("two kms providers have the name `{}`", shown(text)))
        }
    });
    names.extend(name.clone());
    let endpoint: Option<SocketUrl> = required(&raw.endpoint, "endpoint", at, faults, |text| {
        not_empty(text)?;
        text.parse().map_err(|e: EndpointError| e.to_string())
    });
    let timeout = checked(&raw.timeout, faults, |text| {
        go::duration(text)
            .filter(|timeout| !timeout.is_zero())
            .ok_or_else(|| "must be a duration above zero, such as 3s".to_owned())
    });
    checked(&raw.cache_size, faults, |size| match (version, size) {
        (KmsVersion::V2, _) => Err("cachesize is not supported in v2".to_owned()),
        (KmsVersion::V1, 0) => Err("must not be 0; a negative one turns the cache off".to_owned()),
        (KmsVersion::V1, _) => Ok(()),
    });
    Some(Kms {
        version,
        name: name?,
        endpoint: endpoint?,
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
    })
}

fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(())
    }
}

/// The elements of a list, whose absence is a fault.
fn at_least_one<'a, T, P>(
    list: &'a Field<Vec<At<T>>>,
    name: &str,
    parent: &At<P>,
    faults: &mut Vec<Fault>,
) -> &'a [At<T>] {
    let elements = required(list, name, parent, faults, |elements| {
        if elements.is_empty() {
            Err(format!("at least one of `{name}` is required"))
        } else {
            Ok(elements.as_slice())
        }
    });
    elements.unwrap_or_default()
}
