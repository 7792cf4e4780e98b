//! The listener's certificate and key, read again when a file changes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::config::TlsConfig;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub(super) enum TlsError {
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not PEM as it should be: {source}", path = path.display())]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{path} has no certificate", path = path.display())]
    NoCertificate { path: PathBuf },
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The certificate and key in use, and the files that they came from.
pub(super) struct Tls {
    files: TlsConfig,
    /// The files as they were when they were last read, whether or not they could be used.
    seen: Option<[Version; 2]>,
    acceptor: TlsAcceptor,
}

/// What tells one version of a file from another: also a link that now leads elsewhere, as
/// Kubernetes replaces the files of a Secret.
type Version = (u64, u64, i64, i64, u64);

impl Tls {
    /// Reads both files.
    pub(super) fn load(files: TlsConfig) -> Result<Self, TlsError> {
        let seen = versions(&files).ok();
        let acceptor = acceptor(&files)?;
        Ok(Self {
            files,
            seen,
            acceptor,
        })
    }

    /// For the next connection. Files that changed are read again; while they cannot be used, as
    /// between the exchange of one and of the other, the last good ones stay.
    pub(super) fn current(&mut self) -> TlsAcceptor {
        let seen = versions(&self.files).ok();
        if seen != self.seen {
            self.seen = seen;
            match acceptor(&self.files) {
                Ok(acceptor) => {
                    self.acceptor = acceptor;
                    tracing::info!("the metrics listener's certificate was read again");
                }
                Err(error) => tracing::warn!(
                    %error,
                    "the metrics listener's changed certificate or key was not taken; the last good \
                     ones stay"
                ),
            }
        }
        self.acceptor.clone()
    }
}

fn versions(files: &TlsConfig) -> io::Result<[Version; 2]> {
    let version = |path: &Path| {
        fs::metadata(path).map(|m| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size()))
    };
    Ok([version(&files.cert_file)?, version(&files.key_file)?])
}

fn acceptor(files: &TlsConfig) -> Result<TlsAcceptor, TlsError> {
    let chain = read(&files.cert_file)?;
    let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|source| TlsError::Pem {
        path: files.cert_file.clone(),
        source,
    })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            path: files.cert_file.clone(),
        });
    }
    let key =
        PrivateKeyDer::from_pem_slice(&read(&files.key_file)?).map_err(|source| TlsError::Pem {
            path: files.key_file.clone(),
            source,
        })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Io {
        path: path.to_owned(),
        source,
    })
}
