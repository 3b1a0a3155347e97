//! Unpacks the tar stream of one layer into a directory in overlay's format: a removed name becomes a character device
//! 0:0, a replaced directory is marked opaque. Nothing in the archive can name anything outside the directory.

mod archive;
mod complete;
mod error;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod path_map;
mod pax;
mod relocate;
pub(crate) mod root;
mod sparse;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use self::archive::{Archive, Entry, Kind};
use self::path_map::PathMap;
use self::root::{Directory, Root, is_directory, is_whiteout, mark_opaque, normalized, split};

pub(crate) use self::complete::complete;
pub use self::error::Error;
use self::error::{broken, failed, is_absent, lossy};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// The most bytes of memory for the names of directories, and for those of hard links into lower layers.
const MAX_DIRECTORIES: usize = if cfg!(test) { 16 << 20 } else { 256 << 20 };
const MAX_LINKS: usize = if cfg!(test) { 4 << 20 } else { 64 << 20 };

/// Limits of one layer; a stream beyond them is an attack or an accident.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all files, of extension headers, of data after the archive, and of files copied up.
    pub bytes: u64,
    /// Number of entries in the archive.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 1 << 40, entries: 20_000_000 }
    }
}

/// Disk usage of a directory tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes, in whole blocks of 4096.
    pub bytes: u64,
    /// Number of files, directories and links.
    pub inodes: u64,
}

impl Usage {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes += bytes.next_multiple_of(4096);
        self.inodes += 1;
    }
}

/// An unpacked layer, still to be completed from its parents unless it stands alone.
pub(crate) struct Unpacked {
    root: Root,
    /// Modification times of directories; set last, since creating entries changes them.
    times: PathMap<Timespec>,
    /// Hard links whose target was not found in the layer.
    links: PathMap<Link>,
    pub(crate) usage: Usage,
    /// The archive marks the root directory opaque: nothing of the layers below is visible.
    pub(crate) hides_all_below: bool,
    /// Bytes that the limits leave for files copied up from lower layers.
    remaining_bytes: u64,
    limits: Limits,
}

/// A hard link to be made later.
struct Link {
    target: Vec<u8>,
    /// Position in the archive. Links are made in this order, as one may be the target of another.
    position: u64,
}

impl Unpacked {
    /// True if nothing in the layer depends on the layers below it, so that all images can share it.
    pub(crate) fn stands_alone(&self) -> bool {
        self.root.implied.is_empty() && self.links.is_empty()
    }

    /// Records a hard link whose target is not in the layer, or not yet.
    fn defer_link(&mut self, path: &[u8], target: Vec<u8>, position: u64) -> io::Result<()> {
        self.links.insert_with(path, target.len(), Link { target, position })
    }

    fn too_large(&self) -> Error {
        Error::Limit { limit: self.limits.bytes, what: "bytes" }
    }

    /// Sets the times of directories, once all entries exist.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        for (path, time) in self.times.iter() {
            match self.root.directory(path) {
                // Replaced by another entry.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                found => found
                    .and_then(|directory| fs::futimens(&directory.fd, &both(*time)))
                    .map_err(|errno| failed("set times of", path)(errno.into()))?,
            }
        }
        Ok(())
    }
}

/// Unpacks `input` into the empty directory `into`, reading it to its end.
pub(crate) fn unpack(input: impl BufRead, into: &Path, limits: Limits) -> Result<Unpacked, Error> {
    let root = Root::open(into).map_err(failed("open", b"/"))?;
    let mut unpacker = Unpacker {
        state: Unpacked {
            root,
            times: PathMap::new("the directories", MAX_DIRECTORIES),
            links: PathMap::new("the hard links to lower layers", MAX_LINKS),
            usage: Usage::default(),
            hides_all_below: false,
            remaining_bytes: 0,
            limits,
        },
        umask: umask().map_err(failed("read umask of", b"/proc/self/status"))?,
        entries: 0,
        written: 0,
    };
    unpacker.state.usage.add(4096);
    unpacker.run(Archive::new(input))?;
    unpacker.state.remaining_bytes = limits.bytes - unpacker.written;
    Ok(unpacker.state)
}

struct Unpacker {
    state: Unpacked,
    /// The process's umask, which the kernel applies to new files. Knowing it saves an fchmod(2) for most of them.
    umask: u32,
    entries: u64,
    written: u64,
}

impl Unpacker {
    fn run(&mut self, mut archive: Archive<impl BufRead>) -> Result<(), Error> {
        let mut after = Vec::new();
        loop {
            let next = archive.next().map_err(broken(&after))?;
            self.count_bytes(archive.take_extended())?;
            let Some(entry) = next else {
                return self.drain(archive).map_err(broken(&after))?;
            };
            self.count(&entry)?;
            self.entry(&entry, &mut archive)?;
            after = entry.path;
        }
    }

