//! An image as the store knows it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;
use crate::manifest::or_default;

/// An image in the store. It is the same wherever it was pulled from: its identity is its configuration.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of the configuration.
    pub id: Digest,
    /// Normalized `repository:tag` names; none if it was pulled by digest only, or all its tags moved on.
    pub tags: Vec<String>,
    /// Normalized `repository@digest` names.
    pub digests: Vec<String>,
    /// Bytes of the compressed layers and the configuration.
    pub size: u64,
    /// What a container of this image runs unless told otherwise.
    pub config: ImageConfig,
    /// Processor architecture.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// Version of the architecture; mostly empty.
    pub variant: String,
    /// When it was built, as its configuration says (RFC 3339); mostly present.
    pub created: String,
    /// Chain ids of its layers, the bottom one first.
    pub layers: Vec<Digest>,
    /// It must not be removed to free space.
    pub pinned: bool,
    /// When it was pulled last.
    pub pulled_at: SystemTime,
}

/// The part of an image's configuration that containers take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// User to run as: `name`, `uid`, `name:group` or `uid:gid`.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Environment, `NAME=value` each.
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
    /// Paths at which a container should get volumes.
    #[serde(deserialize_with = "names")]
    pub volumes: Vec<String>,
    /// Ports it listens on, `port/protocol`.
    #[serde(deserialize_with = "names")]
    pub exposed_ports: Vec<String>,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks it to stop, as `SIGTERM` or `15`; empty is the default.
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
}

/// Go's sets: objects whose values say nothing.
fn names<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let set: BTreeMap<String, IgnoredAny> = or_default(from)?;
    Ok(set.into_keys().collect())
}

impl Image {
    /// True if `name` is one of the image's tags or digests, as they are spelled there.
    pub fn is_named(&self, name: &str) -> bool {
        self.tags.iter().chain(&self.digests).any(|own| own == name)
    }
}
