//! Completes a layer from the layers below it. Layers are unpacked in parallel, so that this is done afterwards: a
//! directory that the archive only implies gets the owner, mode and attributes it has below, and a hard link to a file
//! of a lower layer gets a copy of that file to link to, as overlay itself would make one (copy-up).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::path_map::PathMap;
use super::relocate::relocate;
use super::root::{Directory, split};
use super::{Error, Unpacked, failed, link_inside, lossy};
use crate::merged_view::{Finder, Found, Layers, joined};

/// Takes from `parents` what `layer` needs: places of relocated entries, hard link targets, and directory attributes.
pub(crate) fn complete(layer: &mut Unpacked, parents: &Layers) -> Result<(), Error> {
    let nothing = Layers { lower: Vec::new() };
    let parents = if layer.hides_all_below { &nothing } else { parents };
    relocate(layer, parents)?;
    link_to_parents(layer, parents)?;
    let mut finder = parents.finder().map_err(failed("open the layers below", b"/"))?;
    let implied: Vec<_> = layer.root.implied.iter().map(|(path, ())| path.clone()).collect();
    for path in implied {
        inherit(layer, &mut finder, &path).map_err(failed("take attributes of", &path))?;
    }
    Ok(())
}

fn link_to_parents(layer: &mut Unpacked, parents: &Layers) -> Result<(), Error> {
    let links = std::mem::replace(&mut layer.links, PathMap::new("", 0));
    let mut links: Vec<_> = links.into_iter().collect();
    links.sort_by_key(|(_, link)| link.position);
    // Files of lower layers that were copied to another path: their own path, and that of the copy.
    let mut copied = HashMap::new();
    for (path, link) in &links {
        link_to_lower(layer, parents, path, &link.target, &mut copied)?;
    }
    Ok(())
}

fn link_to_lower(
    layer: &mut Unpacked,
    parents: &Layers,
    path: &[u8],
    target: &[u8],
    copied: &mut HashMap<Vec<u8>, Vec<u8>>,
) -> Result<(), Error> {
    let directory = layer.root.parent(path).map_err(failed("open the parent of", path))?;
    let name = split(path).1;
    let link = |layer: &Unpacked, target: &[u8]| link_inside(&layer.root, target, &directory, name);
    if link(layer, target).is_ok() {
        return Ok(());
    }
    let located = parents.locate(target, false).map_err(failed("look up", target))?;
    let Found::Leaf { parent, stat } = located.found else {
        return Err(Error::LinkTarget { path: lossy(path), target: lossy(target) });
    };
    let place = joined(&located.path);
    if copied.get(&place).is_some_and(|copy| link(layer, copy).is_ok()) {
        return Ok(());
    }
    let lower = Lower { directory: &parent, name: split(&place).1, stat: &stat };
    layer.remaining_bytes = lower
        .size()
        .and_then(|size| layer.remaining_bytes.checked_sub(size))
        .ok_or_else(|| layer.too_large())?;
    match lower.copy(layer, &place) {
        // The path is taken, by a whiteout if this layer removes the target: the copy gets the name of the first link.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            lower.copy(layer, path).map_err(failed("copy", path))?;
            copied.insert(place, path.to_vec());
            Ok(())
        }
        made => {
            made.map_err(failed("copy", &place))?;
            link(layer, &place).map_err(failed("link", path))
        }
    }
}

/// A file of a lower layer.
struct Lower<'a> {
    directory: &'a OwnedFd,
    name: &'a [u8],
    stat: &'a Stat,
}

impl Lower<'_> {
    fn size(&self) -> Option<u64> {
        u64::try_from(self.stat.st_size).ok()
    }

    fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.stat.st_mode)
    }

    /// Copies the file to `path` of this layer.
    fn copy(&self, layer: &mut Unpacked, path: &[u8]) -> io::Result<()> {
        let (into, name) = (layer.root.parent(path)?, split(path).1);
        let kind = FileType::from_raw_mode(self.stat.st_mode);
        match kind {
            FileType::RegularFile => self.copy_content(&into, name)?,
            FileType::Symlink => {
                let target = fs::readlinkat(self.directory, self.name, Vec::new())?;
                fs::symlinkat(target.as_bytes(), &into.fd, name)?;
            }
            _ => {
                fs::mknodat(&into.fd, name, kind, self.mode(), self.stat.st_rdev)?;
            }
        }
        layer.usage.add(self.size().unwrap_or(0));
        if kind != FileType::RegularFile {
            let (uid, gid) = owner(self.stat);
            fs::chownat(&into.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if !matches!(kind, FileType::RegularFile | FileType::Symlink) {
            // mknod(2) clears the bits of the umask, and chown(2) those of setuid and setgid.
            fs::chmodat(&into.fd, name, self.mode(), AtFlags::empty())?;
        }
        Ok(fs::utimensat(&into.fd, name, &times(self.stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn copy_content(&self, into: &Directory, name: &[u8]) -> io::Result<()> {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut source = File::from(fs::openat(self.directory, self.name, read, Mode::empty())?);
        let mut copy = File::from(fs::openat(&into.fd, name, write, Mode::RUSR)?);
        io::copy(&mut source, &mut copy)?;
        take_attributes(&source, &copy, self.stat)
    }
}

/// Gives an implied directory the owner, mode, attributes and time it has in the parents; time 0 if it is not there.
fn inherit(layer: &mut Unpacked, parents: &mut Finder<'_>, path: &[u8]) -> io::Result<()> {
    let here = match layer.root.directory(path) {
        // Replaced by another entry.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        here => here?,
    };
    let Found::Directory(merged) = parents.find(path)? else {
        return layer.times.insert(path, Timespec { tv_sec: 0, tv_nsec: 0 });
    };
    let Some(lower) = merged.uppermost() else {
        return Ok(());
    };
    let stat = fs::fstat(lower)?;
    take_attributes(lower, &here.fd, &stat)?;
    layer.times.insert(path, times(&stat).last_modification)
}

fn take_attributes(from: impl AsFd, to: impl AsFd, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    fs::fchown(&to, Some(uid), Some(gid))?;
    fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode))?;
    copy_xattrs(from, to)
}

fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = Vec::with_capacity(1 << 16);
    fs::flistxattr(&from, rustix::buffer::spare_capacity(&mut names))?;
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = Vec::with_capacity(1 << 16);
        fs::fgetxattr(&from, name, rustix::buffer::spare_capacity(&mut value))?;
        fs::fsetxattr(&to, name, &value, XattrFlags::empty())?;
    }
    Ok(())
}

fn owner(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 };
    Timestamps { last_access: time, last_modification: time }
}
