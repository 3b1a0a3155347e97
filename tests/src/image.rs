//! Images for tests, made of busybox and further layers.

use std::{fs, io::Write};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

/// An image to push to a registry.
#[derive(Clone, Debug)]
pub struct Image {
    pub layers: Vec<Layer>,
    pub config: Value,
    pub architecture: String,
}

/// One layer: its blob as stored, and its diff id, the digest of the uncompressed tar.
#[derive(Clone, Debug)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub media_type: &'static str,
    pub diff_id: String,
}

/// Digest of the bytes as `sha256:` and hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A tar archive under construction.
pub struct Tar(tar::Builder<Vec<u8>>);

impl Default for Tar {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Tar {
    pub fn directory(mut self, path: &str, mode: u32) -> Self {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        self.0.append_data(&mut header, path, std::io::empty()).unwrap();
        self
    }

    pub fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        self.0.append_data(&mut header, path, content).unwrap();
        self
    }

    pub fn link(mut self, kind: tar::EntryType, path: &str, target: &str) -> Self {
        let mut header = header(kind, 0o777, 0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    /// Adds an entry whose name and link target are written unchecked, so they may be absolute or contain `..`.
    pub fn raw(mut self, kind: tar::EntryType, name: &str, target: &str, content: &[u8]) -> Self {
        let mut header = header(kind, 0o644, content.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}

impl Layer {
    pub fn gzip(tar: Tar) -> Self {
        let bytes = tar.bytes();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&bytes).unwrap();
        let blob = encoder.finish().unwrap();
        Self { blob, media_type: "application/vnd.oci.image.layer.v1.tar+gzip", diff_id: sha256(&bytes) }
    }

    pub fn zstd(tar: Tar) -> Self {
        let bytes = tar.bytes();
        let blob = zstd::encode_all(&bytes[..], 1).unwrap();
        Self { blob, media_type: "application/vnd.oci.image.layer.v1.tar+zstd", diff_id: sha256(&bytes) }
    }

    pub fn plain(tar: Tar) -> Self {
        let blob = tar.bytes();
        Self { diff_id: sha256(&blob), blob, media_type: "application/vnd.oci.image.layer.v1.tar" }
    }

    pub fn digest(&self) -> String {
        sha256(&self.blob)
    }
}

impl Image {
    /// Busybox with the applets that the tests use, and the users root and `alice` (1000, also in group `staff`).
    pub fn busybox() -> Self {
        let busybox = fs::read(crate::program("BERTH_TEST_BUSYBOX")).expect("read busybox");
        let mut tar = Tar::default()
            .directory("bin", 0o755)
            .directory("etc", 0o755)
            .directory("tmp", 0o1777)
            .directory("root", 0o700)
            .file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
            .file("etc/group", 0o644, b"root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n")
            .file("bin/busybox", 0o755, &busybox);
        for applet in "sh cat echo sleep true false id env ls ps kill ip wget nc mount hostname head seq dd touch rmdir unshare \
                       printf test mkdir rm stat pwd grep wc date awk tail httpd ping chmod umount tr readlink"
            .split_whitespace()
        {
            tar = tar.link(tar::EntryType::Link, &format!("bin/{applet}"), "bin/busybox");
        }
        Self::of([Layer::gzip(tar)])
    }

    pub fn of(layers: impl IntoIterator<Item = Layer>) -> Self {
        let config = json!({"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sh"]});
        Self { layers: layers.into_iter().collect(), config, architecture: "amd64".into() }
    }

    /// The configuration blob.
    pub fn config_bytes(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let config = json!({
            "architecture": self.architecture, "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": self.config, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        config.to_string().into_bytes()
    }

    /// Id that Berth must give the image: the digest of its configuration.
    pub fn id(&self) -> String {
        sha256(&self.config_bytes())
    }

    pub fn manifest(&self) -> Vec<u8> {
        let layer = |layer: &Layer| json!({"mediaType": layer.media_type, "digest": layer.digest(), "size": layer.blob.len()});
        let config = self.config_bytes();
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len()},
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes()
    }
}

/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
