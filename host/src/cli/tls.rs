//! TLS to a management API: the certificates that are trusted, and the errors of those that are not.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::options::HostArgs;
use super::output::{CliError, Exit};
use crate::net::fingerprint;

/// Returns the configuration for plain HTTP, where it is never used.
pub(super) fn unused() -> ClientConfig {
    builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

/// Returns the configuration for a host: it trusts the issuers in `--ca`, or else the one certificate that a host on
/// this machine has noted of itself, or else the issuers of the system.
pub(super) fn config(args: &HostArgs, pinned: Option<String>) -> Result<ClientConfig, CliError> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match (&args.ca, pinned) {
        (Some(file), _) => of_roots(roots_in(file)?, &provider)?,
        (None, Some(fingerprint)) => Arc::new(PinnedVerifier { fingerprint, provider }),
        (None, None) => of_roots(roots_of_system()?, &provider)?,
    };
    let builder = builder().dangerous().with_custom_certificate_verifier(verifier);
    let (Some(cert), Some(key)) = (&args.client_cert, &args.client_key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    builder.with_client_auth_cert(chain, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let message = format!("{} is not the key of the certificate in {}", key.display(), cert.display());
            CliError::new(Exit::Usage, message)
        }
        error => unusable(key, &error),
    })
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for both versions of TLS")
}

fn of_roots(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, CliError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| CliError::new(Exit::Failed, format!("no certificate is trusted: {error}")))
}

/// Reads the issuers in a file.
fn roots_in(file: &Path) -> Result<RootCertStore, CliError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| unusable(file, &error))?;
    }
    Ok(roots)
}

/// Reads the issuers that the system trusts.
fn roots_of_system() -> Result<RootCertStore, CliError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems have certificates that no verifier takes; the others still count.
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        let message = format!("this system has no certificates of issuers{why}; `--ca FILE` names some");
        return Err(CliError::new(Exit::Failed, message));
    }
    Ok(roots)
}

/// Reads the certificates of a file in PEM form.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CliError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(file, &error));
    let all = all?;
    if all.is_empty() {
        return Err(unusable(file, &"it has no certificate in PEM form"));
    }
    Ok(all)
}

fn unusable(file: &Path, why: &dyn std::fmt::Display) -> CliError {
    CliError::new(Exit::Usage, format!("{} cannot be used: {why}", file.display()))
}

/// Trusts one certificate, by its fingerprint. Its name, issuer and dates are not looked at: the host itself has noted
/// the fingerprint where only its user can write.
#[derive(Debug)]
struct PinnedVerifier {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if fingerprint(certificate) == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns the reason in words if TLS made a request fail.
pub(super) fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    Some(match find(error)? {
        rustls::Error::InvalidCertificate(why) => explain_certificate(why),
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate,
        ) => "it asks for a client certificate; `--client-cert FILE` and `--client-key FILE` name one".to_owned(),
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::DecryptError | AlertDescription::CertificateUnknown,
        ) => "it does not trust the issuer of the client certificate (`admin.tls.client-ca`)".to_owned(),
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "it finds the client certificate to have expired".to_owned()
        }
        rustls::Error::InvalidMessage(_) => "what answers there speaks no TLS; is it http:// ?".to_owned(),
        other => format!("TLS failed: {other}"),
    })
}

fn explain_certificate(why: &CertificateError) -> String {
    match why {
        // The last two where another issuer of the same name is trusted.
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its certificate was issued by nobody who is trusted here; `--ca FILE` names the issuer's certificate"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            format!("its certificate is for {names}, and not for {}", expected.to_str())
        }
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / (24 * 60 * 60);
            format!("its certificate has expired, {days} days ago")
        }
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::NotValidYetContext { .. } | CertificateError::NotValidYet => {
            "its certificate is not valid yet; is the clock of this machine right?".to_owned()
        }
        CertificateError::ApplicationVerificationFailure => {
            "it shows another certificate than the host of this data folder has noted; is it another program?"
                .to_owned()
        }
        other => format!("its certificate cannot be trusted: {other}"),
    }
}

/// Returns a name of a certificate without its kind, which it has around it: `DnsName("host.example.com")`.
fn bare(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')').trim_matches('"'))
}

/// Returns the error of TLS among the causes of an error.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An error of I/O does not count the error that it wraps among its causes, but the causes of that one.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}
