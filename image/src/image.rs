//! An image as the store lists it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;
use crate::manifest::or_default;

/// An image in the store. Its identity is its configuration: pulled from several registries it is one image.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of the configuration.
    pub id: Digest,
    /// Normalized `repository:tag` names; empty if it was pulled by digest only, or if all its tags moved to others.
    pub tags: Vec<String>,
    /// Normalized `repository@digest` names.
    pub digests: Vec<String>,
    /// Size in bytes of the compressed layers and the configuration.
    pub size: u64,
    /// Defaults for containers of this image.
    pub config: ImageConfig,
    /// Processor architecture in Go's terms, such as `amd64`.
    pub architecture: String,
    /// Operating system in Go's terms, such as `linux`.
    pub os: String,
    /// Version of the architecture; mostly empty.
    pub variant: String,
    /// Build time (RFC 3339) as the configuration states it; empty if it states none.
    pub created: String,
    /// Chain ids of its layers, the bottom one first.
    pub layers: Vec<Digest>,
    /// True if the image must not be removed to free space.
    pub pinned: bool,
    /// Time of the last pull.
    pub pulled_at: SystemTime,
}

/// The part of an image's configuration that applies to containers (OCI image specification, `config`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// User to run as: `name`, `uid`, `name:group` or `uid:gid`.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Environment variables as `NAME=value`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Program and arguments that come before [`ImageConfig::cmd`].
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// Default arguments.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// Working directory.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// Paths at which a container should get a volume.
    #[serde(deserialize_with = "names")]
    pub volumes: Vec<String>,
    /// Ports the program listens on, as `port/protocol`.
    #[serde(deserialize_with = "names")]
    pub exposed_ports: Vec<String>,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Stop signal, as `SIGTERM` or `15`; empty means the default.
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
}

/// Reads a set as Go encodes it: an object whose values mean nothing.
fn names<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let set: BTreeMap<String, IgnoredAny> = or_default(from)?;
    Ok(set.into_keys().collect())
}

impl Image {
    /// True if `name`, in normalized form, is one of the image's tags or digests.
    pub fn is_named(&self, name: &str) -> bool {
        self.tags.iter().chain(&self.digests).any(|own| own == name)
    }
}
