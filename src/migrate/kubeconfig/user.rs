//! Who we are, of everything that a user of a kubeconfig may have.
//!
//! Source: `getUserIdentificationPartialConfig` of `k8s.io/client-go/tools/clientcmd`, and
//! `transport/round_trippers.go` for the headers.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::file::{ClusterEntry, Impersonated, User, shown};
use super::{Error, unusable};
use crate::migrate::session::tls::Identity;
use crate::migrate::session::{Login, basic, bearer};

/// The certificate that the user shows.
pub(super) fn identity(user: &User) -> Result<Option<Identity>, Error> {
    match (&user.certificate, &user.key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(Identity {
            certificate: certificate.read()?,
            key: key.read()?,
        })),
        _ => unusable("its user has a client-certificate or a client-key, and not both"),
    }
}

/// How the user proves who they are. A credential program runs only where nothing else does it, as
/// with kubectl.
pub(super) fn login(
    user: User,
    has_identity: bool,
    cluster: &ClusterEntry,
) -> Result<Login, Error> {
    let has_name = user.username.is_some() || user.password.is_some();
    if has_name && (user.token.is_some() || user.token_file.is_some()) {
        return unusable("its user has a password and a token: take one of them out");
    }
    if let Some(name) = user.auth_provider {
        return Err(Error::Unusable(format!(
            "its user has the auth-provider {}, which kubectl took out in 1.26: use a credential \
             program (exec)",
            shown(&name)
        )));
    }
    let has_other = has_identity || has_name || user.token.is_some() || user.token_file.is_some();
    if let Some(exec) = user.exec.filter(|_| !has_other) {
        return Ok(Login::Program(exec.prepare(cluster)?));
    }
    Ok(match (user.token_file, user.token) {
        (Some(file), token) => Login::TokenFile(file, token),
        (None, Some(token)) => Login::Header(bearer(&token)?),
        (None, None) if has_name => Login::Header(basic(
            &user.username.unwrap_or_default(),
            &user.password.unwrap_or_default(),
        )?),
        (None, None) => Login::None,
    })
}

/// The headers that say as whom we act.
pub(super) fn headers(whom: Impersonated) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    let has_more = whom.uid.is_some() || !whom.groups.is_empty() || !whom.extra.is_empty();
    if whom.user.is_none() && has_more {
        return unusable("its user has as-uid, as-groups or as-user-extra, but not `as`");
    }
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::try_from(name);
        match (name, HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => Ok(headers.append(name, value)),
            _ => unusable("its user acts as somebody whose name no HTTP header may have"),
        }
    };
    if let Some(user) = &whom.user {
        add("impersonate-user", user)?;
    }
    if let Some(uid) = &whom.uid {
        add("impersonate-uid", uid)?;
    }
    for group in &whom.groups {
        add("impersonate-group", group)?;
    }
    for (key, values) in &whom.extra {
        for value in values {
            add(&format!("impersonate-extra-{}", escaped(key)), value)?;
        }
    }
    Ok(headers)
}

/// What no header's name may have, in percent signs, as client-go writes it.
fn escaped(key: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(byte);
    let mut escaped = String::new();
    for byte in key.bytes() {
        match is_plain(&byte) {
            true => escaped.push(byte.into()),
            false => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}
