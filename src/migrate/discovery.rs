//! Which resources kube-apiserver serves, and under which path of the API an object of etcd lies.
//!
//! An object's key says its resource, and of custom resources the group, never the version. Any
//! version will do: kube-apiserver stores in one version whatever it is patched in. The preferred one
//! is taken, as Kubernetes' own storage migrator does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::api::{Api, CallError, NoAnswer};
use crate::audit::object::{Name, Resource};

/// All resources in two pages since Kubernetes 1.27; an older server answers the last form.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// What needs no escape in a segment of a path (RFC 3986, 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The resources of one kube-apiserver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Apis {
    /// By group and plural name, as the version that the group prefers serves it.
    served: BTreeMap<(String, String), Served>,
    /// Groups of which kube-apiserver cannot say now what they serve.
    silent: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Served {
    version: String,
    namespaced: bool,
    patch: bool,
}

/// Why an object cannot be reached through the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPath {
    /// Kube-apiserver keeps it for itself and never encrypts it.
    Internal,
    /// Its key is not like any object's.
    Strange,
    /// No API serves its resource any more.
    Gone(Resource),
    /// The API that serves it does not answer now.
    Silent(Resource),
    /// Several groups serve a resource of this name, and the key does not say which is meant.
    Ambiguous(Resource),
    /// The API serves it, and takes no patches of it.
    NoPatch(Resource),
}

impl fmt::Display for NoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internal => f.write_str("kube-apiserver keeps it for itself, never encrypted"),
            Self::Strange => f.write_str("its key in etcd is not like that of any object"),
            Self::Gone(resource) => write!(
                f,
                "no API serves {resource} any more: serve it again for a while, or delete the key \
                 from etcd"
            ),
            Self::Silent(resource) => {
                write!(f, "the API that serves {resource} does not answer now")
            }
            Self::Ambiguous(resource) => write!(f, "several APIs serve a resource {resource}"),
            Self::NoPatch(resource) => write!(f, "the API takes no patches of {resource}"),
        }
    }
}

impl Apis {
    /// Asks kube-apiserver.
    ///
    /// # Errors
    /// Where it does not answer, or refuses: discovery is allowed to everybody who is authenticated
    /// unless somebody took it away.
    pub async fn discover(api: &Api) -> Result<Self, CallError> {
        let mut apis = Self::default();
        for root in ["/api", "/apis"] {
            let page = api.get(root, AGGREGATED).await?;
            match read(root, &page)? {
                Page::Aggregated(groups) => apis.add_groups(&groups),
                Page::Listed(versions) => {
                    for version in versions {
                        apis.ask_version(api, &version).await?;
                    }
                }
            }
        }
        Ok(apis)
    }

    /// The path of an object.
    ///
    /// # Errors
    /// Where it has none.
    pub fn path(&self, name: &Name<'_>) -> Result<String, NoPath> {
        let stored = Resource::stored_under(name.kind);
        if stored.is_internal() {
            return Err(NoPath::Internal);
        }
        let (group, served) = self.served(&stored)?;
        if !served.patch {
            return Err(NoPath::NoPatch(stored));
        }
        let strange = name.name.is_empty() || name.name.contains('/');
        if strange || served.namespaced != name.namespace.is_some() {
            return Err(NoPath::Strange);
        }
        let mut path = match group {
            "" => format!("/api/{}", served.version),
            group => format!("/apis/{group}/{}", served.version),
        };
        if let Some(namespace) = name.namespace {
            path += &format!("/namespaces/{}", utf8_percent_encode(namespace, SEGMENT));
        }
        path += &format!(
            "/{}/{}",
            stored.name,
            utf8_percent_encode(name.name, SEGMENT)
        );
        Ok(path)
    }

