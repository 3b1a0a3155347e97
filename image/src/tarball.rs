//! Builds layers for tests: archives with any names and fields, including those that no tool would write.

#![allow(clippy::unwrap_used)]

use tar::{EntryType, Header};

/// An archive under construction.
pub(crate) struct Tarball(tar::Builder<Vec<u8>>);

/// Fails a test that needs root, saying how to run it.
pub(crate) fn must_be_root() {
    let root = rustix::process::geteuid().is_root();
    assert!(root, "needs root, type: sudo -E cargo test -p berth-image root_");
}

pub(crate) fn header(kind: EntryType, name: &[u8], mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(0);
    header
}

impl Tarball {
    pub(crate) fn new() -> Self {
        Tarball(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn entry(mut self, mut header: Header, data: &[u8]) -> Self {
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.owned_file(name, data, 0o644, (0, 0))
    }

    pub(crate) fn owned_file(self, name: &str, data: &[u8], mode: u32, owner: (u64, u64)) -> Self {
        let mut header = header(EntryType::Regular, name.as_bytes(), mode);
        header.set_size(data.len() as u64);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        self.entry(header, data)
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(header(EntryType::Directory, name.as_bytes(), mode), &[])
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, name, target)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Link, name, target)
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        let mut header = header(kind, name.as_bytes(), 0o777);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.entry(header, &[])
    }

    pub(crate) fn node(self, kind: EntryType, name: &str, device: (u32, u32)) -> Self {
        let mut header = header(kind, name.as_bytes(), 0o620);
        header.set_device_major(device.0).unwrap();
        header.set_device_minor(device.1).unwrap();
        header.set_gid(5);
        self.entry(header, &[])
    }

    /// Adds PAX records for the next entry.
    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}
