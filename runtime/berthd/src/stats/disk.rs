//! Disk usage of writable layers.
//!
//! Counting takes time proportional to the size of the tree. It runs in the background, few trees at a time, and each
//! tree seldom enough to cost next to nothing. A caller waits briefly and then gets the previous value.

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
    blocking, clock,
    error::{During, Result},
    single_flight::SingleFlight,
};

/// How long a caller waits for trees to be counted.
pub(super) const COUNT_TIMEOUT: Duration = Duration::from_millis(100);
/// Minimum age of a value before its tree is counted again...
const MIN_AGE: Duration = Duration::from_secs(10);
/// ... unless this multiple of the time that counting took is longer: it then takes at most 1/20 of a processor per
/// tree.
const AGE_PER_COUNT_TIME: u32 = 20;
/// Most trees that are counted at the same time.
const MAX_CONCURRENT_COUNTS: usize = 2;

/// Disk usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// Time of the count in nanoseconds since the epoch.
    pub at: i64,
    /// Size in whole blocks, as `du` counts.
    pub bytes: u64,
    /// Number of files, directories, links and the like.
    pub inodes: u64,
}

/// Size of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Name such as `/dev/vda`, or `MAJOR:MINOR` for a device without a name.
    pub device: String,
    /// Total size.
    pub bytes: u64,
    /// Total number of inodes; 0 when the file system makes them on demand.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

/// Counts of the trees, by container id.
#[derive(Debug)]
pub(super) struct DiskUsageCache {
    counted: Arc<Mutex<HashMap<String, CachedUsage>>>,
    walks: SingleFlight<String, DiskUsage>,
    permits: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug)]
struct CachedUsage {
    usage: DiskUsage,
    good_until: Instant,
}

impl Default for DiskUsageCache {
    fn default() -> Self {
        let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_COUNTS));
        Self { counted: Arc::default(), walks: SingleFlight::default(), permits }
    }
}

impl DiskUsageCache {
    /// Returns the usage of a container's tree: the current one if it can be counted before `until`, else the previous
    /// one; `None` without either.
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

    /// Forgets the trees whose container `exists` does not know.
    pub(super) fn retain(&self, exists: impl Fn(&str) -> bool) {
        lock(&self.counted).retain(|id, _| exists(id));
    }
}

fn count(directory: &Path) -> io::Result<CachedUsage> {
    let begun = Instant::now();
    let total = tree::count(directory)?;
    let good_for = (begun.elapsed() * AGE_PER_COUNT_TIME).max(MIN_AGE);
    let usage = DiskUsage { at: clock::now(), bytes: total.bytes, inodes: total.inodes };
    Ok(CachedUsage { usage, good_until: Instant::now() + good_for })
}

// A poisoned lock still guards a consistent map: nothing can panic between the steps of a change.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskUsage {
    /// Returns a usage of 0 as of now.
    pub(super) fn none() -> Self {
        Self { at: clock::now(), bytes: 0, inodes: 0 }
    }

    /// Returns the sum of both, with the earlier time.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            at: self.at.min(other.at),
            bytes: self.bytes + other.bytes,
            inodes: self.inodes + other.inodes,
        }
    }
}

impl FileSystem {
    /// Returns the file system that holds `path`.
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
        let (tree, disks) = (tempfile::tempdir().unwrap(), DiskUsageCache::default());
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
        let (tree, disks) = (tempfile::tempdir().unwrap(), DiskUsageCache::default());
        let path = || tree.path().to_owned();
        let all = Arc::clone(&disks.permits).acquire_many_owned(MAX_CONCURRENT_COUNTS as u32).await.unwrap();
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
