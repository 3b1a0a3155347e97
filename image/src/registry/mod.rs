//! Talking to registries: the pull half of the OCI distribution protocol, with mirrors and credentials.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use bytes::Bytes;

pub use self::auth::Credentials;
pub use self::blob::Blob;
pub use self::error::{Error, Kind};
use crate::digest::Digest;
use crate::reference::Reference;

mod auth;
mod blob;
mod error;

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directories in containerd's certs.d layout, `<dir>/<host[:port]>/hosts.toml` with `_default` for all others.
    /// The first that has a directory for a host counts. Read at every pull.
    pub hosts_dirs: Vec<PathBuf>,
    /// How long connecting may take, unless a hosts.toml says otherwise.
    pub connect_timeout: Duration,
    /// How long a connection may stay silent before it counts as broken.
    pub read_timeout: Duration,
    /// How often and how patiently a failing registry is asked again.
    pub retry: Retry,
    /// The User-Agent header.
    pub user_agent: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts_dirs: Vec::new(),
            connect_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(60),
            retry: Retry::default(),
            user_agent: concat!("berth/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// How to go on after a failure that may pass. Progress starts the count anew.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How many tries may follow a failed one.
    pub limit: u32,
    /// The pause before the first of them; doubled before each further one.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { limit: 4, first_pause: Duration::from_millis(200), longest_pause: Duration::from_secs(5) }
    }
}

/// A manifest or an index, as the registry sent it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The exact bytes that `digest` names.
    pub bytes: Vec<u8>,
    /// What the document says it is, or else the registry does; without parameters.
    pub media_type: String,
    /// Computed from `bytes`; never the registry's word.
    pub digest: Digest,
}

/// A client for all registries. Cheap to clone; clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct Registry {
    config: Arc<Config>,
}

impl Registry {
    /// A client that has not connected anywhere yet.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(Self { config: Arc::new(config) })
    }

    /// Fetches a manifest or index: the one named by `digest` (a child of an index), else by the reference's digest,
    /// else by its tag. Limited to 4 MiB. Content fetched by digest is verified.
    pub async fn manifest(
        &self,
        image: &Reference,
        digest: Option<&Digest>,
        credentials: Option<&Credentials>,
    ) -> Result<Manifest, Error> {
        let _ = (digest, credentials);
        Err(self.unbuilt(image))
    }

    /// Opens the blob `digest`, promised to have `size` bytes, of the image's repository.
    pub async fn blob(
        &self,
        image: &Reference,
        digest: &Digest,
        size: u64,
        credentials: Option<&Credentials>,
    ) -> Result<Blob, Error> {
        let _ = (digest, size, credentials);
        Err(self.unbuilt(image))
    }

    /// Fetches a small blob of at most `limit` bytes, such as an image's configuration, and verifies its digest.
    pub async fn blob_bytes(
        &self,
        image: &Reference,
        digest: &Digest,
        limit: u64,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<u8>, Error> {
        let _ = (digest, limit, credentials);
        Err(self.unbuilt(image))
    }

    fn unbuilt(&self, image: &Reference) -> Error {
        let reason = format!("{} does not ask yet", self.config.user_agent);
        Error::BadResponse { what: image.to_string(), host: image.registry().to_owned(), reason }
    }
}
