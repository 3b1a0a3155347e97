//! Parts shared by the integration tests, `crash`, `endure` and the shim's tests: a daemon for one test, a registry, images.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod berth;
pub mod crictl;
pub mod dead_fs;
pub mod image;
pub mod nri;
pub mod pod;
pub mod registry;
pub mod waiting;

use std::path::{Path, PathBuf};

pub use berth_programs::program;

/// containerd's or runc's program `name`, which `hack/tools peers` makes.
pub fn peer(name: &str) -> PathBuf {
    let found = ["BERTH_TEST_CONTAINERD", "BERTH_TEST_RUNC"].map(|peer| program(peer).join(name));
    found
        .into_iter()
        .find(|path| Path::is_file(path))
        .unwrap_or_else(|| panic!("neither containerd nor runc has {name}"))
}
