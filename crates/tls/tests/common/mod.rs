//! Certificates for tests, made on the spot.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
};
use reactor_tls::{Acceptor, Connector, Identity, Roots};

/// An authority that signs the certificates of a test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Authority {
        Authority::named("a test's authority")
    }

    pub fn named(name: &str) -> Authority {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, key()).expect("it signs itself"))
    }

    pub fn roots(&self) -> Roots {
        Roots::from_pem(self.0.pem().as_bytes()).expect("it is a root")
    }

    pub fn root_pem(&self) -> String {
        self.0.pem()
    }

    /// Returns the certificate and the key of these names, in PEM.
    pub fn pem(&self, names: &[&str]) -> (String, String) {
        self.pem_of(names, &key())
    }

    /// Returns the same with a key that OpenSSL 3.0 reads (it does not know the form of Ed25519 keys here).
    pub fn pem_for_openssl(&self, names: &[&str]) -> (String, String) {
        self.pem_of(names, &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("ring makes it"))
    }

    fn pem_of(&self, names: &[&str], key: &KeyPair) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate =
            CertificateParams::new(names).expect("names").signed_by(key, &self.0).expect("it is signed");
        (certificate.pem(), key.serialize_pem())
    }

    pub fn identity(&self, names: &[&str]) -> Identity {
        let (certificate, key) = self.pem(names);
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("it is whole")
    }
}

/// Ed25519, whose signatures all have the same length.
fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("ring makes it")
}

/// A client and a server that trust each other's authority, with default settings.
pub fn pair() -> (Connector, Acceptor) {
    let authority = Authority::new();
    let connector = Connector::builder(authority.roots()).build().expect("it is whole");
    let acceptor = Acceptor::builder(authority.identity(&["example.org"])).build().expect("it is whole");
    (connector, acceptor)
}
