//! Where the cluster is, and by what it is recognised.

use http::Uri;
use tokio_rustls::rustls::pki_types::ServerName;

use super::file::ClusterEntry;
use super::{Error, unusable};
use crate::migrate::session::tls::Trust;

/// Whom we expect, and by which name; `None` without TLS.
pub(super) type Trusted = Option<(Trust, ServerName<'static>)>;

/// The server's URL, and whom we expect there.
pub(super) fn find(cluster: &ClusterEntry) -> Result<(String, Trusted), Error> {
    let no_url = "its cluster's server must be https://HOST:PORT, without a name or a query";
    let uri = cluster.server.as_deref().unwrap_or_default().parse();
    let Ok(uri) = uri.map(Uri::into_parts) else {
        return unusable(no_url);
    };
    let (Some(scheme), Some(authority)) = (&uri.scheme, &uri.authority) else {
        return unusable(no_url);
    };
    let (path, query) = match &uri.path_and_query {
        Some(rest) => (rest.path(), rest.query()),
        None => ("", None),
    };
    // A name before the host may come with a password, which messages would repeat.
    if authority.as_str().contains('@') || query.is_some() {
        return unusable(no_url);
    }
    let url = format!("{scheme}://{authority}{}", path.trim_end_matches('/'));
    let is_tls = match scheme.as_str() {
        "https" => true,
        "http" => false,
        _ => return unusable(no_url),
    };
    if !is_tls {
        return Ok((url, None));
    }
    let host = authority.host();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = cluster.server_name.as_deref().unwrap_or(host);
    let Ok(name) = ServerName::try_from(name.to_owned()) else {
        return unusable(
            "its cluster's server or tls-server-name is neither a name nor an address",
        );
    };
    let trust = match (&cluster.authority, cluster.insecure) {
        (Some(_), true) => {
            return unusable(
                "its cluster has a certificate-authority and insecure-skip-tls-verify: take out \
                 the latter",
            );
        }
        (None, true) => Trust::Anybody,
        (Some(authority), false) => Trust::authority(&authority.read()?)?,
        (None, false) => Trust::system()?,
    };
    Ok((url, Some((trust, name))))
}
