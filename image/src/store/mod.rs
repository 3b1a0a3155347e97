//! The store's directories and index, and the rules that keep them in step:
//!
//! ```text
//! staging/<n> --unpack--> sync --rename--> layers/<hex> --record--> index      (commit)
//! index --forget--> layers/<hex> --rename--> trash/<n> --delete-->             (removal)
//! ```
//!
//! A directory is in `layers` before the index records it, and still there when the index has forgotten it. A crash in
//! between leaves only a directory, which is swept when the store is opened. All functions here block.

mod checkpoint;
mod index;
mod inspect;
mod log_space;
mod migrate;
#[cfg(test)]
mod tests;
mod trash;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::digest::Digest;
use crate::error::Error;
use crate::image::Image;
use crate::merged_view::Layers;
use crate::unpack::Usage;
use berth_failpoint::{failpoint, killpoint};

use self::index::Index;
pub(crate) use self::index::{Layer, Pulled};
pub use self::inspect::{Inspection, inspect};
pub use self::log_space::reserve_log;
use self::trash::Trash;

/// How long layers of a pull that failed or was cancelled are kept for the next try.
pub(crate) const KEEP_UNFINISHED: Duration = Duration::from_secs(3600);

/// Copy of the index in memory, so that reads never wait for the disk.
#[derive(Default)]
struct IndexCache {
    images: BTreeMap<Digest, Arc<Image>>,
    names: HashMap<String, Digest>,
    /// Keys of each image's layers, the bottom one first.
    image_layers: HashMap<Digest, Vec<Digest>>,
    layers: HashMap<Digest, Layer>,
    leases: BTreeMap<String, Vec<Digest>>,
}

pub(crate) struct Store {
    root: PathBuf,
    index: Mutex<Index>,
    cache: RwLock<IndexCache>,
    /// Layers that pulls under way rely on, with the number of pulls. Locked inside `index`, never the other way round.
    protected: Mutex<HashMap<Digest, usize>>,
    /// Held while a layer is moved into place, which waits for the disk. Never locked inside `index`: creating a
    /// container waits for `index`.
    committing: Mutex<()>,
    /// Layers that the index has forgotten but whose directories still exist. Locked after `index` and `protected`.
    forgotten: Mutex<HashSet<Digest>>,
    trash: Trash,
    staged: AtomicU64,
    pinned: HashSet<String>,
}

impl Store {
    pub(crate) fn open(root: PathBuf, pinned: HashSet<String>) -> Result<Self, Error> {
        for name in ["", "layers", "staging", "trash"] {
            make_private(&root.join(name)).map_err(failed("create", &root.join(name)))?;
        }
        let mut index = Index::open(&root.join("index.db"))?;
        migrate::run(&mut index, &root.join("layers"))?;
        let store = Store {
            index: Mutex::new(index),
            trash: Trash::new(root.join("trash")),
            root,
            cache: RwLock::default(),
            protected: Mutex::default(),
            forgotten: Mutex::default(),
            committing: Mutex::default(),
            staged: AtomicU64::new(0),
            pinned,
        };
        store.sweep()?;
        Ok(store)
    }

    /// Makes directories and index agree after an interrupted run.
    fn sweep(&self) -> Result<(), Error> {
        for path in entries(&self.root.join("staging"))? {
            self.trash.discard(&path)?;
        }
        let mut index = self.lock_index();
        let known = index.layers()?;
        let names: HashSet<&str> = known.keys().map(Digest::hex).collect();
        for path in entries(&self.root.join("layers"))? {
            let name = path.file_name().and_then(|name| name.to_str());
            if !name.is_some_and(|name| names.contains(name)) {
                self.trash.discard(&path)?;
            }
        }
        let missing: Vec<_> = known.into_keys().filter(|key| !self.layer_path(key).is_dir()).collect();
        index.forget_layers(&missing)?;
        self.refresh(&index)?;
        self.cache_mut().leases = index.leases()?;
        self.collect(&mut index)?;
        killpoint!(IMAGES_SWEPT);
        self.trash.empty()
    }

