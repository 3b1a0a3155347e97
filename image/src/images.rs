//! The store of images, as the rest of the runtime uses it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::Error;
use crate::image::Image;
use crate::layers::Layers;
use crate::platform::Platform;
use crate::pull::{Puller, blocking};
use crate::reference::Reference;
use crate::registry::{self, Credentials, Registry};
use crate::store::Store;
use crate::unpack::{Limits, Usage};

#[cfg(test)]
mod tests;

/// The fewest hex digits by which an image can be asked for.
const SHORTEST_ID: usize = 4;

/// How a store is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory that belongs to the store alone; made if it is not there. Overlay's `lowerdir` will hold paths
    /// below it, so that it must hold neither `:` nor `,`.
    pub root: PathBuf,
    /// Registries.
    pub registry: registry::Config,
    /// How many layers are fetched and unpacked at once from one registry.
    pub max_parallel_layers: usize,
    /// What machine images are for.
    pub platform: Platform,
    /// What one layer may hold at most.
    pub limits: Limits,
    /// Normalized names of images that are never to be removed to free space.
    pub pinned: Vec<String>,
}

impl Config {
    /// The usual setting in `root`: three layers at once, for this machine.
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

/// The images on this machine. Clones share one store. One process may have a root open at a time.
#[derive(Clone)]
pub struct Images {
    puller: Arc<Puller>,
}

impl Images {
    /// Opens the store, clearing away what an earlier end in the middle of things left.
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

    /// Pulls an image, or what of it is not here. Needs to run in a tokio runtime. Dropping the future gives the pull up;
    /// whole layers stay for an hour for the next try to find, nothing half-made does.
    pub async fn pull(
        &self,
        image: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Arc<Image>, Error> {
        self.puller.pull(image, credentials).await
    }

    /// All images, in the order of their ids.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.store().list()
    }

    /// The image of this id (with or without `sha256:`), tag in any spelling, `name@digest`, or beginning of an id that
    /// is long enough (4 digits) and fits one image only.
    pub fn get(&self, name_or_id: &str) -> Option<Arc<Image>> {
        self.by_id(name_or_id).or_else(|| self.by_name(name_or_id)).or_else(|| self.by_prefix(name_or_id))
    }

    /// Removes an image with all its names. One that is not here is no error. Its layers stay while they are leased or
    /// part of another image.
    pub async fn remove(&self, name_or_id: &str) -> Result<(), Error> {
        let Some(image) = self.get(name_or_id) else {
            // An earlier try may have failed half-way.
            return self.in_store("remove unused layers", Store::remove_unused).await;
        };
        self.in_store("remove the image", move |store| store.remove_image(&image.id)).await
    }

    /// Keeps the image's layers for `holder` until it is released, whatever becomes of the image, also over restarts.
    /// A holder has one lease: another image takes the place of the first.
    pub async fn lease(&self, image: &Digest, holder: &str) -> Result<Layers, Error> {
        let (image, holder) = (image.clone(), holder.to_owned());
        self.in_store("lease layers", move |store| store.lease(&image, &holder)).await
    }

    /// The layers `holder` has leased.
    pub fn leased(&self, holder: &str) -> Option<Layers> {
        self.store().leased(holder)
    }

    /// Ends a lease. None is no error.
    pub async fn release(&self, holder: &str) -> Result<(), Error> {
        let holder = holder.to_owned();
        self.in_store("release layers", move |store| store.release(&holder)).await
    }

    /// All holders of leases.
    pub fn leases(&self) -> Vec<String> {
        self.store().leases()
    }

    /// Disk space the layers take, counted while they were unpacked.
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
        if prefix.len() < SHORTEST_ID || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
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
