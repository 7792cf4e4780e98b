//! From what people wrote to what the process uses: defaults, and the rules beyond types.
//!
//! A rule takes a text and answers with the checked value or one sentence. A value that breaks its
//! rule is noted and stands in as absent, so that the rest is checked too.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use super::fault::{Fault, nearest, shown};
use super::fields::{At, Field};
use super::raw::{RawConfig, RawEtcd, RawKubernetes, RawLog, RawMetrics, RawServer};
use super::{
    Config, EtcdConfig, KubernetesConfig, LogConfig, LogFormat, LogLevel, MetricsConfig,
    ServerConfig, SocketAddress, StatusVersion, TlsConfig, roots,
};

pub(super) const API_VERSION: &str = "claviger.io/v1alpha1";
pub(crate) const KIND: &str = "ClavigerConfiguration";

/// The checked configuration; what it is worth if `faults` is not empty is undefined.
pub(super) fn config(top: &At<RawConfig>, faults: &mut Vec<Fault>) -> Option<Config> {
    let raw = top.value.as_ref()?;
    required(&raw.api_version, "apiVersion", top, faults, |text| {
        exactly(text, API_VERSION)
    });
    required(&raw.kind, "kind", top, faults, |text| exactly(text, KIND));
    let storage = roots::storage(raw, top, faults);
    let config = Config {
        member: checked(&raw.member, faults, |text| name(text)),
        server: server(&raw.server, faults),
        roots: roots::roots(raw, top, faults),
        kubernetes: inner(&raw.kubernetes)
            .map(|raw| kubernetes(raw, faults))
            .unwrap_or_default(),
        metrics: inner(&raw.metrics)
            .map(|raw| metrics(raw, faults))
            .unwrap_or_default(),
        log: inner(&raw.log)
            .map(|raw| log(raw, faults))
            .unwrap_or_default(),
        storage: storage?,
    };
    Some(config)
}

fn server(field: &Field<RawServer>, faults: &mut Vec<Fault>) -> ServerConfig {
    let absent = RawServer::default();
    let raw = inner(field).unwrap_or(&absent);
    let socket = checked(&raw.socket, faults, |text| socket(text)).unwrap_or_default();
    if matches!(socket, SocketAddress::Abstract(_)) {
        for field in [&raw.mode, &raw.group].into_iter().flatten() {
            faults.push(
                field.fault("an abstract socket has no mode and no group; allowUIDs guards it"),
            );
        }
    }
    ServerConfig {
        socket,
        mode: checked(&raw.mode, faults, |text| mode(text)).unwrap_or(0o600),
        group: checked(&raw.group, faults, |text| name(text)),
        allow_uids: allow_uids(&raw.allow_uids, faults),
        status_version: checked(&raw.status_version, faults, |text| {
            one_of(
                text,
                &[
                    ("v2", StatusVersion::V2),
                    ("v2beta1", StatusVersion::V2Beta1),
                ],
            )
        })
        .unwrap_or(StatusVersion::V2),
    }
}

fn allow_uids(field: &Field<Vec<At<u32>>>, faults: &mut Vec<Fault>) -> Vec<u32> {
    let Some(list) = field else { return vec![0] };
    let Some(uids) = &list.value else {
        return Vec::new();
    };
    if uids.is_empty() {
        faults.push(list.fault("nobody could connect; kube-apiserver is usually uid 0: [0]"));
    }
    for uid in uids {
        if matches!(uid.value, Some(65_534 | u32::MAX)) {
            // user_namespaces(7): whoever has no uid in our namespace is shown as this one.
            faults.push(
                uid.fault("this uid stands for users that are unknown here; allow a real one"),
            );
        }
    }
    uids.iter().filter_map(|uid| uid.value).collect()
}

