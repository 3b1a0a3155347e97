//! Entries named through a symlink of a lower layer. An archive that has `lib/x`, on a base where `lib` leads to `usr/lib`,
//! means `usr/lib/x`; left where it is, the directory it implies would hide the symlink and all that is behind it.

use std::io;

use rustix::fs::{self, AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::root::{Root, is_directory};
use super::{Error, Unpacked, failed};
use crate::layers::{Found, Layers, joined};

/// Moves what lies in implied directories that are symlinks to directories below to where those lead.
pub(super) fn relocate(layer: &mut Unpacked, parents: &Layers) -> Result<(), Error> {
    // Moving changes what is implied below; each round deals with the uppermost symlink left.
    loop {
        let implied: Vec<_> = layer.root.implied.iter().cloned().collect();
        let mut moved = false;
        for from in implied {
            if let Some(to) = led_to(parents, &from).map_err(failed("look up", &from))? {
                shift(&mut layer.root, &from, &to)
                    .map_err(failed("follow a lower layer's symlink for", &from))?;
                layer.rename(&from, &to);
                moved = true;
                break;
            }
        }
        if !moved {
            return Ok(());
        }
    }
}

/// Where `path` leads in the parents, if it is a symlink to a directory there.
fn led_to(parents: &Layers, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let itself = parents.locate(path, false)?;
    let Found::Leaf { stat, .. } = &itself.found else {
        return Ok(None);
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    let target = parents.locate(path, true)?;
    let leads_elsewhere = matches!(target.found, Found::Directory(_)) && target.path != itself.path;
    Ok(leads_elsewhere.then(|| joined(&target.path)))
}

/// Moves the entries of directory `from` into `to`, and removes it.
fn shift(root: &mut Root, from: &[u8], to: &[u8]) -> io::Result<()> {
    let source = root.directory(from)?;
    for entry in Dir::read_from(&source.fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let (old, new) = ([from, name].join(&b'/'), [to, name].join(&b'/'));
        let into = root.parent(&new)?;
        let existing = into.stat(name).ok();
        if existing.as_ref().is_some_and(is_directory) && is_directory(&source.stat(name)?) {
            shift(root, &old, &new)?;
            continue;
        }
        if existing.is_some() {
            into.remove(name)?;
        }
        fs::renameat(&source.fd, name, &into.fd, name)?;
    }
    root.forget_recent();
    let holder = root.parent(from)?;
    match fs::unlinkat(&holder.fd, super::split(from).1, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Unpacked {
    /// Everything known about what is below `from` is about what is below `to` now.
    fn rename(&mut self, from: &[u8], to: &[u8]) {
        let moved = |path: &[u8]| match path.strip_prefix(from) {
            Some(rest) if rest.starts_with(b"/") => [to, rest].concat(),
            _ => path.to_vec(),
        };
        self.root.forget_recent();
        self.root.implied.remove(from);
        self.root.implied = self.root.implied.iter().map(|path| moved(path)).collect();
        self.times = self.times.drain().map(|(path, time)| (moved(&path), time)).collect();
        for (link, _) in &mut self.links {
            *link = moved(link);
        }
    }
}
