//! The layers of an image as one tree, as overlay would show it, without a mount: look-ups go from the top layer down,
//! honour whiteouts and opaque directories, and resolve symlinks inside the tree.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::unpack::root::{OPAQUE, is_directory, is_whiteout};

const MAX_SYMLINKS: usize = 40;

/// The most directories one look-up may hold open, in all layers together: an image may nest any number, and file
/// descriptors are shared by the whole process.
const MAX_OPEN_DIRECTORIES: usize = 16 << 10;

/// The directories of an image's layers, the top one first, as overlay's `lowerdir` has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// Top layer first. No directory appears twice: overlay refuses that, and a repeated layer changes nothing.
    pub lower: Vec<PathBuf>,
}

/// A path of the merged tree, as paths in the layers that can be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A directory: its path in each layer that has it, the top one first.
    Directory(Vec<PathBuf>),
    /// Anything else: its path in the uppermost layer that has it.
    File(PathBuf),
}

/// Why a file of the merged tree could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{step} {path:?} in the image")]
pub struct ReadError {
    step: &'static str,
    path: String,
    source: io::Error,
}

/// Result of a look-up in the merged tree.
pub(crate) enum Found {
    Absent,
    Directory(MergedDirectory),
    /// Anything but a directory; `parent` is the directory that holds it, in its layer.
    Leaf {
        parent: Arc<OwnedFd>,
        stat: Stat,
    },
}

/// A directory of the merged tree: its parts in the layers, top first.
#[derive(Clone)]
pub(crate) struct MergedDirectory(Vec<Arc<OwnedFd>>);

/// A looked-up path: `path` is its place in the tree once symlinks are followed.
pub(crate) struct LocatedPath {
    pub(crate) path: Vec<Vec<u8>>,
    pub(crate) found: Found,
}

impl Layers {
    /// Reads the file at `path` of the merged tree; `None` if there is none. Symlinks are followed inside the tree.
    /// Fails if it is no regular file or longer than `limit` bytes.
    pub fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let failed = |step| move |source| ReadError { step, path: path.to_owned(), source };
        let located = self.locate(path.as_bytes(), true).map_err(failed("look up"))?;
        let Found::Leaf { parent, .. } = located.found else {
            return match located.found {
                Found::Absent => Ok(None),
                _ => Err(failed("read")(Errno::ISDIR.into())),
            };
        };
        let name = located.path.last().map_or(&[][..], Vec::as_slice);
        read_regular(&parent, name, limit).map(Some).map_err(failed("read"))
    }

    /// Returns where `path` of the merged tree lies, `None` if it is absent. Symlinks are followed inside the tree.
    pub fn part(&self, path: &str) -> Result<Option<Part>, ReadError> {
        let failed = |source| ReadError { step: "look up", path: path.to_owned(), source };
        let located = self.locate(path.as_bytes(), true).map_err(failed)?;
        let part = match &located.found {
            Found::Absent => return Ok(None),
            Found::Directory(merged) => {
                merged.0.iter().map(|part| path_of(part)).collect::<Result<_, _>>().map(Part::Directory)
            }
            Found::Leaf { parent, .. } => {
                let name = located.path.last().map_or(&[][..], Vec::as_slice);
                path_of(parent).map(|parent| Part::File(parent.join(OsStr::from_bytes(name))))
            }
        };
        part.map(Some).map_err(failed)
    }

    /// Looks up `path` from the root of the tree, following symlinks; a symlink in the last component only if `follow`.
    pub(crate) fn locate(&self, path: &[u8], follow: bool) -> io::Result<LocatedPath> {
        let mut walk =
            PathWalk { above: vec![(Vec::new(), self.top()?)], rest: components(path), followed: 0 };
        while let Some(name) = walk.rest.pop_front() {
            if let Some(located) = walk.step(name, follow)? {
                return Ok(located);
            }
        }
        Ok(walk.at_current_directory())
    }

    /// Returns a finder for many look-ups, best made in the order of their names.
    pub(crate) fn finder(&self) -> io::Result<Finder<'_>> {
        Ok(Finder { layers: self, above: vec![(Vec::new(), self.top()?)] })
    }

    fn top(&self) -> io::Result<MergedDirectory> {
        let mut parts = Vec::new();
        for path in &self.lower {
            let part = Arc::new(open_directory(fs::CWD, path)?);
            let opaque = is_opaque(&part);
            parts.push(part);
            if opaque {
                break;
            }
        }
        Ok(MergedDirectory(parts))
    }
}

/// Looks up paths one after the other. Directories that a path shares with the one before are not opened again.
pub(crate) struct Finder<'a> {
    layers: &'a Layers,
    /// The directories from the root down to the last path, each with its name.
    above: Vec<(Vec<u8>, MergedDirectory)>,
}

