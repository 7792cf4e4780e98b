//! What stands in kubeconfigs: clusters, users, and contexts that join them.
//!
//! Source: `k8s.io/client-go/tools/clientcmd`, `api/v1/types.go` and `loader.go`, and the page
//! "Organizing Cluster Access Using kubeconfig Files" of Kubernetes' documentation.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::exec::Exec;
use super::fields::{Fields, fault, json};
use super::{Error, unusable};
use crate::config::{Fault, yaml};

/// One kubeconfig, or several merged.
#[derive(Default)]
pub(super) struct File {
    pub(super) current_context: Option<String>,
    clusters: BTreeMap<String, ClusterEntry>,
    users: BTreeMap<String, User>,
    contexts: BTreeMap<String, Context>,
}

struct Context {
    cluster: String,
    user: Option<String>,
}

/// A cluster: where it is, and how it is recognised.
#[derive(Default)]
pub(super) struct ClusterEntry {
    pub(super) server: Option<String>,
    pub(super) authority: Option<Pem>,
    /// Nobody is recognised; whoever answers is the cluster.
    pub(super) insecure: bool,
    /// The name that its certificate has, where it is not the server's.
    pub(super) server_name: Option<String>,
    pub(super) has_proxy: bool,
    /// What it hands to a credential program; null where nothing.
    pub(super) exec_config: Json,
}

/// A user: how we prove who we are. It has no `Debug`, as it holds secrets.
#[derive(Default)]
pub(super) struct User {
    pub(super) certificate: Option<Pem>,
    pub(super) key: Option<Pem>,
    pub(super) token: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) exec: Option<Exec>,
    /// The name of a way in that kubectl knows no more since 1.26.
    pub(super) auth_provider: Option<String>,
    pub(super) impersonated: Impersonated,
}

/// Whom we act as.
#[derive(Default)]
pub(super) struct Impersonated {
    pub(super) user: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) groups: Vec<String>,
    pub(super) extra: Vec<(String, Vec<String>)>,
}

/// A certificate or key, in the file or beside it.
pub(super) enum Pem {
    Data(Vec<u8>),
    File(PathBuf),
}

impl Pem {
    /// `NAME-data`, else the file that `NAME` names.
    fn of(fields: &Fields<'_>, name: &str, dir: &Path) -> Result<Option<Self>, Fault> {
        if let Some(data) = fields.bytes(&format!("{name}-data"))? {
            return Ok(Some(Self::Data(data)));
        }
        let file = fields.text(name)?;
        Ok(file.map(|file| Self::File(dir.join(file))))
    }

    /// Its text.
    pub(super) fn read(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Data(data) => Ok(data.clone()),
            Self::File(path) => fs::read(path).map_err(|error| Error::read(path, error)),
        }
    }
}

impl File {
    /// Reads one. Relative paths in it are relative to `dir`.
    pub(super) fn parse(text: &str, dir: &Path) -> Result<Self, Fault> {
        let tree = yaml::parse(text)?;
        let top = Fields::of(&tree)
            .map_err(|fault| Fault::new(fault.line, fault.column, "this is no kubeconfig"))?;
        if let Some(kind) = top.node("kind")
            && top.text("kind")?.as_deref() != Some("Config")
        {
            return Err(fault(kind, "this is no kubeconfig: its kind is not Config"));
        }
        Ok(Self {
            current_context: top.text("current-context")?,
            clusters: named(&top, "clusters", "cluster", |inner| cluster(inner, dir))?,
            users: named(&top, "users", "user", |inner| user(inner, dir))?,
            contexts: named(&top, "contexts", "context", context)?,
        })
    }

    /// Adds what only the next one says: of two entries of a name, the first counts, as a whole.
    pub(super) fn merge(&mut self, next: Self) {
        self.current_context = self.current_context.take().or(next.current_context);
        add(&mut self.clusters, next.clusters);
        add(&mut self.users, next.users);
        add(&mut self.contexts, next.contexts);
    }