    /// Creates an empty directory to unpack a layer into. Dropping it uncommitted removes the directory.
    pub(crate) fn stage(self: &Arc<Self>) -> Result<Staging, Error> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("staging").join(number.to_string());
        let create = || {
            std::fs::DirBuilder::new().mode(0o755).create(&path)?;
            // This becomes the root directory of images: its mode must not depend on the umask.
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))
        };
        create().map_err(failed("create", &path))?;
        let opened = File::open(&path).map_err(failed("open", &path))?;
        let staging = Staging { path, opened, store: Arc::clone(self) };
        failpoint!(LAYER_STAGED)?;
        Ok(staging)
    }

    /// Makes a staged layer durable, then visible. If the layer exists already, the staged one is dropped.
    pub(crate) fn commit_layer(
        self: &Arc<Self>,
        staged: Staging,
        key: &Digest,
        layer: Layer,
    ) -> Result<(), Error> {
        failpoint!(LAYER_UNPACKED)?;
        staged.sync()?;
        failpoint!(LAYER_SYNCED)?;
        let _committing = lock(&self.committing);
        // The pull may have been cancelled: keep the layer from being collected between rename and record.
        let _protection = self.protect(vec![key.clone()]);
        let path = self.layer_path(key);
        if path.is_dir() && self.cache().layers.contains_key(key) {
            return Ok(());
        }
        self.trash.discard(&path)?;
        std::fs::rename(&staged.path, &path).map_err(failed("commit", &path))?;
        let recorded = self.record_layer(key, layer);
        if recorded.is_err() {
            self.trash.discard(&path)?;
        }
        recorded
    }

    fn record_layer(&self, key: &Digest, layer: Layer) -> Result<(), Error> {
        failpoint!(LAYER_RENAMED)?;
        let layers = self.root.join("layers");
        sync_directory(&layers).map_err(failed("sync", &layers))?;
        let mut index = self.lock_index();
        index.add_layer(key, layer)?;
        self.cache_mut().layers.insert(key.clone(), layer);
        killpoint!(LAYER_RECORDED);
        Ok(())
    }

    pub(crate) fn commit_image(&self, pulled: &Pulled) -> Result<Arc<Image>, Error> {
        let mut index = self.lock_index();
        index.add_image(pulled)?;
        failpoint!(IMAGE_RECORDED)?;
        self.refresh(&index)?;
        self.collect(&mut index)?;
        let image = self.image(&pulled.id);
        image.ok_or_else(|| Error::Unknown { image: pulled.id.to_string() })
    }

    pub(crate) fn remove_image(&self, id: &Digest) -> Result<(), Error> {
        let mut index = self.lock_index();
        index.remove_image(id)?;
        failpoint!(IMAGE_FORGOTTEN)?;
        self.refresh(&index)?;
        self.collect(&mut index)
    }

    /// Removes layers that nothing refers to, including those that an earlier removal failed on.
    pub(crate) fn remove_unused(&self) -> Result<(), Error> {
        self.collect(&mut self.lock_index())
    }

    /// Leases the image's layers to `holder`. If a layer's directory is missing, the image is forgotten, so that it is
    /// pulled again, and the lease fails.
    pub(crate) fn lease(&self, id: &Digest, holder: &str) -> Result<Layers, Error> {
        let mut index = self.lock_index();
        let keys = self.cache().image_layers.get(id).cloned();
        let keys = keys.ok_or_else(|| Error::Unknown { image: id.to_string() })?;
        let missing: Vec<_> = keys.iter().filter(|key| !self.layer_path(key).is_dir()).cloned().collect();
        if let Some(layer) = missing.first().cloned() {
            index.forget_layers(&missing)?;
            self.refresh(&index)?;
            return Err(Error::Damaged { image: id.to_string(), layer });
        }
        index.lease(holder, &keys)?;
        self.cache_mut().leases.insert(holder.to_owned(), keys.clone());
        Ok(self.stack(&keys))
    }

    pub(crate) fn release(&self, holder: &str) -> Result<(), Error> {
        let mut index = self.lock_index();
        if !self.cache().leases.contains_key(holder) {
            return Ok(());
        }
        // Index first: if only the cache were changed, a repeated release would return above and keep the lease.
        index.release(holder)?;
        self.cache_mut().leases.remove(holder);
        failpoint!(IMAGE_RELEASED)?;
        self.collect(&mut index)
    }

    pub(crate) fn leased(&self, holder: &str) -> Option<Layers> {
        let keys = self.cache().leases.get(holder).cloned()?;
        Some(self.stack(&keys))
    }

    pub(crate) fn leases(&self) -> Vec<String> {
        self.cache().leases.keys().cloned().collect()
    }

    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        self.cache().images.values().cloned().collect()
    }

    pub(crate) fn image(&self, id: &Digest) -> Option<Arc<Image>> {
        self.cache().images.get(id).cloned()
    }

    /// Returns the configuration of a stored image.
    pub(crate) fn configuration(&self, id: &Digest) -> Result<Option<Vec<u8>>, Error> {
        self.lock_index().configuration(id)
    }

    /// Returns a manifest or index by which a stored image was pulled; `None` if its bytes do not match the digest.
    pub(crate) fn manifest(&self, named: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let found = self.lock_index().manifest(named)?;
        Ok(found.filter(|bytes| Digest::of(named.algorithm(), bytes) == *named))
    }

    /// True if a stored image was pulled from this repository.
    pub(crate) fn knows_repository(&self, repository: &str) -> bool {
        let of_it =
            |name: &String| name.strip_prefix(repository).is_some_and(|rest| rest.starts_with([':', '@']));
        self.cache().names.keys().any(of_it)
    }

    /// Returns the image with this exact tag or digest name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Image>> {
        let cache = self.cache();
        cache.names.get(name).and_then(|id| cache.images.get(id)).cloned()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.cache().layers.values().fold(Usage::default(), |sum, layer| Usage {
            bytes: sum.bytes + layer.usage.bytes,
            inodes: sum.inodes + layer.usage.inodes,
        })
    }

    /// Returns the key, in index and directory, of a layer that fits where the chain id is `chain_id`, if there is one.
    pub(crate) fn layer(&self, diff_id: &Digest, chain_id: &Digest) -> Option<Digest> {
        let here =
            |key: &Digest| self.cache().layers.get(key).copied().filter(|_| self.layer_path(key).is_dir());
        if here(diff_id).is_some_and(|layer| layer.stands_alone) {
            return Some(diff_id.clone());
        }
        here(chain_id).map(|_| chain_id.clone())
    }

    /// Returns the layer directories of `keys` (bottom first) in overlay's order: top first, each once, none below a
    /// layer that hides all below. Of a repeated layer the upper one counts: it shows and hides the same already.
    pub(crate) fn stack(&self, keys: &[Digest]) -> Layers {
        let (mut seen, mut lower) = (HashSet::new(), Vec::new());
        let cache = self.cache();
        for key in keys.iter().rev().filter(|key| seen.insert(*key)) {
            lower.push(self.layer_path(key));
            if cache.layers.get(key).is_some_and(|layer| layer.hides_all_below) {
                break;
            }
        }
        Layers { lower }
    }

    /// Protects layers from removal while a pull relies on them, whether they exist yet or not.
    pub(crate) fn protect(self: &Arc<Self>, keys: Vec<Digest>) -> RemovalGuard {
        let mut protected = lock(&self.protected);
        for key in &keys {
            *protected.entry(key.clone()).or_insert(0) += 1;
        }
        drop(protected);
        RemovalGuard { keys, store: Arc::clone(self) }
    }

    /// Removes what nothing refers to, including layers that unfinished pulls unpacked longer than `unfinished` ago.
    pub(crate) fn sweep_unfinished(&self, unfinished: Duration) -> Result<(), Error> {
        // On a full disk the index needs space that the trash thread is freeing. A layer being committed now is swept
        // too, so wait for that as well.
        self.trash.wait();
        let _committing = lock(&self.committing);
        self.collect_older(&mut self.lock_index(), unfinished)
    }

    /// Removes what nothing refers to; layers of unfinished pulls only after [`KEEP_UNFINISHED`].
    fn collect(&self, index: &mut Index) -> Result<(), Error> {
        self.collect_older(index, KEEP_UNFINISHED)
    }

    fn collect_older(&self, index: &mut Index, unfinished: Duration) -> Result<(), Error> {
        let protected = lock(&self.protected);
        let mut unused = index.unreferenced(unfinished)?;
        unused.retain(|key| !protected.contains_key(key));
        if !unused.is_empty() {
            index.forget_layers(&unused)?;
            let mut cache = self.cache_mut();
            for key in &unused {
                cache.layers.remove(key);
            }
        }
        let mut forgotten = lock(&self.forgotten);
        forgotten.extend(unused);
        // A layer that is being pulled again, or is in the index again, is no longer forgotten.
        forgotten.retain(|key| !protected.contains_key(key) && !self.cache().layers.contains_key(key));
        self.discard_forgotten(&mut forgotten)
    }

    fn discard_forgotten(&self, forgotten: &mut HashSet<Digest>) -> Result<(), Error> {
        while let Some(key) = forgotten.iter().next().cloned() {
            failpoint!(LAYERS_FORGOTTEN)?;
            self.trash.discard(&self.layer_path(&key))?;
            forgotten.remove(&key);
            failpoint!(LAYER_TRASHED)?;
        }
        Ok(())
    }

    fn refresh(&self, index: &Index) -> Result<(), Error> {
        let (listed, layers) = (index.images()?, index.layers()?);
        let mut cache = self.cache_mut();
        cache.layers = layers;
        cache.names.clear();
        cache.images.clear();
        cache.image_layers.clear();
        for mut entry in listed {
            let id = entry.image.id.clone();
            let names = entry.image.tags.iter().chain(&entry.image.digests);
            cache.names.extend(names.map(|name| (name.clone(), id.clone())));
            entry.image.pinned = self.pinned.iter().any(|name| entry.image.is_named(name));
            cache.image_layers.insert(id.clone(), entry.layers);
            cache.images.insert(id, Arc::new(entry.image));
        }
        Ok(())
    }

    fn layer_path(&self, key: &Digest) -> PathBuf {
        self.root.join("layers").join(key.hex())
    }

    fn lock_index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    fn cache(&self) -> std::sync::RwLockReadGuard<'_, IndexCache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache_mut(&self) -> std::sync::RwLockWriteGuard<'_, IndexCache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory that a layer is being unpacked into.