impl Finder<'_> {
    /// Returns what is at `path`. A symlink in the last component is not followed.
    pub(crate) fn find(&mut self, path: &[u8]) -> io::Result<Found> {
        let names = components(path);
        let known =
            self.above.iter().skip(1).zip(&names).take_while(|((known, _), name)| known == *name).count();
        self.above.truncate(known + 1);
        for (position, name) in names.iter().enumerate().skip(known) {
            let Some((_, here)) = self.above.last() else { break };
            match here.get(name)? {
                Found::Directory(directory) => descend(&mut self.above, name.clone(), directory)?,
                found if position + 1 == names.len() => return Ok(found),
                Found::Leaf { stat, .. } if is_symlink(&stat) => {
                    return Ok(self.layers.locate(path, false)?.found);
                }
                _ => return Ok(Found::Absent),
            }
        }
        let here = self.above.last();
        Ok(here.map_or(Found::Absent, |(_, directory)| Found::Directory(directory.clone())))
    }
}

struct PathWalk {
    /// The directories from the root down to the current one, each with its name.
    above: Vec<(Vec<u8>, MergedDirectory)>,
    rest: VecDeque<Vec<u8>>,
    followed: usize,
}

impl PathWalk {
    fn step(&mut self, name: Vec<u8>, follow: bool) -> io::Result<Option<LocatedPath>> {
        if name == b".." {
            self.up();
            return Ok(None);
        }
        let Some((_, here)) = self.above.last() else {
            return Ok(None);
        };
        match here.get(&name)? {
            Found::Directory(directory) => descend(&mut self.above, name, directory)?,
            Found::Leaf { parent, stat } if is_symlink(&stat) && (follow || !self.rest.is_empty()) => {
                self.follow(&parent, &name)?;
            }
            Found::Leaf { .. } if !self.rest.is_empty() => return Ok(Some(self.at(name, Found::Absent))),
            found => return Ok(Some(self.at(name, found))),
        }
        Ok(None)
    }

    fn up(&mut self) {
        if self.above.len() > 1 {
            self.above.pop();
        }
    }

    fn follow(&mut self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        self.followed += 1;
        if self.followed > MAX_SYMLINKS {
            return Err(Errno::LOOP.into());
        }
        let target = fs::readlinkat(parent, name, Vec::new())?;
        if target.as_bytes().starts_with(b"/") {
            self.above.truncate(1);
        }
        let mut rest = components(target.as_bytes());
        rest.append(&mut self.rest);
        self.rest = rest;
        Ok(())
    }

    fn at(&self, name: Vec<u8>, found: Found) -> LocatedPath {
        let mut path: Vec<_> = self.names().collect();
        path.push(name);
        LocatedPath { path, found }
    }

    fn at_current_directory(self) -> LocatedPath {
        let path = self.names().collect();
        let here = self.above.into_iter().next_back();
        let found = here.map_or(Found::Absent, |(_, directory)| Found::Directory(directory));
        LocatedPath { path, found }
    }

    fn names(&self) -> impl Iterator<Item = Vec<u8>> {
        self.above.iter().skip(1).map(|(name, _)| name.clone())
    }
}

impl MergedDirectory {
    /// Returns the directory in the uppermost layer that has it: overlay shows its owner, mode and attributes.
    pub(crate) fn uppermost(&self) -> Option<&OwnedFd> {
        self.0.first().map(|part| &**part)
    }

    fn get(&self, name: &[u8]) -> io::Result<Found> {
        let mut parts = Vec::new();
        for part in &self.0 {
            let stat = match fs::statat(part, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            if is_whiteout(&stat) {
                break;
            }
            if !is_directory(&stat) {
                if parts.is_empty() {
                    return Ok(Found::Leaf { parent: Arc::clone(part), stat });
                }
                break;
            }
            let directory = Arc::new(open_directory(&**part, name)?);
            let opaque = is_opaque(&directory);
            parts.push(directory);
            if opaque {
                break;
            }
        }
        Ok(if parts.is_empty() { Found::Absent } else { Found::Directory(MergedDirectory(parts)) })
    }
}

fn descend(
    above: &mut Vec<(Vec<u8>, MergedDirectory)>,
    name: Vec<u8>,
    directory: MergedDirectory,
) -> io::Result<()> {
    above.push((name, directory));
    let open: usize = above.iter().map(|(_, merged)| merged.0.len()).sum();
    if open > MAX_OPEN_DIRECTORIES { Err(Errno::NAMETOOLONG.into()) } else { Ok(()) }
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    let named = |part: &&[u8]| !matches!(*part, b"" | b".");
    path.split(|byte| *byte == b'/').filter(named).map(<[u8]>::to_vec).collect()
}

fn open_directory(at: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(at, name, flags, Mode::empty())
}

fn path_of(directory: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// True if the directory at `path` hides the same directory of lower layers.
pub(crate) fn is_opaque_at(path: &Path) -> bool {
    open_directory(fs::CWD, path).is_ok_and(|directory| is_opaque(&directory))
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0_u8; 1];
    fs::fgetxattr(directory, OPAQUE, &mut value) == Ok(1) && value == *b"y"
}

fn is_symlink(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

fn read_regular(parent: &OwnedFd, name: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    // Without NONBLOCK a FIFO in the image would hang the reader.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = File::from(fs::openat(parent, name, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        let long = format!("longer than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, long));
    }
    Ok(bytes)
}

/// Joins the components of a path with `/`, for a look-up in one layer.
pub(crate) fn joined(path: &[Vec<u8>]) -> Vec<u8> {
    path.join(&b'/')
}
