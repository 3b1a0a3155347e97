//! What writable layers take on disk.
//!
//! Counting a tree takes as long as the tree is large. It is done in the background, a few trees at a time and each
//! seldom enough to cost next to nothing; callers wait a moment for it and then get the number before.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use berth_image::tree;
use rustix::fs::{major, minor, stat, statvfs};
use tokio::{
    sync::Semaphore,
    time::{Instant as Deadline, timeout_at},
};

use super::usage::device_name;
use crate::{
    blocking,
    error::{During, Result},
    flights::Flights,
    identity,
};

/// How long a caller waits for trees to be counted.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
/// How old a number may be before its tree is counted again...
const SHORTEST_AGE: Duration = Duration::from_secs(10);
/// ... or this many times as old as the counting took, so that it takes at most 1/20 of a processor per tree.
const AGE_PER_EFFORT: u32 = 20;
/// Trees that are counted at once.
const AT_ONCE: usize = 2;

/// Space on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// When it was counted, nanoseconds since the epoch.
    pub at: i64,
    /// In whole blocks, as `du` counts.
    pub bytes: u64,
    /// Files, directories, links and the like.
    pub inodes: u64,
}

/// Size of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// `/dev/vda`, or its two numbers when it has no name.
    pub device: String,
    /// All that it has room for.
    pub bytes: u64,
    /// All that it has room for; 0 when it makes them as needed.
    pub inodes: u64,
    /// Inodes that are not in use.
    pub inodes_free: u64,
}

/// The trees, by the id of their container.
#[derive(Debug)]
pub(super) struct Disks {
    counted: Arc<Mutex<HashMap<String, Counted>>>,
    walks: Flights<String, DiskUsage>,
    permits: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    usage: DiskUsage,
    good_until: Instant,
}

impl Default for Disks {
    fn default() -> Self {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        Self { counted: Arc::default(), walks: Flights::default(), permits }
    }
}

impl Disks {
    /// What the tree of a container takes: as it is now if that can be counted in time, else as it was.
    pub(super) async fn usage(&self, id: &str, tree: PathBuf, until: Instant) -> Option<DiskUsage> {
        let before = lock(&self.counted).get(id).copied();
        if let Some(before) = before.filter(|before| before.good_until > Instant::now()) {
            return Some(before.usage);
        }
        let walk = self.walks.join(id.to_owned(), || self.walk(id.to_owned(), tree));
        match timeout_at(Deadline::from_std(until), walk).await {
            Ok(Ok(usage)) => Some(usage),
            Ok(Err(error)) => {
                tracing::debug!(container = id, %error, "its writable layer could not be counted");
                before.map(|before| before.usage)
            }
            Err(_) => before.map(|before| before.usage),
        }
    }

    fn walk(
        &self,
        id: String,
        tree: PathBuf,
    ) -> impl Future<Output = Result<DiskUsage>> + Send + 'static + use<> {
        let (counted, permits) = (Arc::clone(&self.counted), Arc::clone(&self.permits));
        async move {
            let _permit = permits.acquire().await;
            let count = move || count(&tree).during(|| format!("count {}", tree.display()));
            let new = blocking::run("count a tree", count).await??;
            lock(&counted).insert(id, new);
            Ok(new.usage)
        }
    }

    /// Forgets those that `exists` does not know.
    pub(super) fn retain(&self, exists: impl Fn(&str) -> bool) {
        lock(&self.counted).retain(|id, _| exists(id));
    }
}

fn count(directory: &Path) -> io::Result<Counted> {
    let begun = Instant::now();
    let total = tree::count(directory)?;
    let good_for = (begun.elapsed() * AGE_PER_EFFORT).max(SHORTEST_AGE);
    let usage = DiskUsage { at: identity::now(), bytes: total.bytes, inodes: total.inodes };
    Ok(Counted { usage, good_until: Instant::now() + good_for })
}

// A poisoned lock still holds a whole map: nothing can panic between its steps.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskUsage {
    /// Nothing, now.
    pub(super) fn none() -> Self {
        Self { at: identity::now(), bytes: 0, inodes: 0 }
    }

    /// Both together, as old as the older.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            at: self.at.min(other.at),
            bytes: self.bytes + other.bytes,
            inodes: self.inodes + other.inodes,
        }
    }
}

impl FileSystem {
    /// That which `path` is on.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let found = statvfs(path).and_then(|size| Ok((size, stat(path)?.st_dev))).map_err(io::Error::from);
        let (found, device) = found.during(|| format!("look at the file system of {}", path.display()))?;
        Ok(Self {
            device: device_name(major(device), minor(device)),
            bytes: found.f_blocks * found.f_frsize,
            inodes: found.f_files,
            inodes_free: found.f_ffree,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn a_tree_is_not_counted_again_until_its_number_is_old() {
        let (tree, disks) = (tempfile::tempdir().unwrap(), Disks::default());
        let path = || tree.path().to_owned();
        let first = disks.usage("a", path(), soon()).await.unwrap();
        assert_eq!(first.inodes, 1);
        fs::write(tree.path().join("file"), vec![1; 10_000]).unwrap();
        assert_eq!(disks.usage("a", path(), soon()).await, Some(first));
        lock(&disks.counted).get_mut("a").unwrap().good_until = Instant::now();
        let second = disks.usage("a", path(), soon()).await.unwrap();
        assert_eq!((second.inodes, second.bytes), (2, first.bytes + 12_288));
        disks.retain(|_| false);
        assert!(lock(&disks.counted).is_empty());
    }

    #[tokio::test]
    async fn a_caller_without_patience_gets_the_number_before_and_the_next_one_the_new() {
        let (tree, disks) = (tempfile::tempdir().unwrap(), Disks::default());
        let path = || tree.path().to_owned();
        let all = Arc::clone(&disks.permits).acquire_many_owned(AT_ONCE as u32).await.unwrap();
        assert_eq!(disks.usage("a", path(), Instant::now()).await, None);
        drop(all);
        let counted = disks.usage("a", path(), soon()).await.unwrap();
        fs::remove_dir(tree.path()).unwrap();
        lock(&disks.counted).get_mut("a").unwrap().good_until = Instant::now();
        assert_eq!(disks.usage("a", path(), soon()).await, Some(counted), "it cannot be counted any more");
    }

    #[test]
    fn a_file_system_has_a_size() {
        let found = FileSystem::of(Path::new("/proc/self/exe")).unwrap();
        assert!(found.bytes > 0 && found.inodes >= found.inodes_free);
        assert!(FileSystem::of(Path::new("/no/such/path")).is_err());
    }
}