fn kubernetes(raw: &RawKubernetes, faults: &mut Vec<Fault>) -> KubernetesConfig {
    KubernetesConfig {
        apiserver_manifest: checked(&raw.apiserver_manifest, faults, |text| path(text)),
        kubeconfig: checked(&raw.kubeconfig, faults, |text| path(text)),
        encryption_config: checked(&raw.encryption_config, faults, |text| path(text)),
        etcd: raw.etcd.as_ref().and_then(|field| etcd(field, faults)),
    }
}

fn etcd(field: &At<RawEtcd>, faults: &mut Vec<Fault>) -> Option<EtcdConfig> {
    let raw = field.value.as_ref()?;
    let endpoints = required(&raw.endpoints, "endpoints", field, faults, |list| {
        if list.is_empty() {
            Err("at least one end point is needed".to_owned())
        } else {
            Ok(list)
        }
    });
    let endpoints = endpoints.into_iter().flatten();
    let endpoints = endpoints
        .filter_map(|at| rule(at, faults, |text| end_point(text)))
        .collect();
    Some(EtcdConfig {
        endpoints,
        ca_file: checked(&raw.ca_file, faults, |text| path(text)),
        client: certificate(field, &raw.cert_file, &raw.key_file, faults),
        prefix: checked(&raw.prefix, faults, |text| prefix(text))
            .unwrap_or_else(|| "/registry".to_owned()),
    })
}

fn metrics(raw: &RawMetrics, faults: &mut Vec<Fault>) -> MetricsConfig {
    let listen = checked(&raw.listen, faults, |text| address(text));
    let tls = raw.tls.as_ref().and_then(|field| {
        let tls = field.value.as_ref()?;
        if tls.cert_file.is_none() && tls.key_file.is_none() {
            faults.push(field.fault("`certFile` and `keyFile` are missing"));
        }
        certificate(field, &tls.cert_file, &tls.key_file, faults)
    });
    MetricsConfig {
        listen: listen.unwrap_or(MetricsConfig::default().listen),
        tls,
    }
}

fn log(raw: &RawLog, faults: &mut Vec<Fault>) -> LogConfig {
    let default = LogConfig::default();
    let format = checked(&raw.format, faults, |text| {
        one_of(
            text,
            &[("json", LogFormat::Json), ("text", LogFormat::Text)],
        )
    });
    let level = checked(&raw.level, faults, |text| {
        let levels = [
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ];
        one_of(text, &levels)
    });
    LogConfig {
        format: format.unwrap_or(default.format),
        level: level.unwrap_or(default.level),
    }
}

/// A certificate and its key, which belong together.
fn certificate<P>(
    parent: &At<P>,
    cert_file: &Field<String>,
    key_file: &Field<String>,
    faults: &mut Vec<Fault>,
) -> Option<TlsConfig> {
    match (cert_file, key_file) {
        (Some(_), None) => faults.push(parent.fault("`certFile` needs `keyFile` beside it")),
        (None, Some(_)) => faults.push(parent.fault("`keyFile` needs `certFile` beside it")),
        _ => {}
    }
    let cert_file = checked(cert_file, faults, |text| path(text));
    let key_file = checked(key_file, faults, |text| path(text));
    Some(TlsConfig {
        cert_file: cert_file?,
        key_file: key_file?,
    })
}

/// The value of a field with fields of its own.
fn inner<T>(field: &Field<T>) -> Option<&T> {
    field.as_ref()?.value.as_ref()
}

/// Holds an optional field to its rule.
pub(crate) fn checked<'a, T, U>(
    field: &'a Field<T>,
    faults: &mut Vec<Fault>,
    holds: impl Fn(&'a T) -> Result<U, String>,
) -> Option<U> {
    rule(field.as_ref()?, faults, holds)
}

/// Holds a field to its rule, and its absence against it.
pub(crate) fn required<'a, T, U, P>(
    field: &'a Field<T>,
    name: &str,
    parent: &At<P>,
    faults: &mut Vec<Fault>,
    holds: impl Fn(&'a T) -> Result<U, String>,
) -> Option<U> {
    if field.is_none() {
        faults.push(parent.fault(format!("`{name}` is missing")));
    }
    checked(field, faults, holds)
}

