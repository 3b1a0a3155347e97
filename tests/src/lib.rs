//! Parts that Berth's integration tests and its benchmark share: a daemon of one's own, a registry, images.

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

use std::{env, path::PathBuf};

/// A directory or file that the test runner names; without it the test fails with the command to type.
pub fn given(variable: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(path) => path.into(),
        None => panic!("{variable} is not set: these tests are run as root by hack/test"),
    }
}

/// A file in one of the directories, divided by colons, that the test runner names.
pub fn found_in(variable: &str, name: &str) -> PathBuf {
    let directories = given(variable);
    let mut files = env::split_paths(&directories).map(|directory| directory.join(name));
    files.find(|file| file.is_file()).unwrap_or_else(|| panic!("{name} is in no directory of {variable}"))
}
