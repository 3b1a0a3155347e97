//! The pull of one layer: fetch, unpack, complete from the layers below, commit.

use std::io;
use std::sync::Arc;

use futures::future::try_join_all;
use tokio::sync::mpsc;

use super::flights::{Flight, KeyedLocks};
use super::permits::RegistryPermits;
use super::{blocking, stream};
use crate::digest::Digest;
use crate::error::{Error, Kind, io_kind, registry_kind};
use crate::manifest::LayerBlob;
use crate::reference::Reference;
use crate::registry::{self, Blob, Bytes, Credentials, Registry};
use crate::store::{Layer, Staging, Store};
use crate::unpack::{self, Limits, Unpacked};

/// The most chunks of a blob that may wait for inflation.
const MAX_QUEUED_CHUNKS: usize = 64;

/// Key of the committed layer, or why there is none.
pub(crate) type Outcome = Result<Digest, Arc<LayerError>>;

/// Reasons why a layer could not be pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The registry failed to deliver the blob.
    #[error("fetch")]
    Fetch(#[source] registry::Error),
    /// Size or digest of the blob are not those in the manifest.
    #[error("verify: {length} bytes with digest {found}, expected {size} bytes with {expected}")]
    Digest {
        /// Digest in the manifest.
        expected: Digest,
        /// Size in the manifest, in bytes.
        size: u64,
        /// Digest received.
        found: Digest,
        /// Size received, in bytes.
        length: u64,
    },
    /// The unpacked bytes do not have the diff id in the configuration.
    #[error("verify: unpacked it has digest {found}, the configuration says {expected}")]
    DiffId {
        /// Diff id in the configuration.
        expected: Digest,
        /// Digest of the unpacked bytes.
        found: Digest,
    },
    /// The compressed stream is broken.
    #[error("inflate")]
    Inflate(#[source] io::Error),
    /// The media type names a compression, but the content has none that is known.
    #[error("inflate: the media type says {0}, the content is something else")]
    NotCompressed(&'static str),
    /// The archive could not be unpacked.
    #[error("unpack")]
    Unpack(#[source] unpack::Error),
    /// The store failed.
    #[error("store")]
    Store(#[source] Box<Error>),
    /// A layer below it failed.
    #[error("wait for the layers below")]
    Below(#[source] Arc<LayerError>),
    /// No thread could be started.
    #[error("start a thread")]
    Thread(#[source] io::Error),
    /// The task panicked or was cancelled.
    #[error("interrupted")]
    Lost,
}

impl LayerError {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            LayerError::Fetch(source) => registry_kind(source),
            LayerError::Digest { .. } | LayerError::DiffId { .. } | LayerError::Inflate(_) => Kind::DataLoss,
            LayerError::NotCompressed(_) => Kind::DataLoss,
            LayerError::Unpack(unpack::Error::Entry { source, .. }) => io_kind(source),
            LayerError::Unpack(unpack::Error::Archive { .. }) => Kind::DataLoss,
            LayerError::Unpack(_) => Kind::FailedPrecondition,
            LayerError::Store(source) => source.kind(),
            LayerError::Below(source) => source.kind(),
            LayerError::Thread(_) | LayerError::Lost => Kind::Internal,
        }
    }

    /// True if the host may be at fault, so that another host may have the right content.
    fn may_be_the_hosts(&self) -> bool {
        match self {
            LayerError::Fetch(source) => source.kind() == registry::Kind::DataLoss,
            LayerError::Digest { .. } | LayerError::Inflate(_) | LayerError::NotCompressed(_) => true,
            LayerError::Unpack(source) => matches!(source, unpack::Error::Archive { .. }),
            _ => false,
        }
    }
}

/// An attempt to fetch and unpack a layer: its outcome, and the hosts the bytes came from.
struct Attempt {
    outcome: Result<(Staging, Unpacked), LayerError>,
    sources: Vec<String>,
}

pub(crate) struct LayerPull {
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Registry,
    pub(crate) permits: Arc<RegistryPermits>,
    pub(crate) unpacking: Arc<KeyedLocks>,
    pub(crate) image: Reference,
    pub(crate) credentials: Option<Arc<Credentials>>,
    pub(crate) blob: LayerBlob,
    pub(crate) diff_id: Digest,
    pub(crate) chain_id: Digest,
    /// Pulls of the layers below, the bottom one first.
    pub(crate) below: Vec<Flight<Outcome>>,
    pub(crate) limits: Limits,
}

impl LayerPull {
    pub(crate) async fn run(self) -> Outcome {
        self.commit().await.map_err(Arc::new)
    }

    async fn commit(&self) -> Result<Digest, LayerError> {
        if let Some(key) = self.present() {
            return Ok(key);
        }
        // Images with different layers below may share this layer: the second pull waits, then finds it in the store.
        let alone = self.unpacking.lock(&(self.image.registry().to_owned(), self.diff_id.clone())).await;
        if let Some(key) = self.present() {
            return Ok(key);
        }
        let (staged, unpacked) = self.unpack().await?;
        if unpacked.stands_alone() {
            return self.finish(staged, unpacked, &self.diff_id, true).await;
        }
        drop(alone);
        let (staged, unpacked) = self.complete(staged, unpacked).await?;
        self.finish(staged, unpacked, &self.chain_id, false).await
    }

    fn present(&self) -> Option<Digest> {
        self.store.layer(&self.diff_id, &self.chain_id)
    }

    /// Fetches and unpacks the layer; retries with another host if the content was wrong.
    async fn unpack(&self) -> Result<(Staging, Unpacked), LayerError> {
        let _permit = self.permits.acquire(self.image.registry()).await.ok_or(LayerError::Lost)?;
        let mut avoided = Vec::new();
        loop {
            let Attempt { outcome, sources } = self.attempt(&avoided).await;
            let (failure, blamed) = match (outcome, sources.into_iter().next()) {
                (Err(failure), Some(host)) if failure.may_be_the_hosts() => (failure, host),
                (outcome, _) => return outcome,
            };
            let digest = &self.blob.digest;
            tracing::warn!(%digest, host = blamed, error = with_causes(&failure), "a registry host sent a bad layer");
            avoided.push(blamed);
            if !self.registry.has_other_hosts(&self.image, &avoided).await.map_err(LayerError::Fetch)? {
                return Err(failure);
            }
        }
    }

    async fn attempt(&self, avoided: &[String]) -> Attempt {
        let (chunks, received) = mpsc::channel(MAX_QUEUED_CHUNKS);
        let (store, blob, diff_id, limits) =
            (Arc::clone(&self.store), self.blob.clone(), self.diff_id.clone(), self.limits);
        let unpacking = in_thread(move || {
            let staged = store.stage().map_err(store_error)?;
            let unpacked = stream::unpack(received, &blob, &diff_id, &staged.path, limits)?;
            Ok((staged, unpacked))
        });
        let mut sources = Vec::new();
        // Await both to the end: an unpacker left running would still write when the next attempt starts.
        let (fetched, unpacked) = tokio::join!(self.fetch(chunks, avoided, &mut sources), unpacking);
        Attempt { outcome: fetched.and(unpacked), sources }
    }

    /// Feeds the unpacker until the blob ends or the unpacker stops receiving. Adds the hosts read from to `sources`.
    async fn fetch(
        &self,
        chunks: mpsc::Sender<Bytes>,
        avoided: &[String],
        sources: &mut Vec<String>,
    ) -> Result<(), LayerError> {
        let LayerBlob { digest, size, .. } = &self.blob;
        let credentials = self.credentials.as_deref();
        let opened = self.registry.blob_elsewhere(&self.image, digest, *size, credentials, avoided).await;
        let mut blob = opened.map_err(LayerError::Fetch)?;
        let fed = feed(&mut blob, chunks).await;
        sources.extend_from_slice(blob.sources());
        fed
    }

    async fn complete(
        &self,
        staged: Staging,
        mut unpacked: Unpacked,
    ) -> Result<(Staging, Unpacked), LayerError> {
        let below = try_join_all(self.below.iter().cloned()).await.map_err(LayerError::Below)?;
        let parents = self.store.stack(&below);
        in_thread(move || {
            unpack::complete(&mut unpacked, &parents).map_err(LayerError::Unpack)?;
            Ok((staged, unpacked))
        })
        .await
    }

    async fn finish(
        &self,
        staged: Staging,
        unpacked: Unpacked,
        key: &Digest,
        stands_alone: bool,
    ) -> Result<Digest, LayerError> {
        let (store, key) = (Arc::clone(&self.store), key.clone());
        let Unpacked { usage, hides_all_below, .. } = unpacked;
        let layer = Layer { usage, stands_alone, hides_all_below };
        in_thread(move || {
            unpacked.finish().map_err(LayerError::Unpack)?;
            drop(unpacked);
            store.commit_layer(staged, &key, layer).map_err(store_error)?;
            Ok(key)
        })
        .await
    }
}

async fn feed(blob: &mut Blob, chunks: mpsc::Sender<Bytes>) -> Result<(), LayerError> {
    while let Some(chunk) = blob.chunk().await.map_err(LayerError::Fetch)? {
        if chunks.send(chunk).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Formats an error with all its causes, for the log.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LayerError> + Send + 'static,
) -> Result<T, LayerError> {
    // The outer result is the thread's, the inner one the work's.
    blocking("pull a layer", move || Ok(work())).await.map_err(store_error)?
}

fn store_error(error: Error) -> LayerError {
    LayerError::Store(Box::new(error))
}
