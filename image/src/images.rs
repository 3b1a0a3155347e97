//! The image store as the rest of the runtime uses it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::Error;
use crate::image::Image;
use crate::merged_view::Layers;
use crate::platform::Platform;
use crate::pull::{Puller, blocking};
use crate::reference::Reference;
use crate::registry::{self, Credentials, Registry};
use crate::store::Store;
use crate::unpack::{Limits, Usage};

#[cfg(test)]
mod tests;

/// The fewest hex digits of an id prefix that [`Images::get`] accepts.
const MIN_ID_PREFIX_LENGTH: usize = 4;

/// Configuration of an image store.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of the store, used by nothing else; created if missing. Its path must contain neither `:` nor `,`,
    /// because overlay's `lowerdir` option will hold paths below it.
    pub root: PathBuf,
    /// How registries are reached.
    pub registry: registry::Config,
    /// The most layers fetched and unpacked at once from one registry.
    pub max_parallel_layers: usize,
    /// Platform that images are pulled for.
    pub platform: Platform,
    /// Limits of one layer.
    pub limits: Limits,
    /// Normalized names of images that must never be removed to free space.
    pub pinned: Vec<String>,
}

impl Config {
    /// Returns the default configuration for a store in `root`: three layers at once, the platform of this machine.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Config {
            root: root.into(),
            registry: registry::Config::default(),
            max_parallel_layers: 3,
            platform: Platform::host(),
            limits: Limits::default(),
            pinned: Vec::new(),
        }
    }
}

/// The images on this machine. Clones share one store. Only one process may open a root at a time (not checked here).
#[derive(Clone)]
pub struct Images {
    puller: Arc<Puller>,
}

impl Images {
    /// Opens the store and removes what an interrupted run left behind. Fails on an index of an unknown version.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let registry = Registry::new(config.registry).map_err(|source| Error::Registry {
            step: "set up the registry client",
            image: "any".to_owned(),
            source: Box::new(source),
        })?;
        let pinned: HashSet<String> = config.pinned.into_iter().collect();
        let store = blocking("open the image store", move || Store::open(config.root, pinned)).await?;
        let puller = Puller::new(
            Arc::new(store),
            registry,
            config.platform,
            config.limits,
            config.max_parallel_layers,
        );
        Ok(Images { puller: Arc::new(puller) })
    }

    /// Pulls an image; layers already in the store are not fetched again. Must be called in a tokio runtime. Dropping
    /// the future cancels the pull: finished layers are kept for an hour for the next try, unfinished ones are removed.
    pub async fn pull(
        &self,
        image: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Arc<Image>, Error> {
        self.puller.pull(image, credentials).await
    }

    /// Returns all images, ordered by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.store().list()
    }

    /// Finds an image by id (with or without `sha256:`), by tag in any spelling, by `name@digest`, or by a prefix of
    /// the id with at least 4 digits that fits one image only.
    pub fn get(&self, name_or_id: &str) -> Option<Arc<Image>> {
        self.by_id(name_or_id).or_else(|| self.by_name(name_or_id)).or_else(|| self.by_prefix(name_or_id))
    }

    /// Removes an image with all its names. An unknown image is no error. Its layers stay while they are leased or part
    /// of another image.
    pub async fn remove(&self, name_or_id: &str) -> Result<(), Error> {
        let Some(image) = self.get(name_or_id) else {
            // An earlier removal may have forgotten the image and then failed to remove its layers.
            return self.in_store("remove unused layers", Store::remove_unused).await;
        };
        self.in_store("remove the image", move |store| store.remove_image(&image.id)).await
    }

    /// Keeps the image's layers until `holder` releases them, even if the image is removed, and over restarts. A holder
    /// has one lease: leasing another image replaces it. Fails with [`Error::Unknown`] or [`Error::Damaged`].
    pub async fn lease(&self, image: &Digest, holder: &str) -> Result<Layers, Error> {
        let (image, holder) = (image.clone(), holder.to_owned());
        self.in_store("lease layers", move |store| store.lease(&image, &holder)).await
    }

    /// Returns the layers `holder` has leased.
    pub fn leased(&self, holder: &str) -> Option<Layers> {
        self.store().leased(holder)
    }

    /// Ends the lease of `holder`, if there is one.
    pub async fn release(&self, holder: &str) -> Result<(), Error> {
        let holder = holder.to_owned();
        self.in_store("release layers", move |store| store.release(&holder)).await
    }

    /// Returns all holders of leases.
    pub fn leases(&self) -> Vec<String> {
        self.store().leases()
    }

    /// Returns the disk space of all layers, as counted when they were unpacked.
    pub fn usage(&self) -> Usage {
        self.store().usage()
    }

    fn by_id(&self, text: &str) -> Option<Arc<Image>> {
        let id: Digest = text.parse().or_else(|_| format!("sha256:{text}").parse()).ok()?;
        self.store().image(&id)
    }

    fn by_name(&self, text: &str) -> Option<Arc<Image>> {
        let reference: Reference = text.parse().ok()?;
        let name = match reference.digest() {
            Some(digest) => reference.with_digest(digest.clone()).to_string(),
            None => reference.to_string(),
        };
        self.store().named(&name)
    }

    fn by_prefix(&self, text: &str) -> Option<Arc<Image>> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.len() < MIN_ID_PREFIX_LENGTH || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut fitting = self.list().into_iter().filter(|image| image.id.hex().starts_with(prefix));
        fitting.next().filter(|_| fitting.next().is_none())
    }

    fn store(&self) -> &Store {
        &self.puller.store
    }

    async fn in_store<T: Send + 'static>(
        &self,
        step: &'static str,
        work: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.puller.store);
        blocking(step, move || work(&store)).await
    }
}
