//! Pulls an image: manifest, configuration, then all layers that are not here, in parallel.
//!
//! ```text
//!  resolve ──> configuration ──> layer 1: fetch│hash│inflate│hash│unpack ──> (complete from below) ──> commit ─┐
//!                                layer 2: ...                                                                  ├──> record
//!                                layer n: ...                                                                  ┘
//! ```
//!
//! A layer under way is joined by all pulls that need it and stops when the last of them is gone. What a layer needs
//! from those below it (attributes of directories it only implies, targets of hard links) it takes once they are
//! committed; most layers need nothing, and are then shared by all images whatever lies below.

mod flights;
mod layer;
mod stream;

use std::sync::Arc;

use futures::future::try_join_all;
use tokio::sync::Semaphore;

use crate::digest::Digest;
use crate::error::Error;
use crate::image::Image;
use crate::manifest::{Configuration, Document, Manifest, ManifestError, chain_ids};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{self, Credentials, Registry};
use crate::store::{Pulled, Store, Wanted};
use crate::unpack::Limits;

use self::flights::{Flight, Flights, Locks};
pub use self::layer::LayerError;
use self::layer::{LayerPull, Outcome};

/// An index may lead to an index, but not on for ever.
const MAX_DEPTH: usize = 3;

/// The most bytes an image configuration may have.
const MAX_CONFIGURATION: u64 = 8 << 20;

/// What all pulls share.
pub(crate) struct Puller {
    pub(crate) store: Arc<Store>,
    registry: Registry,
    platform: Platform,
    limits: Limits,
    /// Layers fetched and unpacked at once.
    slots: Arc<Semaphore>,
    flights: Flights<Outcome>,
    unpacking: Arc<Locks>,
}

/// A name made out: what to fetch, and what led there.
struct Resolved {
    manifest: Manifest,
    /// The documents on the way, the one the name stands for first.
    documents: Vec<registry::Manifest>,
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
            slots: Arc::new(Semaphore::new(parallel.max(1))),
            flights: Flights::new(),
            unpacking: Arc::default(),
        }
    }

    pub(crate) async fn pull(
        &self,
        image: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Arc<Image>, Error> {
        let credentials = credentials.map(Arc::new);
        let resolved = self.resolve(image, credentials.as_deref()).await?;
        let manifest = &resolved.manifest;
        let bytes = self.configuration(image, manifest, credentials.as_deref()).await?;
        let unfit = |source| unusable("configuration", &manifest.config, image, source);
        let configuration = Configuration::parse(&bytes).map_err(unfit)?;
        let diff_ids = configuration.diff_ids(manifest, &self.platform).map_err(unfit)?;
        let chain = chain_ids(diff_ids);
        let wanted = self.store.want(diff_ids.iter().chain(&chain).cloned().collect());
        let layers = self.layers(image, manifest, diff_ids, &chain, credentials).await?;
        let pulled = Pulled {
            id: manifest.config.clone(),
            size: manifest.size(),
            names: names(image, &resolved.documents),
            manifests: resolved
                .documents
                .into_iter()
                .map(|document| (document.digest, document.bytes))
                .collect(),
            configuration: bytes,
            layers: chain.into_iter().zip(layers).collect(),
        };
        self.record(pulled, wanted).await
    }

    async fn resolve(&self, image: &Reference, credentials: Option<&Credentials>) -> Result<Resolved, Error> {
        let mut documents = Vec::new();
        let mut next = None;
        for _ in 0..MAX_DEPTH {
            let fetched = self.registry.manifest(image, next.as_ref(), credentials).await;
            let document = fetched.map_err(refused("fetch the manifest", image))?;
            let parsed = Document::parse(&document.bytes, &document.media_type, &self.platform)
                .map_err(|source| unusable("manifest", &document.digest, image, source))?;
            documents.push(document);
            match parsed {
                Document::Image(manifest) => return Ok(Resolved { manifest, documents }),
                Document::Index(fitting) => next = fitting.into_iter().next(),
            }
        }
        let deepest =
            documents.last().map_or_else(|| Digest::sha256(b""), |document| document.digest.clone());
        Err(unusable("index", &deepest, image, ManifestError::Nested(MAX_DEPTH)))
    }

    /// The configuration's bytes, which tell what layers there are. Not fetched if the image is known.
    async fn configuration(
        &self,
        image: &Reference,
        manifest: &Manifest,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<u8>, Error> {
        let (store, id) = (Arc::clone(&self.store), manifest.config.clone());
        if let Some(known) = blocking("read configuration", move || store.configuration(&id)).await? {
            return Ok(known);
        }
        let fetched = self.registry.blob_bytes(image, &manifest.config, MAX_CONFIGURATION, credentials).await;
        fetched.map_err(refused("fetch the configuration", image))
    }

    /// Keys of the layers, the bottom one first, all of them there.
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
            // What another pull began may have failed for its reasons (its credentials, say): try as our own.
            Err(_) if joined => outcomes(image, manifest, start().0).await,
            outcome => outcome,
        }
    }

    /// Starts or joins every layer's pull; tells whether one was joined.
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
                slots: Arc::clone(&self.slots),
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
            let (flight, joined) = self.flights.join(chain_id, || pull.run(), lost);
            any_joined |= joined;
            flights.push(flight);
        }
        (flights, any_joined)
    }

    async fn record(&self, pulled: Pulled, wanted: Wanted) -> Result<Arc<Image>, Error> {
        let store = Arc::clone(&self.store);
        blocking("record the image", move || {
            // Held until the image itself refers to its layers, even if the caller gave up meanwhile.
            let _wanted = wanted;
            store.commit_image(&pulled)
        })
        .await
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

/// The names an image gets by being pulled as `image`.
fn names(image: &Reference, documents: &[registry::Manifest]) -> Vec<String> {
    let tag = image.tag().filter(|_| image.digest().is_none());
    let tagged = tag.map(|tag| format!("{}:{tag}", image.name()));
    let digest = documents.first().map(|document| image.with_digest(document.digest.clone()).to_string());
    tagged.into_iter().chain(digest).collect()
}

/// Runs what waits for the disk on a thread that may.
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
