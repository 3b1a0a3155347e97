//! Relocates entries named through a symlink of a lower layer. An archive with `lib/x`, on a base where `lib` leads to
//! `usr/lib`, means `usr/lib/x`; left in place, the implied directory `lib` would hide the symlink and `usr/lib`.

use std::collections::BTreeMap;
use std::io;

use rustix::fs::{self, AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::path_map::take_below;
use super::root::{Root, is_directory};
use super::{Error, Unpacked, failed};
use crate::merged_view::{Finder, Found, Layers, joined};

/// The most renames of names for one layer: a name can be moved once for each symlink on its way.
const MAX_RENAMES: usize = 20_000_000;

/// Moves the content of implied directories that are symlinks to directories in `parents` to where the symlinks lead.
pub(super) fn relocate(layer: &mut Unpacked, parents: &Layers) -> Result<(), Error> {
    let mut finder = parents.finder().map_err(failed("open the layers below", b"/"))?;
    let mut renamed = 0;
    // Sorted: a directory comes before everything below it, so that no symlink is left on the way to a path.
    let mut waiting: BTreeMap<_, ()> =
        layer.root.implied.iter().map(|(path, ())| (path.clone(), ())).collect();
    while let Some((from, ())) = waiting.pop_first() {
        let Some(to) = led_to(parents, &mut finder, &from).map_err(failed("look up", &from))? else {
            continue;
        };
        let follow = failed("follow a lower layer's symlink for", &from);
        renamed +=
            shift(&mut layer.root, &from, &to).and_then(|()| layer.rename(&from, &to)).map_err(follow)?;
        if renamed > MAX_RENAMES {
            return Err(Error::Limit {
                limit: MAX_RENAMES as u64,
                what: "names behind symlinks of lower layers",
            });
        }
        let below = take_below(&mut waiting, &from).into_keys();
        waiting.extend(below.map(|path| ([&to, &path[from.len()..]].concat(), ())));
    }
    Ok(())
}

/// Returns where `path` leads in the parents, if it is a symlink to a directory there.
fn led_to(parents: &Layers, finder: &mut Finder<'_>, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Found::Leaf { stat, .. } = finder.find(path)? else {
        return Ok(None);
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    let target = parents.locate(path, true)?;
    let there = joined(&target.path);
    let leads_elsewhere = matches!(target.found, Found::Directory(_)) && there != path;
    Ok(leads_elsewhere.then_some(there))
}

/// Moves the entries of directory `from` into `to`, and removes `from`. Directories that both have are queued: a
/// recursion would take a descriptor and stack for each, and an archive can nest two thousand.
fn shift(root: &mut Root, from: &[u8], to: &[u8]) -> io::Result<()> {
    let (mut waiting, mut emptied) = (vec![Vec::new()], Vec::new());
    while let Some(below) = waiting.pop() {
        let (from, to) = ([from, &below].concat(), [to, &below].concat());
        let source = root.directory(&from)?;
        for entry in Dir::read_from(&source.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let into = root.parent(&[&to, name].join(&b'/'))?;
            let existing = into.stat(name).ok();
            if existing.as_ref().is_some_and(is_directory) && is_directory(&source.stat(name)?) {
                waiting.push([&below, name].join(&b'/'));
                continue;
            }
            if existing.is_some() {
                into.remove(name)?;
            }
            fs::renameat(&source.fd, name, &into.fd, name)?;
        }
        emptied.push(from);
    }
    root.forget_recent();
    emptied.iter().rev().try_for_each(|path| remove_empty(root, path))
}

fn remove_empty(root: &mut Root, path: &[u8]) -> io::Result<()> {
    let holder = root.parent(path)?;
    match fs::unlinkat(&holder.fd, super::split(path).1, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Unpacked {
    /// Moves everything recorded for paths below `from` to the same paths below `to`. Returns the number of names.
    fn rename(&mut self, from: &[u8], to: &[u8]) -> io::Result<usize> {
        self.root.forget_recent();
        self.root.implied.remove(from);
        let implied = self.root.implied.rename(from, to)?;
        Ok(implied + self.times.rename(from, to)? + self.links.rename(from, to)?)
    }
}