pub(crate) struct Staging {
    pub(crate) path: PathBuf,
    /// Opened before anything is written: syncfs(2) reports a write-back error only to descriptors opened before it.
    opened: File,
    store: Arc<Store>,
}

impl Staging {
    fn sync(&self) -> Result<(), Error> {
        rustix::fs::syncfs(&self.opened).map_err(|errno| failed("sync", &self.path)(errno.into()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.path.exists() {
            // A directory that cannot be removed now is swept at the next start.
            let _ = self.store.trash.discard(&self.path);
        }
    }
}

/// Protects layers from removal until dropped.
pub(crate) struct RemovalGuard {
    keys: Vec<Digest>,
    store: Arc<Store>,
}

impl Drop for RemovalGuard {
    fn drop(&mut self) {
        let mut protected = lock(&self.store.protected);
        for key in &self.keys {
            if let Some(count) = protected.get_mut(key) {
                *count -= 1;
            }
        }
        protected.retain(|_, count| *count > 0);
    }
}

/// Ignores poison: every change under these locks is one call, so a panic leaves nothing half changed behind them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates `path` with mode 0700, and sets that mode on an existing one: layers contain setuid programs with known
/// vulnerabilities, which users of the host must not reach.
fn make_private(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o700))
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = || -> io::Result<_> { std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect() };
    read().map_err(failed("list", path))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(crate) fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Store { step, path: path.to_owned(), source }
}