    fn count(&mut self, entry: &Entry) -> Result<(), Error> {
        self.entries += 1;
        let limit = self.state.limits.entries;
        if self.entries > limit {
            return Err(Error::Limit { limit, what: "entries" });
        }
        let stored = entry.extents.iter().map(|extent| extent.length);
        self.count_bytes(stored.fold(0, u64::saturating_add))
    }

    fn count_bytes(&mut self, bytes: u64) -> Result<(), Error> {
        self.written = self.written.saturating_add(bytes);
        match self.written <= self.state.limits.bytes {
            true => Ok(()),
            false => Err(self.state.too_large()),
        }
    }

    /// Reads what follows the archive, which the diff id covers too.
    fn drain(&mut self, mut archive: Archive<impl BufRead>) -> io::Result<Result<(), Error>> {
        loop {
            match archive.pass_over()? {
                0 => return Ok(Ok(())),
                length => {
                    if let Err(error) = self.count_bytes(length) {
                        return Ok(Err(error));
                    }
                }
            }
        }
    }

    fn entry(&mut self, entry: &Entry, archive: &mut Archive<impl BufRead>) -> Result<(), Error> {
        let escapes = || Error::Escape { path: lossy(&entry.path) };
        let path = normalized(&entry.path).ok_or_else(escapes)?;
        let (above, name) = split(&path);
        if is_metadata(&path) && name != WHITEOUT_OPAQUE {
            return Ok(());
        }
        let directory = self.state.root.parent(&path).map_err(failed("make the parents of", &path))?;
        if name == WHITEOUT_OPAQUE {
            return self.hide_lower(&directory, above);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&directory, hidden, entry);
        }
        if entry.kind == Kind::HardLink {
            return self.hard_link(&directory, &path, entry);
        }
        self.state.links.remove(&path);
        let made = match entry.kind {
            Kind::Directory => self.directory(&directory, &path, entry),
            Kind::File => self.file(&directory, name, entry, archive),
            Kind::Symlink => self.symlink(&directory, name, entry),
            _ => self.node(&directory, name, entry),
        };
        made.map_err(failed("unpack", &path))
    }

    fn hide_lower(&mut self, directory: &Directory, path: &[u8]) -> Result<(), Error> {
        self.state.hides_all_below |= path.is_empty();
        mark_opaque(&directory.fd).map_err(failed("mark opaque", path))
    }

    fn whiteout(&mut self, directory: &Directory, hidden: &[u8], entry: &Entry) -> Result<(), Error> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Error::Whiteout { path: lossy(&entry.path) });
        }
        let made = fs::mknodat(&directory.fd, hidden, FileType::CharacterDevice, Mode::empty(), 0);
        let outcome = match made {
            Ok(()) => {
                self.state.usage.add(0);
                Ok(())
            }
            Err(Errno::EXIST) => hide_below(directory, hidden),
            Err(error) => Err(error.into()),
        };
        outcome.map_err(failed("make the whiteout", &entry.path))
    }

    fn hard_link(&mut self, directory: &Directory, path: &[u8], entry: &Entry) -> Result<(), Error> {
        let escapes = || Error::Escape { path: lossy(&entry.target) };
        let target = normalized(&entry.target).ok_or_else(escapes)?;
        self.state.links.remove(path);
        match link_inside(&self.state.root, &target, directory, split(path).1) {
            Err(error) if is_absent(&error) => {
                let cleared = self.clear(directory, split(path).1);
                cleared.map_err(failed("replace", path))?;
                let deferred = self.state.defer_link(path, target, self.entries);
                deferred.map_err(failed("remember the link", path))?;
            }
            linked => linked.map_err(failed("link", path))?,
        }
        self.state.root.forget_recent();
        Ok(())
    }

    fn directory(&mut self, parent: &Directory, path: &[u8], entry: &Entry) -> io::Result<()> {
        let made = if path.is_empty() { parent.clone() } else { self.make_directory(parent, path)? };
        set_owner(&made.fd, entry)?;
        fs::fchmod(&made.fd, Mode::from_raw_mode(entry.mode))?;
        set_xattrs(entry, |name, value| fs::fsetxattr(&made.fd, name, value, XattrFlags::empty()))?;
        self.state.root.implied.remove(path);
        self.state.times.insert(path, entry.mtime)?;
        self.state.root.forget_recent();
        Ok(())
    }

    fn make_directory(&mut self, parent: &Directory, path: &[u8]) -> io::Result<Directory> {
        let name = split(path).1;
        let mut hides = false;
        loop {
            match fs::mkdirat(&parent.fd, name, Mode::RWXU) {
                Ok(()) => self.state.usage.add(4096),
                Err(Errno::EXIST) => {
                    let stat = parent.stat(name)?;
                    if !is_directory(&stat) {
                        hides |= is_whiteout(&stat);
                        self.clear(parent, name)?;
                        continue;
                    }
                }
                Err(error) => return Err(error.into()),
            }
            let directory = self.state.root.directory(path)?;
            if hides {
                mark_opaque(&directory.fd)?;
            }
            return Ok(directory);
        }
    }

    fn file(
        &mut self,
        parent: &Directory,
        name: &[u8],
        entry: &Entry,
        archive: &mut Archive<impl BufRead>,
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let fd = self.replacing(parent, name, || fs::openat(&parent.fd, name, flags, mode))?;
        let mut stored = 0;
        for extent in &entry.extents {
            let mut at = extent.offset;
            archive.body(extent.length, |piece| {
                rustix::io::retry_on_intr(|| write_all_at(&fd, piece, at))?;
                at += piece.len() as u64;
                Ok(())
            })?;
            stored += extent.length;
        }
        if stored != entry.size {
            fs::ftruncate(&fd, entry.size)?;
        }
        self.state.usage.add(stored);
        if parent.passes_group_on || entry.uid != 0 || entry.gid != 0 {
            set_owner(&fd, entry)?;
        }
        if entry.mode & (self.umask | 0o7000) != 0 {
            fs::fchmod(&fd, Mode::from_raw_mode(entry.mode))?;
        }
        set_xattrs(entry, |name, value| fs::fsetxattr(&fd, name, value, XattrFlags::empty()))?;
        Ok(fs::futimens(&fd, &both(entry.mtime))?)
    }

    fn symlink(&mut self, parent: &Directory, name: &[u8], entry: &Entry) -> io::Result<()> {
        let target = entry.target.as_slice();
        self.replacing(parent, name, || fs::symlinkat(target, &parent.fd, name))?;
        self.state.usage.add(0);
        self.describe(parent, name, entry)
    }

    fn node(&mut self, parent: &Directory, name: &[u8], entry: &Entry) -> io::Result<()> {
        let kind = match entry.kind {
            Kind::Character => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = fs::makedev(entry.device.0, entry.device.1);
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        self.replacing(parent, name, || fs::mknodat(&parent.fd, name, kind, mode, device))?;
        self.state.usage.add(0);
        self.describe(parent, name, entry)?;
        fs::chmodat(&parent.fd, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        Ok(fs::utimensat(&parent.fd, name, &both(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets owner, attributes and time of an entry that cannot be opened.
    fn describe(&self, parent: &Directory, name: &[u8], entry: &Entry) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fs::chownat(&parent.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let path = parent.path_of(name);
        set_xattrs(entry, |key, value| fs::lsetxattr(&path, key, value, XattrFlags::empty()))?;
        Ok(fs::utimensat(&parent.fd, name, &both(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Creates an entry, replacing one of the same name from earlier in the archive: the later one counts.
    fn replacing<T>(
        &mut self,
        parent: &Directory,
        name: &[u8],
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(parent, name)?;
                Ok(make()?)
            }
            made => Ok(made?),
        }
    }

    fn clear(&mut self, parent: &Directory, name: &[u8]) -> io::Result<()> {
        self.state.root.forget_recent();
        parent.remove(name)
    }
}

/// Handles a whiteout of a name that this layer has: the entry stays, a directory is marked opaque to hide lower ones.
fn hide_below(directory: &Directory, name: &[u8]) -> io::Result<()> {
    if !is_directory(&directory.stat(name)?) {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    mark_opaque(&fs::openat(&directory.fd, name, flags, Mode::empty())?)
}

fn link_inside(root: &Root, target: &[u8], directory: &Directory, name: &[u8]) -> io::Result<()> {
    let (above, last) = split(target);
    let from = root.directory(above)?;
    // A whiteout is no link target.
    if is_whiteout(&from.stat(last)?) {
        return Err(Errno::NOENT.into());
    }
    let link = || fs::linkat(&from.fd, last, &directory.fd, name, AtFlags::empty());
    match link() {
        Err(Errno::EXIST) => {
            let (old, new) = (directory.stat(name)?, from.stat(last)?);
            if (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino) {
                return Ok(());
            }
            directory.remove(name)?;
            Ok(link()?)
        }
        linked => Ok(linked?),
    }
}

/// True for the metadata that AUFS stores under `.wh..wh.` names; it is no part of the image.
fn is_metadata(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT_META))
}

fn write_all_at(fd: impl AsFd, mut bytes: &[u8], mut at: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::pwrite(&fd, bytes, at)?;
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}

fn set_owner(fd: impl AsFd, entry: &Entry) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    Ok(fs::fchown(fd, Some(uid), Some(gid))?)
}

/// Sets the entry's extended attributes. Overlay's own are skipped: the image must not control overlay. Attributes that
/// the file system refuses are skipped as other runtimes do, except file capabilities, without which a program would
/// fail later and far from the cause.
fn set_xattrs(entry: &Entry, set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>) -> io::Result<()> {
    for (name, value) in &entry.xattrs {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        match set(name, value) {
            Err(Errno::OPNOTSUPP | Errno::PERM) if name != b"security.capability" => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn both(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}

fn umask() -> io::Result<u32> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // Unknown: assume that all bits are masked, which costs an fchmod(2) per file.
    let mask = line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    Ok(mask.unwrap_or(0o777))
}
