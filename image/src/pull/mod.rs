//! Pulls an image: manifest, configuration, then all layers missing in the store, in parallel.
//!
//! ```text
//!  resolve ──> configuration ──> layer 1: fetch│hash│inflate│hash│unpack ──> (complete from below) ──> commit ─┐
//!                                layer 2: ...                                                                  ├──> record
//!                                layer n: ...                                                                  ┘
//! ```
//!
//! A layer pull under way is shared by all image pulls that need it, and stops when the last of them is gone.
//! Attributes of implied directories and targets of hard links that a layer takes from those below it are added once
//! these are committed. Most layers need neither, and are then shared by all images whatever lies below.

mod flights;
mod layer;
mod permits;
mod resolve;
mod stream;

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::try_join_all;

use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::image::Image;
use crate::manifest::{Manifest, ManifestError, chain_ids};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{self, Credentials, Registry};
use crate::store::{KEEP_UNFINISHED, Pulled, RemovalGuard, Store};
use crate::unpack::Limits;

use self::flights::{Flight, Flights, KeyedLocks};
pub use self::layer::LayerError;
use self::layer::{LayerPull, Outcome};
use self::permits::RegistryPermits;
use self::resolve::Resolved;

/// State shared by all pulls.
pub(crate) struct Puller {
    pub(crate) store: Arc<Store>,
    registry: Registry,
    platform: Platform,
    limits: Limits,
    permits: Arc<RegistryPermits>,
    flights: Flights<Outcome>,
    unpacking: Arc<KeyedLocks>,
}

impl Puller {
    pub(crate) fn new(
        store: Arc<Store>,
        registry: Registry,
        platform: Platform,
        limits: Limits,
        parallel: usize,
    ) -> Self {
        Puller {
            store,
            registry,
            platform,
            limits,
            permits: Arc::new(RegistryPermits::new(parallel)),
            flights: Flights::new(),
            unpacking: Arc::default(),
        }
    }