fn rule<'a, T, U>(
    at: &'a At<T>,
    faults: &mut Vec<Fault>,
    holds: impl Fn(&'a T) -> Result<U, String>,
) -> Option<U> {
    holds(at.value.as_ref()?)
        .map_err(|broken| faults.push(at.fault(broken)))
        .ok()
}

fn exactly(text: &str, wanted: &str) -> Result<(), String> {
    if text == wanted {
        Ok(())
    } else {
        Err(format!("must be `{wanted}`"))
    }
}

/// One of a few words.
fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let known = names.join(", ");
            match nearest(text, &names) {
                Some(meant) => format!("must be one of {known}; did you mean `{meant}`?"),
                None => format!("must be one of {known}"),
            }
        })
}

/// A name that is also a file's name, a word of a screen and a metric's label.
pub(super) fn name(text: &str) -> Result<String, String> {
    let fits = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let starts = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if fits && starts && text.len() <= 63 {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 63 letters, digits, `.`, `_` or `-`, a letter or digit first".to_owned())
    }
}

/// An absolute path of a file.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if text.chars().any(char::is_control) {
        Err("a path has no control characters".to_owned())
    } else if !path.is_absolute() {
        Err(format!(
            "must be an absolute path; `{}` is relative",
            shown(text)
        ))
    } else if path.components().any(|part| part == Component::ParentDir) {
        Err("must not climb with `..`".to_owned())
    } else if path.file_name().is_none() || text.ends_with('/') {
        Err("must name a file, not a directory".to_owned())
    } else {
        Ok(path.to_owned())
    }
}

/// A socket's path, or `@` and an abstract name.
fn socket(text: &str) -> Result<SocketAddress, String> {
    const LONGEST: usize = SocketAddress::MAX_LEN;
    if text.len() > LONGEST {
        return Err(format!(
            "is {} bytes long; a socket's path has at most {LONGEST}",
            text.len()
        ));
    }
    match text.strip_prefix('@') {
        // kube-apiserver of the releases that need it sends the name as HTTP/2's authority.
        Some(abstract_name) => name(abstract_name).map(SocketAddress::Abstract),
        None if text.starts_with("/@") => {
            Err("kube-apiserver would take `/@…` for an abstract socket".to_owned())
        }
        None => socket_path(text).map(SocketAddress::Path),
    }
}

fn socket_path(text: &str) -> Result<PathBuf, String> {
    const LONGEST: usize = SocketAddress::MAX_NAME_LEN;
    let path = path(text)?;
    match path.file_name().map_or(0, |name| name.len()) {
        len if len > LONGEST => Err(format!(
            "its last part is {len} bytes long; it has at most {LONGEST}"
        )),
        _ => Ok(path),
    }
}

/// A socket's mode, as octal text.
fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|_| matches!(text.len(), 3 | 4) && text.bytes().all(|b| b.is_ascii_digit()))
        .ok_or("must be octal digits in quotes, such as \"0600\"")?;
    if mode & !0o666 != 0 || mode & 0o600 != 0o600 {
        return Err(
            "must be from \"0600\" to \"0666\": read and write are what a socket knows".into(),
        );
    }
    Ok(mode)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "must be an IP address and a port, such as 127.0.0.1:9465".to_owned())
}

fn end_point(text: &str) -> Result<String, String> {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let fits = host.is_some_and(|host| {
        !host.is_empty() && !host.contains(|c: char| c == '/' || c == '@' || c.is_whitespace())
    });
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must be https://HOST:PORT or http://HOST:PORT".into())
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let fits = text.starts_with('/') && text.len() > 1 && !text.ends_with('/');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must begin with `/` and not end with it".into())
    }
}
