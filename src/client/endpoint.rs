//! Where a plugin listens, as kube-apiserver reads it.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

/// Where a plugin listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket file.
    Path(PathBuf),
    /// A name in the abstract namespace of this network namespace, without its `@`.
    Abstract(String),
}

/// Why a text names no socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Nothing was given.
    #[error("it is empty")]
    Empty,
    /// kube-apiserver speaks to unix sockets only.
    #[error("must be unix:///PATH; kube-apiserver knows no other scheme")]
    Scheme,
    /// Only the URL's path counts, and there is none.
    #[error("it has no path: kube-apiserver wants unix:///PATH, with three slashes")]
    NoPath,
    /// A `%` that is not followed by two hexadecimal digits.
    #[error("its %-escapes are wrong")]
    Escape,
    /// Go's `net/url` refuses them anywhere.
    #[error("a URL has no control characters")]
    Control,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads a path, `@name`, or a [`SocketUrl`].
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text.split_once(':') {
            Some((scheme, rest)) if is_unix(scheme) || rest.starts_with("//") => {
                let url: SocketUrl = text.parse()?;
                if url.address.as_os_str().is_empty() {
                    return Err(EndpointError::NoPath);
                }
                Self::from_address(url.address)
            }
            _ => Self::from_address(PathBuf::from(text)),
        }
    }
}

impl Endpoint {
    fn from_address(address: PathBuf) -> Result<Self, EndpointError> {
        match address
            .to_str()
            .map(|text| text.strip_prefix('@').ok_or(text))
        {
            Some(Ok("") | Err("")) => Err(EndpointError::Empty),
            Some(Ok(name)) => Ok(Self::Abstract(name.to_owned())),
            Some(Err(_)) | None => Ok(Self::Path(address)),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// What of a socket's URL counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketUrl {
    /// What is dialled: a path, or `@` and the name of an abstract socket. May be empty.
    pub address: PathBuf,
    /// What stands between `//` and the path; it is ignored, so it should be empty.
    pub host: String,
}

impl FromStr for SocketUrl {
    type Err = EndpointError;

    /// Reads the endpoint of an EncryptionConfiguration as Go's `url.Parse` and `ParseEndpoint` of
    /// `k8s.io/kms` do: scheme `unix`, and of the rest only the path, where `/@name` is abstract.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.chars().any(char::is_control) {
            return Err(EndpointError::Control);
        }
        let text = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        if !is_unix(scheme) {
            return Err(EndpointError::Scheme);
        }
        let rest = rest.split('?').next().unwrap_or_default();
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            // Without a slash it is what Go calls opaque: a URL with no path at all.
            None if rest.starts_with('/') => ("", rest),
            None => ("", ""),
        };
        let path = unescaped(path)?;
        let address = match path.strip_prefix(b"/") {
            Some(name) if name.starts_with(b"@") => name.to_vec(),
            _ => path,
        };
        Ok(Self {
            address: OsString::from_vec(address).into(),
            host: host.to_owned(),
        })
    }
}

fn is_unix(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("unix")
}

/// Decodes `%41`, and refuses what Go's `net/url` refuses.
fn unescaped(path: &str) -> Result<Vec<u8>, EndpointError> {
    let is_escape = |after: &str| {
        after.len() >= 2 && after.bytes().take(2).all(|digit| digit.is_ascii_hexdigit())
    };
    if path.split('%').skip(1).all(is_escape) {
        Ok(percent_decode_str(path).collect())
    } else {
        Err(EndpointError::Escape)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Result<Endpoint, EndpointError> {
        Ok(Endpoint::Path(PathBuf::from(text)))
    }

    fn name(text: &str) -> Result<Endpoint, EndpointError> {
        Ok(Endpoint::Abstract(text.to_owned()))
    }

    #[test]
    fn endpoints_are_read_as_kube_apiserver_reads_them() {
        let not_utf8 = Path::new(OsStr::from_bytes(b"/\xff")).to_owned();
        for (text, wanted) in [
            ("/run/kms.sock", path("/run/kms.sock")),
            ("kms.sock", path("kms.sock")),
            ("./odd:name", path("./odd:name")),
            ("@kms", name("kms")),
            ("unix:///run/kms.sock", path("/run/kms.sock")),
            ("UNIX:///run/kms.sock", path("/run/kms.sock")),
            ("unix:/run/kms.sock", path("/run/kms.sock")),
            ("unix://host/run/kms.sock", path("/run/kms.sock")),
            ("unix:///run/kms.sock?a=b#c", path("/run/kms.sock")),
            ("unix:///run/a%20b.sock", path("/run/a b.sock")),
            ("unix:///%ff", Ok(Endpoint::Path(not_utf8))),
            ("unix:///@kms", name("kms")),
            ("unix:///%40kms", name("kms")),
            ("unix:///@kms/a", name("kms/a")),
            ("unix://run", Err(EndpointError::NoPath)),
            ("unix:run/kms.sock", Err(EndpointError::NoPath)),
            ("unix:", Err(EndpointError::NoPath)),
            ("unix:///%4", Err(EndpointError::Escape)),
            ("unix:///%zz", Err(EndpointError::Escape)),
            ("unix:///a\n", Err(EndpointError::Control)),
            ("unix:///@", Err(EndpointError::Empty)),
            ("@", Err(EndpointError::Empty)),
            ("", Err(EndpointError::Empty)),
            ("http://localhost/run", Err(EndpointError::Scheme)),
            ("tcp://127.0.0.1:1", Err(EndpointError::Scheme)),
        ] {
            assert_eq!(text.parse::<Endpoint>(), wanted, "{text}");
        }
    }

    #[test]
    fn what_of_a_url_is_dialled_and_what_is_ignored() {
        for (text, address, host) in [
            ("unix:///run/kms.sock", "/run/kms.sock", ""),
            ("UNIX:/run/kms.sock", "/run/kms.sock", ""),
            ("unix:///@claviger", "@claviger", ""),
            ("unix:///run/a%20b?x#y", "/run/a b", ""),
            ("unix://run/kms.sock", "/kms.sock", "run"),
            ("unix://@claviger", "", "@claviger"),
            ("unix:kms.sock", "", ""),
        ] {
            let read: SocketUrl = text.parse().unwrap();
            let expected = (Path::new(address), host);
            assert_eq!((&*read.address, &*read.host), expected, "{text}");
        }
        for text in ["", "/run/kms.sock", "unix", "http:///run"] {
            assert_eq!(text.parse::<SocketUrl>(), Err(EndpointError::Scheme));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = (text.parse::<Endpoint>(), format!("unix:{text}").parse::<Endpoint>());
        }
    }
}