    pub(crate) async fn pull(
        &self,
        image: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Arc<Image>, Error> {
        let unfinished = Unfinished(Arc::downgrade(&self.store));
        let pulled = self.pull_all(image, credentials.map(Arc::new)).await;
        match &pulled {
            Ok(_) => unfinished.finish(),
            // Finished layers of this and other unfinished pulls take up the space that the disk lacks.
            Err(error) if error.kind() == Kind::NoSpace => self.sweep_unfinished().await,
            Err(_) => {}
        }
        pulled
    }

    async fn pull_all(
        &self,
        image: &Reference,
        credentials: Option<Arc<Credentials>>,
    ) -> Result<Arc<Image>, Error> {
        let Resolved { manifest, configuration, diff_ids, documents } =
            self.resolve(image, credentials.as_deref()).await?;
        let chain = chain_ids(&diff_ids);
        let protection = self.store.protect(diff_ids.iter().chain(&chain).cloned().collect());
        let layers = self.layers(image, &manifest, &diff_ids, &chain, credentials).await?;
        let pulled = Pulled {
            id: manifest.config.clone(),
            size: manifest.size(),
            names: names(image, &documents),
            manifests: documents.into_iter().map(|document| (document.digest, document.bytes)).collect(),
            configuration,
            layers: chain.into_iter().zip(layers).collect(),
        };
        self.record(pulled, protection).await
    }

    /// Removes the layers of unfinished pulls that no pull under way relies on. On failure they stay for a later sweep.
    async fn sweep_unfinished(&self) {
        let store = Arc::clone(&self.store);
        let swept = blocking("sweep", move || store.sweep_unfinished(Duration::ZERO)).await;
        if let Err(error) = swept {
            tracing::warn!(%error, "cannot remove the layers of a failed pull");
        }
    }

    /// Returns the keys of the layers, the bottom one first, once all are in the store.
    async fn layers(
        &self,
        image: &Reference,
        manifest: &Manifest,
        diff_ids: &[Digest],
        chain: &[Digest],
        credentials: Option<Arc<Credentials>>,
    ) -> Result<Vec<Digest>, Error> {
        let start = || self.start(image, manifest, diff_ids, chain, credentials.clone());
        let (flights, joined) = start();
        match outcomes(image, manifest, flights).await {
            // A joined pull may have failed for reasons of another image pull (its credentials, say): retry as our own.
            Err(_) if joined => outcomes(image, manifest, start().0).await,
            outcome => outcome,
        }
    }

    /// Starts or joins the pull of every layer; the flag tells whether any was joined.
    fn start(
        &self,
        image: &Reference,
        manifest: &Manifest,
        diff_ids: &[Digest],
        chain: &[Digest],
        credentials: Option<Arc<Credentials>>,
    ) -> (Vec<Flight<Outcome>>, bool) {
        let mut flights: Vec<Flight<Outcome>> = Vec::new();
        let mut any_joined = false;
        for ((blob, diff_id), chain_id) in manifest.layers.iter().zip(diff_ids).zip(chain) {
            let pull = LayerPull {
                store: Arc::clone(&self.store),
                registry: self.registry.clone(),
                permits: Arc::clone(&self.permits),
                unpacking: Arc::clone(&self.unpacking),
                image: image.clone(),
                credentials: credentials.clone(),
                blob: blob.clone(),
                diff_id: diff_id.clone(),
                chain_id: chain_id.clone(),
                below: flights.clone(),
                limits: self.limits,
            };
            let lost = Err(Arc::new(LayerError::Lost));
            let (flight, joined) =
                self.flights.join(&(image.registry().to_owned(), chain_id.clone()), || pull.run(), lost);
            any_joined |= joined;
            flights.push(flight);
        }
        (flights, any_joined)
    }

    async fn record(&self, pulled: Pulled, protection: RemovalGuard) -> Result<Arc<Image>, Error> {
        let store = Arc::clone(&self.store);
        blocking("record the image", move || {
            // Held until the image itself refers to its layers, even if the caller has dropped the pull.
            let _protection = protection;
            store.commit_image(&pulled)
        })
        .await
    }
}

/// Guard of a pull. If the pull fails or is dropped before its image is recorded, the guard schedules a sweep, so that
/// the finished layers stay for the next try and are removed after [`KEEP_UNFINISHED`] even if nothing else happens.
struct Unfinished(Weak<Store>);

impl Unfinished {
    fn finish(mut self) {
        self.0 = Weak::new();
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let store = std::mem::take(&mut self.0);
        if store.strong_count() == 0 {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(sweep_later(store));
        }
    }
}

async fn sweep_later(store: Weak<Store>) {
    tokio::time::sleep(KEEP_UNFINISHED).await;
    let Some(store) = store.upgrade() else { return };
    let swept = blocking("sweep", move || store.sweep_unfinished(KEEP_UNFINISHED)).await;
    if let Err(error) = swept {
        tracing::warn!(%error, "cannot remove the layers of pulls that came to no end");
    }
}

async fn outcomes(
    image: &Reference,
    manifest: &Manifest,
    flights: Vec<Flight<Outcome>>,
) -> Result<Vec<Digest>, Error> {
    let named = flights.into_iter().zip(&manifest.layers).map(async |(flight, blob)| {
        let failed = |source| Error::Layer { digest: blob.digest.clone(), image: image.to_string(), source };
        flight.await.map_err(failed)
    });
    try_join_all(named).await
}

/// Returns the names an image gets by being pulled as `image`.
fn names(image: &Reference, documents: &[registry::Manifest]) -> Vec<String> {
    let tag = image.tag().filter(|_| image.digest().is_none());
    let tagged = tag.map(|tag| format!("{}:{tag}", image.name()));
    let digest = documents.first().map(|document| image.with_digest(document.digest.clone()).to_string());
    tagged.into_iter().chain(digest).collect()
}

/// Runs work that waits for the disk on tokio's blocking threads. A panic becomes [`Error::Interrupted`].
pub(crate) async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(Error::Interrupted { step }))
}

fn refused(step: &'static str, image: &Reference) -> impl FnOnce(registry::Error) -> Error {
    move |source| Error::Registry { step, image: image.to_string(), source: Box::new(source) }
}

fn unusable(what: &'static str, digest: &Digest, image: &Reference, source: ManifestError) -> Error {
    Error::Manifest { what, digest: digest.clone(), image: image.to_string(), source: Box::new(source) }
}
