//! Client for registries: the pull half of the OCI distribution specification, with mirrors and credentials.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use bytes::Bytes;

pub use self::auth::Credentials;
pub use self::blob::Blob;
pub use self::error::{Error, Kind};
pub use self::progress::Progress;

use self::client::{Client, Get};
use self::hosts::Endpoint;
use self::route::{Document, Route};
use crate::digest::Digest;
use crate::reference::Reference;

mod auth;
mod blob;
mod challenge;
mod client;
mod error;
pub(crate) mod hosts;
mod hosts_toml;
mod progress;
mod route;
#[cfg(test)]
mod tests;
mod token;

/// The most bytes a manifest or index may have.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Accept header: the documents that can be read. Registries convert to one of these, or refuse.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directories in containerd's certs.d layout, `<dir>/<host[:port]>/hosts.toml` with `_default` for all others. The
    /// first directory that has an entry for a host counts. Read at every pull.
    pub hosts_dirs: Vec<PathBuf>,
    /// How long connecting may take, unless hosts.toml states another time.
    pub connect_timeout: Duration,
    /// How long a connection may stay silent before it counts as broken.
    pub read_timeout: Duration,
    /// Progress below which a connection counts as broken.
    pub progress: Progress,
    /// How often and how patiently failed requests are retried.
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
            progress: Progress::default(),
            retry: Retry::default(),
            user_agent: concat!("berth/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Retries after a failure that may pass. Progress resets the count.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The most retries without progress in between.
    pub limit: u32,
    /// The pause before the first retry; doubled before each further one.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { limit: 5, first_pause: Duration::from_millis(200), longest_pause: Duration::from_secs(5) }
    }
}

/// A manifest or an index, as the registry sent it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The exact bytes that `digest` names.
    pub bytes: Vec<u8>,
    /// The registry's Content-Type without parameters, for messages only. Empty if the bytes are from the store.
    pub content_type: String,
    /// Computed from `bytes`, never taken from the registry.
    pub digest: Digest,
}

/// A client for all registries. Clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct Registry {
    client: Arc<Client>,
}

impl Registry {
    /// Makes a client without connecting. Fails if the configuration is unusable, as with a user agent that is no valid
    /// header value.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(Self { client: Client::new(config)? })
    }

    /// Fetches a manifest or index: the one named by `digest` (a child of an index), else by the reference's digest,
    /// else by its tag. Fails above 4 MiB. Content fetched by digest is verified.
    pub async fn manifest(
        &self,
        image: &Reference,
        digest: Option<&Digest>,
        credentials: Option<&Credentials>,
    ) -> Result<Manifest, Error> {
        let digest = digest.or_else(|| image.digest());
        let get = self.manifest_get(image, digest, credentials);
        let route = self.manifest_route(image, get.is_pinned).await?;
        let Document { bytes, content_type, digest } =
            route.document(&get, MAX_MANIFEST_BYTES, digest).await?;
        Ok(Manifest { content_type, bytes, digest })
    }

    /// Asks (HEAD) for the digest of the document that the reference stands for, which registries do not count as a
    /// pull. The digest is the registry's unverified claim: use it only to look up a document that was fetched before.
    pub async fn digest(
        &self,
        image: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Digest, Error> {
        let pinned = image.digest();
        let get = Get { is_head: true, ..self.manifest_get(image, pinned, credentials) };
        let route = self.manifest_route(image, get.is_pinned).await?;
        Ok(route.document(&get, MAX_MANIFEST_BYTES, pinned).await?.digest)
    }

    /// Opens the blob `digest`, promised to have `size` bytes, in the image's repository.
    pub async fn blob(
        &self,
        image: &Reference,
        digest: &Digest,
        size: u64,
        credentials: Option<&Credentials>,
    ) -> Result<Blob, Error> {
        self.blob_elsewhere(image, digest, size, credentials, &[]).await
    }

    /// Like [`Registry::blob`], but asks none of the hosts in `avoided`, which are named as in [`Blob::sources`].
    pub async fn blob_elsewhere(
        &self,
        image: &Reference,
        digest: &Digest,
        size: u64,
        credentials: Option<&Credentials>,
        avoided: &[String],
    ) -> Result<Blob, Error> {
        let route =
            self.route(image, |endpoint| endpoint.pulls && !avoided.contains(&endpoint.host())).await?;
        Blob::open(route, self.blob_get(image, digest, credentials), size).await
    }

    /// Whether any host outside `avoided` may be asked for content of this image.
    pub async fn has_other_hosts(&self, image: &Reference, avoided: &[String]) -> Result<bool, Error> {
        let route =
            self.route(image, |endpoint| endpoint.pulls && !avoided.contains(&endpoint.host())).await?;
        Ok(!route.endpoints.is_empty())
    }

    /// Fetches a small blob, such as an image's configuration, and verifies its digest. Fails above `limit` bytes.
    pub async fn blob_bytes(
        &self,
        image: &Reference,
        digest: &Digest,
        limit: u64,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<u8>, Error> {
        let route = self.route(image, |endpoint| endpoint.pulls).await?;
        let get = self.blob_get(image, digest, credentials);
        Ok(route.document(&get, limit, Some(digest)).await?.bytes)
    }

    async fn manifest_route(&self, image: &Reference, is_pinned: bool) -> Result<Route, Error> {
        self.route(image, |endpoint| if is_pinned { endpoint.pulls } else { endpoint.resolves }).await
    }

    fn manifest_get(
        &self,
        image: &Reference,
        digest: Option<&Digest>,
        credentials: Option<&Credentials>,
    ) -> Get {
        let (path, what) = match digest {
            Some(digest) => (format!("manifests/{digest}"), format!("manifest {}@{digest}", image.name())),
            None => (format!("manifests/{}", image.tag().unwrap_or_default()), format!("manifest {image}")),
        };
        Get {
            accept: MANIFEST_TYPES,
            is_pinned: digest.is_some(),
            ..self.get(image, path, what, credentials)
        }
    }

    async fn route(&self, image: &Reference, may_ask: impl Fn(&Endpoint) -> bool) -> Result<Route, Error> {
        let mut endpoints = hosts::resolve(&self.client.config.hosts_dirs, image.registry()).await?;
        endpoints.retain(may_ask);
        Ok(Route { client: self.client.clone(), endpoints })
    }

    fn blob_get(&self, image: &Reference, digest: &Digest, credentials: Option<&Credentials>) -> Get {
        self.get(image, format!("blobs/{digest}"), format!("blob {digest} of {}", image.name()), credentials)
    }

    fn get(&self, image: &Reference, path: String, what: String, credentials: Option<&Credentials>) -> Get {
        Get {
            what,
            registry: image.registry().to_owned(),
            repository: image.repository().to_owned(),
            is_head: false,
            path,
            accept: "*/*",
            is_pinned: true,
            offset: 0,
            credentials: credentials.cloned(),
        }
    }
}
