//! Whom a contributor trusts to vouch for a coordinator, over the socket and for shards alike.

use super::{Address, ContributeError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Of a file of authorities: a few certificates.
const AUTHORITIES_BYTES_MAX: u64 = 1 << 20;

/// How a secure connection is made.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
    /// Those of a file, where one was named.
    authorities: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// For an address; nothing where it is not a secure one. Blocks.
    ///
    /// # Errors
    /// [`ContributeError::Authorities`], [`ContributeError::Name`], [`ContributeError::Tls`].
    pub(super) fn of(to: &Address, file: Option<&Path>) -> Result<Option<Self>, ContributeError> {
        let authorities = file.map(read).transpose()?.unwrap_or_default();
        let Some(name) = to.certified_name() else { return Ok(None) };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| ContributeError::Name { name: name.to_owned() })?;
        let mut roots = RootCertStore::empty();
        if authorities.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for authority in &authorities {
            roots.add(authority.clone()).map_err(ContributeError::Tls)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(ContributeError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(Trust { config: Arc::new(config), name, authorities }))
    }

    /// The same for HTTP requests.
    pub(super) fn http(&self) -> ureq::tls::TlsConfig {
        use ureq::tls::{Certificate, RootCerts, TlsConfig};
        let roots = match self.authorities.is_empty() {
            true => RootCerts::WebPki,
            false => self.authorities.iter().map(|it| Certificate::from_der(it).to_owned()).into(),
        };
        TlsConfig::builder().root_certs(roots).build()
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, ContributeError> {
    let failed = |detail: String| ContributeError::Authorities { path: path.to_owned(), detail };
    let bytes = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if bytes > AUTHORITIES_BYTES_MAX {
        return Err(failed(format!("{bytes} bytes, at most {AUTHORITIES_BYTES_MAX} are read")));
    }
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?.collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() { Err(failed("it has no certificate".into())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_authorities_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        let to: Address = "https://localhost".parse().expect("an address");
        let refused = || Trust::of(&to, Some(&path)).expect_err("refused");
        assert!(matches!(refused(), ContributeError::Authorities { .. }));
        std::fs::write(&path, "no certificate").expect("written");
        assert!(refused().to_string().ends_with("it has no certificate"));
        std::fs::write(&path, vec![b'x'; AUTHORITIES_BYTES_MAX as usize + 1]).expect("written");
        assert!(refused().to_string().contains("at most"));
        assert!(Trust::of(&to, None).expect("the usual ones").is_some());
        let plain: Address = "http://localhost".parse().expect("an address");
        assert!(Trust::of(&plain, None).expect("none is needed").is_none());
    }
}
