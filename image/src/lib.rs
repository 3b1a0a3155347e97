//! Container images: references, registries, layers and their store.

#![forbid(unsafe_code)]

pub mod digest;
mod error;
mod image;
mod images;
mod manifest;
mod merged_view;
mod platform;
mod pull;
pub mod reference;
pub mod registry;
mod store;
#[cfg(test)]
mod tarball;
pub mod tree;
mod unpack;

/// Entry points for tests/fuzz: each takes arbitrary bytes and panics when an invariant does not hold.
#[cfg(feature = "fuzz")]
pub mod fuzz {
    pub use crate::{manifest::fuzz::manifest, registry::hosts::fuzz::hosts_toml, unpack::fuzz::tar_layer};
}

pub use self::error::{Error, Kind};
pub use self::image::{Image, ImageConfig};
pub use self::images::{Config, Images};
pub use self::manifest::ManifestError;
pub use self::merged_view::{Layers, Part, ReadError};
pub use self::platform::Platform;
pub use self::pull::LayerError;
pub use self::store::{Inspection, inspect, reserve_log};
pub use self::unpack::{Error as UnpackError, Limits, Usage};
