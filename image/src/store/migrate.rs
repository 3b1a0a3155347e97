//! Upgrade from version 1 of the index. It named the bottom layer of an image by its diff id even if the archive only
//! implied the layer's directories. Later images took such a layer for one that stands alone: on a base where `bin` is
//! a symlink, for example, they got a directory in its place.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};

use super::index::{Index, Layer, VERSION};
use crate::digest::Digest;
use crate::error::Error;
use crate::merged_view::{Found, Layers, is_opaque_at};

/// Facts about a layer, read from its directory.
struct Survey {
    hides_all_below: bool,
    /// Directories that may have been implied; `None` if the layer cannot be read.
    implied: Option<Vec<Vec<u8>>>,
}

/// Surveys the layers in an index of version 1, upgrades it, and forgets the images that contain a wrong layer, so that
/// they are pulled again. Leases stay. An index of the current version is left alone.
pub(super) fn run(index: &mut Index, directory: &Path) -> Result<(), Error> {
    if index.version()? == VERSION {
        return Ok(());
    }
    let stacks = index.stacks()?;
    let completed: HashSet<&Digest> = stacks.values().flat_map(|stack| above_the_bottom(stack)).collect();
    let mut surveys = HashMap::new();
    let mut layers = HashMap::new();
    for key in index.layer_keys()? {
        let survey = Survey::of(&directory.join(key.hex()));
        let stands_alone = !completed.contains(&key) && survey.implied.as_ref().is_some_and(Vec::is_empty);
        let layer = Layer { stands_alone, hides_all_below: survey.hides_all_below, ..Layer::default() };
        layers.insert(key.clone(), layer);
        surveys.insert(key, survey);
    }
    let is_wrong = |stack: &[(Digest, Digest)]| has_a_wrong_layer(stack, &surveys, directory);
    let wrong = stacks.iter().filter(|(_, stack)| is_wrong(stack)).filter_map(|(id, _)| id.parse().ok());
    let wrong: Vec<Digest> = wrong.collect();
    for image in &wrong {
        tracing::warn!(%image, "a layer of this image was unpacked for another base; it has to be pulled again");
    }
    index.upgrade(&layers, &wrong)
}

/// Returns the layers that were completed from those below: their key is a chain id of more than one layer.
fn above_the_bottom(stack: &[(Digest, Digest)]) -> impl Iterator<Item = &Digest> {
    stack.iter().skip(1).filter(|(chain_id, key)| chain_id == key).map(|(_, key)| key)
}

/// True if a layer above the bottom was taken for one that stands alone but would differ on the layers below it.
fn has_a_wrong_layer(
    stack: &[(Digest, Digest)],
    surveys: &HashMap<Digest, Survey>,
    directory: &Path,
) -> bool {
    let path = |key: &Digest| directory.join(key.hex());
    stack.iter().enumerate().skip(1).any(|(position, (chain_id, key))| {
        let implied = surveys.get(key).filter(|_| chain_id != key).and_then(|survey| survey.implied.as_ref());
        let lower = stack[..position].iter().rev().map(|(_, key)| path(key)).collect();
        let below = Layers { lower };
        implied.is_some_and(|implied| implied.iter().any(|name| differs(&below, name)))
    })
}

/// True if an implied `name` would come out on `below` as a symlink, or with another mode or owner than version 1 gave.
fn differs(below: &Layers, name: &[u8]) -> bool {
    match below.locate(name, false).map(|located| located.found) {
        Ok(Found::Leaf { stat, .. }) => FileType::from_raw_mode(stat.st_mode) == FileType::Symlink,
        Ok(Found::Directory(merged)) => merged
            .uppermost()
            .and_then(|there| fstat(there).ok())
            .is_some_and(|stat| (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) != (0o755, 0, 0)),
        _ => false,
    }
}

impl Survey {
    fn of(layer: &Path) -> Self {
        Survey { hides_all_below: is_opaque_at(layer), implied: implied(layer).ok() }
    }
}

/// Returns all directories that look as version 1 made implied ones.
fn implied(layer: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(layer.join(&directory))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let name = directory.join(entry.file_name());
                if is_as_implied(&entry.metadata()?) {
                    found.push(OsStr::as_bytes(name.as_os_str()).to_vec());
                }
                waiting.push(name);
            }
        }
    }
    Ok(found)
}

/// True if it looks as version 1 made implied directories of a bottom layer: mode 0755, owner 0:0, time 0.
fn is_as_implied(directory: &Metadata) -> bool {
    let time = (directory.mtime(), directory.mtime_nsec());
    (directory.mode() & 0o7777, directory.uid(), directory.gid(), time) == (0o755, 0, 0, (0, 0))
}
