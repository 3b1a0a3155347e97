//! Parts that Berth's integration tests and its benchmark share: a daemon of one's own, a registry, images.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod berth;
pub mod crictl;
pub mod image;
pub mod nri;
pub mod pod;
pub mod registry;

use std::{env, path::PathBuf};

/// A directory or file that the test runner names; without it the test fails with the command to type.
pub fn given(variable: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(path) => path.into(),
        None => panic!("{variable} is not set: these tests are run as root by hack/test"),
    }
}
