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

use std::{env, path::PathBuf};

/// Path in an environment variable, which hack/test, hack/crash and hack/endure set. Panics if it is not set.
pub fn given(variable: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(path) => path.into(),
        None => panic!("{variable} is not set: these tests are run as root by hack/test"),
    }
}

/// Path of the file `name` in the first of a variable's colon-separated directories that has it. Panics if none has.
pub fn found_in(variable: &str, name: &str) -> PathBuf {
    let directories = given(variable);
    let mut files = env::split_paths(&directories).map(|directory| directory.join(name));
    files.find(|file| file.is_file()).unwrap_or_else(|| panic!("{name} is in no directory of {variable}"))
}
