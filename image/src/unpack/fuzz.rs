//! Invariants for any layer.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use super::*;
use crate::merged_view::Layers;

/// Far below the defaults: bugs show with few bytes and entries.
const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 256 };
/// Only files up to this many bytes are read: sparse ones may have any length.
const READ: u64 = 1 << 16;

/// Descriptions of the entries in a directory, by path.
type Tree = BTreeMap<PathBuf, Vec<String>>;

/// Unpacks a layer twice over another one, once from one buffer, once in pieces of 7 bytes. Both must give the same
/// result, and nothing else below `place` may change. `place` should be on a fast file system. Needs root.
///
/// The checksums of headers are corrected first, as no fuzzer guesses them.
pub fn tar_layer(data: &[u8], place: &Path) {
    let archive = with_checksums(data);
    let around = Around::new(place);
    let whole = around.outcome("whole", &archive[..]);
    let pieces = around.outcome("pieces", BufReader::with_capacity(7, &archive[..]));
    assert_eq!(whole, pieces);
}

fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut archive = data.to_vec();
    for block in archive.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    archive
}

/// The directory with a lower layer, and with a file that must not change.
struct Around<'a>(&'a Path);

impl<'a> Around<'a> {
    fn new(place: &'a Path) -> Self {
        let lower = place.join("lower");
        if !lower.exists() {
            std::fs::create_dir_all(lower.join("etc/below")).unwrap();
            std::fs::write(lower.join("etc/passwd"), "root:x:0:0").unwrap();
            std::os::unix::fs::symlink("/etc", lower.join("link")).unwrap();
            std::fs::write(place.join("outside"), "untouched").unwrap();
        }
        Self(place)
    }

    /// Unpacks into the directory `name`; returns the resulting tree, or the error.
    fn outcome(&self, name: &str, archive: impl BufRead) -> Result<Tree, String> {
        let before = tree(self.0);
        let into = self.0.join(name);
        std::fs::create_dir(&into).unwrap();
        let unpacked = self.unpack(archive, &into).map_err(|error| error.to_string());
        let made = tree(&into);
        std::fs::remove_dir_all(&into).unwrap();
        assert_eq!(tree(self.0), before);
        unpacked.map(|()| made)
    }

    fn unpack(&self, archive: impl BufRead, into: &Path) -> Result<(), Error> {
        let mut unpacked = unpack(archive, into, LIMITS)?;
        complete(&mut unpacked, &Layers { lower: vec![self.0.join("lower")] })?;
        unpacked.finish()
    }
}

fn tree(top: &Path) -> Tree {
    let mut found = Tree::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(top.join(&directory)).unwrap() {
            let path = directory.join(entry.unwrap().file_name());
            let full = top.join(&path);
            let metadata = full.symlink_metadata().unwrap();
            if metadata.is_dir() {
                directories.push(path.clone());
            }
            found.insert(path, described(&full, &metadata));
        }
    }
    found
}

fn described(path: &Path, metadata: &std::fs::Metadata) -> Vec<String> {
    let m = metadata;
    let mut told = vec![format!("{:o} {}:{} {:x}", m.mode(), m.uid(), m.gid(), m.rdev())];
    // Left out for directories and character devices: implied directories and whiteouts have no time in the archive.
    if !m.is_dir() && !m.file_type().is_char_device() {
        told.push(format!("{} bytes, {} links, of {}.{}", m.size(), m.nlink(), m.mtime(), m.mtime_nsec()));
    }
    if m.is_symlink() {
        told.push(lossy(std::fs::read_link(path).unwrap().as_os_str().as_bytes()));
    }
    if m.is_file() && m.size() <= READ {
        told.push(lossy(&std::fs::read(path).unwrap()));
    }
    told
}
