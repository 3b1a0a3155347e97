//! Where the programs are that tests run: what `hack/build`, `hack/tools` and `hack/busybox` have made.

#![forbid(unsafe_code)]
#![allow(clippy::panic, clippy::expect_used)]

use std::{collections::HashMap, env, path::PathBuf, process::Command, sync::OnceLock};

/// A program, or a directory of programs.
struct Made {
    path: PathBuf,
    /// The script that makes it.
    by: String,
}

/// The path that the environment variable `name` gives, or else where `hack/tools where` says that it is.
///
/// # Panics
///
/// When nothing is there: the message is the command to type.
pub fn program(name: &str) -> PathBuf {
    if let Some(path) = env::var_os(name) {
        return path.into();
    }
    let made = made().get(name).unwrap_or_else(|| panic!("hack/tools where does not know {name}"));
    assert!(made.path.exists(), "{} is missing: run {}", made.path.display(), made.by);
    made.path.clone()
}

fn made() -> &'static HashMap<String, Made> {
    static MADE: OnceLock<HashMap<String, Made>> = OnceLock::new();
    MADE.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../hack/tools");
        let said = Command::new(script).arg("where").output().expect("run hack/tools where");
        assert!(said.status.success(), "hack/tools where: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).lines().filter_map(parse).collect()
    })
}

fn parse(line: &str) -> Option<(String, Made)> {
    let mut fields = line.split('\t');
    let (name, path, by) = (fields.next()?, fields.next()?, fields.next()?);
    Some((name.into(), Made { path: path.into(), by: by.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_has_a_path_and_the_script_that_makes_it() {
        assert!(made().len() > 6);
        for (name, Made { path, by }) in made() {
            assert!(
                name.starts_with("BERTH_TEST_") && path.is_absolute() && by.starts_with("hack/"),
                "{name}"
            );
        }
    }

    #[test]
    #[should_panic(expected = "hack/tools where does not know BERTH_TEST_NOTHING")]
    fn an_unknown_program_is_named() {
        program("BERTH_TEST_NOTHING");
    }
}
