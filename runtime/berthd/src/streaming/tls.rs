//! TLS with certificate and key files, which are read again when they have changed: renewals are not announced.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::{
    blocking,
    error::{Error, Kind, Result},
};

/// A certificate chain and its key, both files in PEM.
pub(super) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    files: Files,
    acceptor: TlsAcceptor,
}

/// Version of a file: device, inode, size and ctime. `None` if it cannot be read.
type Version = Option<(u64, u64, u64, i64, i64)>;

/// Versions of both files.
type Files = [Version; 2];

impl Tls {
    /// Loads the files as they are now. Fails when they cannot be used.
    pub(super) fn open(certificate: &Path, key: &Path) -> Result<Arc<Self>> {
        let files = [certificate, key].map(version);
        let current = Mutex::new(Current { files, acceptor: acceptor(certificate, key)? });
        Ok(Arc::new(Self { certificate: certificate.to_owned(), key: key.to_owned(), current }))
    }

    /// Returns the acceptor for the next connection; `DeadlineExceeded` when a file system hangs.
    pub(super) async fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor> {
        let (tls, cause) = (Arc::clone(self), self.certificate.display().to_string());
        // A path on a file system that hangs must take one thread, not one for each client.
        blocking::look_up("look whether the certificate has changed", &cause, move || tls.refreshed()).await
    }

    /// Reloads changed files. Unusable ones are logged once: the second of the two may be about to be replaced.
    fn refreshed(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let files = [&*self.certificate, &*self.key].map(version);
        if files != current.files {
            current.files = files;
            match acceptor(&self.certificate, &self.key) {
                Ok(acceptor) => current.acceptor = acceptor,
                Err(error) => tracing::warn!(%error, "the certificate of before stays in use"),
            }
        }
        current.acceptor.clone()
    }
}

fn version(path: &Path) -> Version {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(|error| unreadable(certificate, error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
    let config = server(chain, private).map_err(|error| unreadable(certificate, error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> std::result::Result<ServerConfig, rustls::Error> {
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
}

fn unreadable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let step = format!("serve streams with the certificate or key in {}", path.display());
    Error::caused(Kind::FailedPrecondition, step, error)
}
