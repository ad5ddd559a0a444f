//! Files of authorities that vouch for the names of other servers.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;

/// Of a file of authorities: a few certificates.
const AUTHORITIES_BYTES_MAX: u64 = 1 << 20;

/// The certificates of a PEM file, one at least. Blocks.
///
/// # Errors
/// What is wrong with it, as text without the path.
pub fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > AUTHORITIES_BYTES_MAX {
        return Err(format!("{bytes} bytes, at most {AUTHORITIES_BYTES_MAX} are read"));
    }
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?.collect();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("it has no certificate".into()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_authorities_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        let refused = || read(&path).expect_err("refused");
        refused();
        std::fs::write(&path, "no certificate").expect("written");
        assert_eq!(refused(), "it has no certificate");
        std::fs::write(&path, vec![b'x'; AUTHORITIES_BYTES_MAX as usize + 1]).expect("written");
        assert!(refused().contains("at most"));
    }
}
