//! Whom a contributor trusts to vouch for a coordinator, over the socket and for shards alike.

use super::{Address, ContributeError};
use crate::authorities;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

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
        let read = |path: &Path| {
            authorities::read(path)
                .map_err(|detail| ContributeError::Authorities { path: path.to_owned(), detail })
        };
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
        assert!(Trust::of(&to, None).expect("the usual ones").is_some());
        let plain: Address = "http://localhost".parse().expect("an address");
        assert!(Trust::of(&plain, None).expect("none is needed").is_none());
    }
}
