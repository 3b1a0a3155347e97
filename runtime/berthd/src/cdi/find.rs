//! Resolves device names to edits, from the files in the directories and the host's device nodes.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::{
    DeviceName, Edits, Error, Format, SpecFile,
    edits::Node,
    file::{ContainerEdits, Device, DeviceNode},
};

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Resolves the devices `names` to edits, in that order. Fails on the first that cannot be given, see [`Error`].
///
/// Later directories win over earlier ones; a missing directory is empty. Reads files and device nodes: not for a
/// thread that others wait for.
pub fn find(directories: &[PathBuf], names: &[DeviceName]) -> Result<Edits, Error> {
    let catalog = Catalog::read(directories);
    let mut edits = Edits::default();
    let mut begun: Vec<&Path> = Vec::new();
    for name in names {
        let (found, device) = catalog.device(name)?;
        let mut add = |part: &ContainerEdits| edits.add(name, found, part);
        if !begun.contains(&found.path.as_path()) {
            begun.push(&found.path);
            add(&found.file.container_edits)?;
        }
        add(&device.container_edits)?;
    }
    Ok(edits)
}

/// The files of all directories.
struct Catalog<'a> {
    directories: &'a [PathBuf],
    files: Vec<LoadedSpec>,
    broken: Vec<String>,
}

/// A valid file.
struct LoadedSpec {
    path: PathBuf,
    /// Index of its directory: the higher one wins.
    rank: usize,
    file: SpecFile,
}

impl<'a> Catalog<'a> {
    fn read(directories: &'a [PathBuf]) -> Self {
        let mut catalog = Self { directories, files: Vec::new(), broken: Vec::new() };
        for (rank, directory) in directories.iter().enumerate() {
            match files_of(directory) {
                Ok(paths) => paths.into_iter().for_each(|path| catalog.add(rank, path)),
                Err(error) => catalog.broken.push(format!("{}: {error}", directory.display())),
            }
        }
        catalog
    }

    fn add(&mut self, rank: usize, path: PathBuf) {
        let Some(format) = Format::of(&path) else { return };
        let content = read(&path).map_err(|error| error.to_string());
        match content.and_then(|content| SpecFile::parse(&content, format)) {
            Ok(file) => self.files.push(LoadedSpec { path, rank, file }),
            Err(why) => self.broken.push(format!("{}: {why}", path.display())),
        }
    }

    fn device(&self, name: &DeviceName) -> Result<(&LoadedSpec, &Device), Error> {
        let of_kind = self.files.iter().filter(|found| found.file.kind == name.kind);
        let mut described: Vec<_> = of_kind
            .filter_map(|found| Some((found, found.file.devices.iter().find(|one| one.name == name.device)?)))
            .collect();
        described.sort_by_key(|(found, _)| found.rank);
        match described.as_slice() {
            [.., (one, _), (other, _)] if one.rank == other.rank => {
                Err(Error::Conflict { name: name.clone(), one: one.path.clone(), other: other.path.clone() })
            }
            [.., highest] => Ok(*highest),
            [] => Err(Error::Unknown {
                name: name.clone(),
                directories: self.directories.to_vec(),
                broken: self.broken.clone(),
            }),
        }
    }
}

fn files_of(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)?;
    match content.len() as u64 > MAX_FILE_BYTES {
        true => Err(io::Error::other("is longer than 16 MiB")),
        false => Ok(content),
    }
}

impl Edits {
    /// Adds one part of a file, on behalf of the device `name`.
    fn add(&mut self, name: &DeviceName, found: &LoadedSpec, part: &ContainerEdits) -> Result<(), Error> {
        let unsupported = |what| Error::Unsupported { name: name.clone(), path: found.path.clone(), what };
        if part.intel_rdt.is_some() {
            return Err(unsupported("intelRdt"));
        }
        if !part.net_devices.is_empty() {
            return Err(unsupported("netDevices"));
        }
        let on_host = |what: String| {
            let (name, path) = (name.clone(), found.path.clone());
            move |why: io::Error| Error::Host { name, path, what, why: why.to_string() }
        };
        for node in &part.device_nodes {
            let path = node.host_path();
            self.nodes.push(look_up(node).map_err(on_host(format!("device node {path:?}")))?);
        }
        for mount in part.mounts.iter().filter(|mount| mount.is_bind()) {
            let there = fs::symlink_metadata(&mount.host_path);
            there.map_err(on_host(format!("mount {:?}", mount.host_path)))?;
        }
        self.mounts.extend(part.mounts.iter().cloned());
        self.env.extend(part.env.iter().cloned());
        self.hooks.extend(part.hooks.iter().cloned());
        self.additional_gids.extend(&part.additional_gids);
        Ok(())
    }
}

impl DeviceNode {
    fn host_path(&self) -> &str {
        if self.host_path.is_empty() { &self.path } else { &self.host_path }
    }

    fn kind(&self) -> Option<LinuxDeviceType> {
        match self.kind.as_str() {
            "b" => Some(LinuxDeviceType::B),
            "c" | "u" => Some(LinuxDeviceType::C),
            "p" => Some(LinuxDeviceType::P),
            _ => None,
        }
    }
}

/// Completes a node from the host's. One with a type and a major number, or a FIFO, need not exist on the host.
fn look_up(described: &DeviceNode) -> io::Result<Node> {
    let complete = described.kind().filter(|kind| described.major != 0 || *kind == LinuxDeviceType::P);
    let on_host = HostNode::at(Path::new(described.host_path()));
    let (kind, major, minor) = match (complete, &on_host) {
        (Some(kind), _) => (kind, described.major, described.minor),
        (None, Ok(host)) if described.kind().is_some_and(|kind| kind != host.kind) => {
            return Err(io::Error::other("is of another type on the host"));
        }
        (None, Ok(host)) if described.major == 0 => (host.kind, host.major, host.minor),
        (None, Ok(host)) => (host.kind, described.major, described.minor),
        (None, Err(_)) => return Err(on_host.map(drop).err().unwrap_or(io::ErrorKind::NotFound.into())),
    };
    let mode = described.file_mode.or(on_host.ok().map(|host| host.mode));
    let mut node = LinuxDevice::default();
    node.set_path(described.path.clone().into())
        .set_typ(kind)
        .set_major(major)
        .set_minor(minor)
        .set_file_mode(mode.map(|mode| mode & 0o7777))
        .set_uid(described.uid)
        .set_gid(described.gid);
    let access = match described.permissions.as_str() {
        "" => "rwm",
        "none" => "",
        some => some,
    };
    Ok(Node { node, access: access.to_owned() })
}

struct HostNode {
    kind: LinuxDeviceType,
    major: i64,
    minor: i64,
    mode: u32,
}

impl HostNode {
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        let kind = match found.file_type() {
            kind if kind.is_block_device() => LinuxDeviceType::B,
            kind if kind.is_char_device() => LinuxDeviceType::C,
            kind if kind.is_fifo() => LinuxDeviceType::P,
            _ => return Err(io::Error::other("is no device node")),
        };
        let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
        Ok(Self { kind, major: major.into(), minor: minor.into(), mode: found.mode() })
    }
}

#[cfg(test)]
mod tests;
