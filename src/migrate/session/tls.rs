//! TLS to kube-apiserver: whom we take for the cluster, and the certificate that we show.

use std::sync::Arc;

use jiff::Timestamp;
use rustls_native_certs::load_native_certs;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::SessionError;

/// Who is taken for the cluster.
pub(crate) enum Trust {
    /// Whoever has a certificate of these.
    Roots(Arc<RootCertStore>),
    /// Whoever answers: `insecure-skip-tls-verify`.
    Anybody,
}

/// A client certificate with its chain, and its private key, in PEM. No `Debug`: it is a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl Trust {
    /// The authorities of a PEM file.
    pub(crate) fn authority(pem: &[u8]) -> Result<Self, SessionError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let added = certificate.ok().map(|certificate| roots.add(certificate));
            if !matches!(added, Some(Ok(()))) {
                return unusable(
                    "the kubeconfig's certificate-authority is not PEM of authorities",
                );
            }
        }
        if roots.is_empty() {
            return unusable("the kubeconfig's certificate-authority has no certificate");
        }
        Ok(Self::Roots(Arc::new(roots)))
    }

    /// The authorities that this machine trusts, as kubectl does where a kubeconfig names none.
    pub(crate) fn system() -> Result<Self, SessionError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(load_native_certs().certs);
        if roots.is_empty() {
            return unusable(
                "the kubeconfig's cluster names no certificate-authority, and this machine has no \
                 authorities of its own: add certificate-authority",
            );
        }
        Ok(Self::Roots(Arc::new(roots)))
    }

    /// How to speak TLS. `identity` is what we show.
    pub(super) fn config(&self, identity: Option<&Identity>) -> Result<ClientConfig, SessionError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| SessionError(error.to_string()))?;
        let builder = match self {
            Self::Roots(roots) => builder.with_root_certificates(Arc::clone(roots)),
            Self::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        };
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.read()?;
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|error| {
                    let cause = "the kubeconfig's client certificate and its key are of no use";
                    SessionError(format!("{cause}: {error}"))
                })?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Identity {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), SessionError> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate);
        let chain = match chain.collect::<Result<Vec<_>, _>>() {
            Ok(chain) if !chain.is_empty() => chain,
            _ => return unusable("the kubeconfig's client certificate is no PEM"),
        };
        // What the parser says of a key would repeat parts of it.
        match PrivateKeyDer::from_pem_slice(&self.key) {
            Ok(key) => Ok((chain, key)),
            Err(_) => unusable("the kubeconfig's client key is no PEM of a private key"),
        }
    }

    /// When the certificate expires; `None` where it cannot be understood.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        let der = CertificateDer::from_pem_slice(&self.certificate).ok()?;
        let certificate = Certificate::from_der(&der).ok()?;
        let end = certificate.tbs_certificate().validity().not_after;
        let seconds = i64::try_from(end.to_unix_duration().as_secs()).ok()?;
        Timestamp::from_second(seconds).ok()
    }
}

fn unusable<T>(cause: &str) -> Result<T, SessionError> {
    Err(SessionError(cause.to_owned()))
}

/// Takes whoever answers for the cluster, and still has them prove that they hold their own key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
