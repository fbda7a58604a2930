//! An issuer of certificates for tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// An issuer of certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key, in PEM form.
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    /// Creates an issuer of this name.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Returns its own certificate in PEM form.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns its own certificate.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate")
    }

    /// Issues a certificate for host names and addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_until(names, 2200)
    }

    /// Issues one that is not valid any more.
    pub(crate) fn issue_expired(&self, names: &[&str]) -> Issued {
        self.issue_until(names, 2001)
    }

    fn issue_until(&self, names: &[&str], year: i32) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names of hosts");
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(year, 1, 1));
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Issued { cert, key: key.serialize_pem() }
    }
}

impl Issued {
    /// Returns the certificate.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("a certificate")
    }

    /// Replaces the files in a folder, the key for its owner only.
    pub(crate) fn write(&self, folder: &Path, cert: &str, key: &str) {
        self.write_with(folder, cert, key, 0o600);
    }

    /// Replaces the files, the key for everybody to read.
    pub(crate) fn write_open(&self, folder: &Path, cert: &str, key: &str) {
        self.write_with(folder, cert, key, 0o644);
    }

    fn write_with(&self, folder: &Path, cert: &str, key: &str, mode: u32) {
        for (name, text) in [(cert, &self.cert), (key, &self.key)] {
            let temporary = folder.join(format!("{name}.new"));
            fs::write(&temporary, text).expect("the folder can be written to");
            fs::set_permissions(&temporary, fs::Permissions::from_mode(mode)).expect("it is ours");
            fs::rename(temporary, folder.join(name)).expect("the folder can be written to");
        }
    }
}