    fn served<'a>(&'a self, stored: &'a Resource) -> Result<(&'a str, &'a Served), NoPath> {
        if let Some(group) = &stored.group {
            let served = self.served.get(&(group.clone(), stored.name.clone()));
            return match served {
                Some(served) => Ok((group, served)),
                None if self.silent.contains(group) => Err(NoPath::Silent(stored.clone())),
                None => Err(NoPath::Gone(stored.clone())),
            };
        }
        // A resource of a Kubernetes that is newer than we are: its own groups end so.
        let mut found = self.served.iter().filter(|((group, name), _)| {
            *name == stored.name && (!group.contains('.') || group.ends_with(".k8s.io"))
        });
        match (found.next(), found.next()) {
            (Some(((group, _), served)), None) => Ok((group, served)),
            (Some(_), Some(_)) => Err(NoPath::Ambiguous(stored.clone())),
            (None, _) => Err(NoPath::Gone(stored.clone())),
        }
    }

    fn add_groups(&mut self, groups: &[Group]) {
        for group in groups {
            let name = &group.metadata.name;
            for version in &group.versions {
                if version.freshness == "Stale" {
                    self.silent.insert(name.clone());
                }
                for resource in &version.resources {
                    let namespaced = resource.scope == "Namespaced";
                    self.add(
                        name,
                        &version.version,
                        &resource.resource,
                        namespaced,
                        &resource.verbs,
                    );
                }
            }
        }
    }

    /// Notes a resource, unless a version that the group prefers serves it too and can be patched.
    fn add(&mut self, group: &str, version: &str, name: &str, namespaced: bool, verbs: &[String]) {
        let served = Served {
            version: version.to_owned(),
            namespaced,
            patch: verbs.iter().any(|verb| verb == "patch"),
        };
        let known = self.served.entry((group.to_owned(), name.to_owned()));
        let known = known.or_insert_with(|| served.clone());
        if !known.patch && served.patch {
            *known = served;
        }
    }

    /// Asks for the resources of one version, as servers before Kubernetes 1.27 want it.
    async fn ask_version(&mut self, api: &Api, version: &Version) -> Result<(), CallError> {
        let path = match version.group.as_str() {
            "" => format!("/api/{}", version.version),
            group => format!("/apis/{group}/{}", version.version),
        };
        let page = match api.get(&path, "application/json").await {
            Ok(page) => page,
            // An aggregated API that is down must not hide the others.
            Err(CallError::Refused(refusal)) if refusal.status >= 500 => {
                self.silent.insert(version.group.clone());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let list: List = parse(&path, &page)?;
        for resource in list
            .resources
            .iter()
            .filter(|resource| !resource.name.contains('/'))
        {
            let (name, namespaced) = (&resource.name, resource.namespaced);
            self.add(
                &version.group,
                &version.version,
                name,
                namespaced,
                &resource.verbs,
            );
        }
        Ok(())
    }
}

/// A group's version.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    group: String,
    version: String,
}

/// A page of discovery, in one of its two forms.
#[derive(Debug)]
enum Page {
    /// Everything at once.
    Aggregated(Vec<Group>),
    /// Versions that are to be asked one by one, the preferred ones of each group first.
    Listed(Vec<Version>),
}

fn read(path: &str, page: &[u8]) -> Result<Page, NoAnswer> {
    let root: Root = parse(path, page)?;
    match root.kind.as_str() {
        "APIGroupDiscoveryList" => Ok(Page::Aggregated(root.items)),
        "APIVersions" => {
            let versions = root.versions.into_iter();
            let versions = versions.map(|version| Version {
                group: String::new(),
                version,
            });
            Ok(Page::Listed(versions.collect()))
        }
        "APIGroupList" => Ok(Page::Listed(
            root.groups.into_iter().flat_map(versions_of).collect(),
        )),
        _ => Err(NoAnswer::Broken(format!("{path} is no page of discovery"))),
    }
}

fn versions_of(group: ListedGroup) -> Vec<Version> {
    let preferred = group.preferred_version.version;
    let others = group.versions.into_iter().map(|version| version.version);
    let others = others.filter(|version| *version != preferred);
    let version = |version| Version {
        group: group.name.clone(),
        version,
    };
    std::iter::once(preferred.clone())
        .chain(others)
        .filter(|version| !version.is_empty())
        .map(version)
        .collect()
}

fn parse<'a, T: Deserialize<'a>>(path: &str, page: &'a [u8]) -> Result<T, NoAnswer> {
    serde_json::from_slice(page)
        .map_err(|error| NoAnswer::Broken(format!("{path} is no page of discovery: {error}")))
}

/// `apidiscovery.k8s.io/v2`, `meta.k8s.io/v1` APIVersions and APIGroupList, as far as we read them.
#[derive(Debug, Deserialize)]
struct Root {
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    groups: Vec<ListedGroup>,
}

#[derive(Debug, Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    /// Absent for the core group.
    #[serde(default)]
    name: String,
}

#[derive(Debug, Deserialize)]
struct GroupVersion {
    version: String,
    #[serde(default)]
    resources: Vec<GroupResource>,
    #[serde(default)]
    freshness: String,
}

#[derive(Debug, Deserialize)]
struct GroupResource {
    resource: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedGroup {
    name: String,
    #[serde(default)]
    versions: Vec<ListedVersion>,
    #[serde(default)]
    preferred_version: ListedVersion,
}

#[derive(Debug, Default, Deserialize)]
struct ListedVersion {
    #[serde(default)]
    version: String,
}

#[derive(Debug, Deserialize)]
struct List {
    #[serde(default)]
    resources: Vec<ListedResource>,
}

#[derive(Debug, Deserialize)]
struct ListedResource {
    name: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

#[cfg(test)]
mod tests;