    /// The cluster and the user of the current context.
    pub(super) fn current(mut self) -> Result<(ClusterEntry, User), Error> {
        let Some(name) = self.current_context else {
            return unusable("it has no current-context: kubectl config use-context sets it");
        };
        let Some(context) = self.contexts.remove(&name) else {
            return missing(&format!("its current-context {}", shown(&name)), "contexts");
        };
        let of = |what: &str, missed: &str| {
            format!(
                "the {what} {} of its context {}",
                shown(missed),
                shown(&name)
            )
        };
        let Some(cluster) = self.clusters.remove(&context.cluster) else {
            return missing(&of("cluster", &context.cluster), "clusters");
        };
        let user = match &context.user {
            None => User::default(),
            Some(user) => match self.users.remove(user) {
                Some(user) => user,
                None => return missing(&of("user", user), "users"),
            },
        };
        Ok((cluster, user))
    }
}

fn missing<T>(what: &str, list: &str) -> Result<T, Error> {
    Err(Error::Unusable(format!("{what} is not among its {list}")))
}

/// A name, as a terminal may show it.
pub(super) fn shown(name: &str) -> String {
    format!("`{}`", name.escape_debug())
}

fn add<T>(ours: &mut BTreeMap<String, T>, theirs: BTreeMap<String, T>) {
    for (name, entry) in theirs {
        ours.entry(name).or_insert(entry);
    }
}

/// A list of `name` and one more field.
fn named<'a, T>(
    top: &Fields<'a>,
    list: &str,
    field: &str,
    read: impl Fn(&Fields<'a>) -> Result<T, Fault>,
) -> Result<BTreeMap<String, T>, Fault> {
    let mut found = BTreeMap::new();
    for node in top.list(list)? {
        let entry = Fields::of(node)?;
        let Some(name) = entry.text("name")? else {
            return Err(fault(node, format!("this entry of {list} has no name")));
        };
        let inner = match entry.node(field) {
            Some(inner) => Fields::of(inner)?,
            None => return Err(fault(node, format!("this entry of {list} has no {field}"))),
        };
        if found.insert(name, read(&inner)?).is_some() {
            return Err(fault(node, format!("two entries of {list} have this name")));
        }
    }
    Ok(found)
}

fn context(fields: &Fields<'_>) -> Result<Context, Fault> {
    Ok(Context {
        cluster: fields.text("cluster")?.unwrap_or_default(),
        user: fields.text("user")?,
    })
}

/// The name under which a cluster keeps what it hands to credential programs.
const EXEC_EXTENSION: &str = "client.authentication.k8s.io/exec";

fn cluster(fields: &Fields<'_>, dir: &Path) -> Result<ClusterEntry, Fault> {
    let mut exec_config = Json::Null;
    for node in fields.list("extensions")? {
        let extension = Fields::of(node)?;
        if extension.text("name")?.as_deref() == Some(EXEC_EXTENSION) {
            exec_config = extension.node("extension").map_or(Json::Null, json);
        }
    }
    Ok(ClusterEntry {
        server: fields.text("server")?,
        authority: Pem::of(fields, "certificate-authority", dir)?,
        insecure: fields.flag("insecure-skip-tls-verify")?,
        server_name: fields.text("tls-server-name")?,
        has_proxy: fields.node("proxy-url").is_some(),
        exec_config,
    })
}

fn user(fields: &Fields<'_>, dir: &Path) -> Result<User, Fault> {
    let auth_provider = match fields.inner("auth-provider")? {
        Some(provider) => Some(provider.text("name")?.unwrap_or_default()),
        None => None,
    };
    let exec = fields.inner("exec")?;
    Ok(User {
        certificate: Pem::of(fields, "client-certificate", dir)?,
        key: Pem::of(fields, "client-key", dir)?,
        token: fields.text("token")?,
        token_file: fields.text("tokenFile")?.map(|file| dir.join(file)),
        username: fields.text("username")?,
        password: fields.text("password")?,
        exec: exec.map(|exec| Exec::parse(&exec, dir)).transpose()?,
        auth_provider,
        impersonated: Impersonated {
            user: fields.text("as")?,
            uid: fields.text("as-uid")?,
            groups: fields.texts("as-groups")?,
            extra: fields.lists("as-user-extra")?,
        },
    })
}
