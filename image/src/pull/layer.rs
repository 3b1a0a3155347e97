//! The pull of one layer, from nothing to a committed directory.

use std::io;
use std::sync::Arc;

use futures::future::try_join_all;
use tokio::sync::{Semaphore, mpsc};

use super::flights::{Flight, Locks};
use super::{blocking, stream};
use crate::digest::Digest;
use crate::error::{Error, Kind, io_kind, registry_kind};
use crate::manifest::LayerBlob;
use crate::reference::Reference;
use crate::registry::{self, Bytes, Credentials, Registry};
use crate::store::{Staging, Store};
use crate::unpack::{self, Limits, Unpacked};

/// Chunks of a blob that may wait to be inflated.
const CHUNKS: usize = 64;

/// The key of the committed layer.
pub(crate) type Outcome = Result<Digest, Arc<LayerError>>;

/// Why a layer could not be pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The registry failed to deliver it.
    #[error("fetch")]
    Fetch(#[source] registry::Error),
    /// The blob is not the one asked for.
    #[error("verify: {length} bytes with digest {found}, expected {size} bytes with {expected}")]
    Digest {
        /// What the manifest says.
        expected: Digest,
        /// And its size.
        size: u64,
        /// What came.
        found: Digest,
        /// And its size.
        length: u64,
    },
    /// The unpacked bytes are not those the configuration promises.
    #[error("verify: unpacked it has digest {found}, the configuration says {expected}")]
    DiffId {
        /// What the configuration says.
        expected: Digest,
        /// What came out.
        found: Digest,
    },
    /// The compressed stream is broken.
    #[error("inflate")]
    Inflate(#[source] io::Error),
    /// The media type is wrong.
    #[error("inflate: the media type says {0}, the content is something else")]
    NotCompressed(&'static str),
    /// The archive could not be unpacked.
    #[error("unpack")]
    Unpack(#[source] unpack::Error),
    /// The store could not take it.
    #[error("store")]
    Store(#[source] Box<Error>),
    /// A layer below it failed.
    #[error("wait for the layers below")]
    Below(#[source] Arc<LayerError>),
    /// There are no more threads to be had.
    #[error("start a thread")]
    Thread(#[source] io::Error),
    /// The task that did it died.
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
}

pub(crate) struct LayerPull {
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Registry,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) unpacking: Arc<Locks>,
    pub(crate) image: Reference,
    pub(crate) credentials: Option<Arc<Credentials>>,
    pub(crate) blob: LayerBlob,
    pub(crate) diff_id: Digest,
    pub(crate) chain_id: Digest,
    /// The layers below, the bottom one first.
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
        // Two chains may hold the same layer: the second waits to find it there.
        let alone = self.unpacking.lock(&self.diff_id).await;
        if let Some(key) = self.present() {
            return Ok(key);
        }
        let (staged, unpacked) = self.unpack().await?;
        if unpacked.stands_alone() {
            return self.finish(staged, unpacked, self.diff_id.clone()).await;
        }
        drop(alone);
        let (staged, unpacked) = self.complete(staged, unpacked).await?;
        self.finish(staged, unpacked, self.chain_id.clone()).await
    }

    fn present(&self) -> Option<Digest> {
        [&self.diff_id, &self.chain_id].into_iter().find(|key| self.store.has_layer(key)).cloned()
    }

    async fn unpack(&self) -> Result<(Staging, Unpacked), LayerError> {
        let _slot = self.slots.acquire().await.map_err(|_| LayerError::Lost)?;
        let (chunks, received) = mpsc::channel(CHUNKS);
        let (store, blob, diff_id, limits) =
            (Arc::clone(&self.store), self.blob.clone(), self.diff_id.clone(), self.limits);
        let unpacking = in_thread(move || {
            let staged = store.stage().map_err(stored)?;
            let unpacked = stream::unpack(received, &blob, &diff_id, &staged.path, limits)?;
            Ok((staged, unpacked))
        });
        // Both to their ends: an unpacker left behind would still be writing when the next try starts.
        let (fetched, unpacked) = tokio::join!(self.fetch(chunks), unpacking);
        fetched?;
        unpacked
    }

    /// Feeds the unpacker until the blob ends or nobody takes more.
    async fn fetch(&self, chunks: mpsc::Sender<Bytes>) -> Result<(), LayerError> {
        let credentials = self.credentials.as_deref();
        let opened = self.registry.blob(&self.image, &self.blob.digest, self.blob.size, credentials).await;
        let mut blob = opened.map_err(LayerError::Fetch)?;
        while let Some(chunk) = blob.chunk().await.map_err(LayerError::Fetch)? {
            if chunks.send(chunk).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
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

    async fn finish(&self, staged: Staging, unpacked: Unpacked, key: Digest) -> Result<Digest, LayerError> {
        let (store, usage) = (Arc::clone(&self.store), unpacked.usage);
        in_thread(move || {
            unpacked.finish().map_err(LayerError::Unpack)?;
            drop(unpacked);
            store.commit_layer(staged, &key, usage).map_err(stored)?;
            Ok(key)
        })
        .await
    }
}

async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LayerError> + Send + 'static,
) -> Result<T, LayerError> {
    // The outer result is the thread's, the inner one the work's.
    blocking("pull a layer", move || Ok(work())).await.map_err(stored)?
}

fn stored(error: Error) -> LayerError {
    LayerError::Store(Box::new(error))
}
