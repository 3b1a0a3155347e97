//! Counts the passes of a failpoint and acts when it is armed.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::process::{Signal, getpid, kill_process};

use crate::{Injected, Point, VARIABLE};

/// Counts one pass of `point`. If it is armed and this pass is due, returns the error or kills the process.
///
/// # Errors
///
/// [`Injected`], if the point is armed with `error`.
pub fn pass(point: &Point) -> Result<(), Injected> {
    static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
    match DIRECTORY.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)) {
        Some(directory) => pass_in(directory, point),
        None => Ok(()),
    }
}

fn pass_in(directory: &Path, point: &Point) -> Result<(), Injected> {
    let passes = count(&directory.join("passed").join(point.name));
    let armed = directory.join("armed").join(point.name);
    let Some((action, number)) = read(&armed) else { return Ok(()) };
    // Of two processes that pass at once, only one succeeds in renaming the file, so the point acts once.
    if passes < number || fs::rename(&armed, directory.join("fired").join(point.name)).is_err() {
        return Ok(());
    }
    match action.as_str() {
        "error" => Err(Injected(point.name)),
        _ => die(),
    }
}

fn count(passed: &Path) -> u64 {
    let counted = fs::File::options().create(true).append(true).open(passed).and_then(|mut file| {
        file.write_all(b".")?;
        file.metadata()
    });
    counted.map_or(0, |metadata| metadata.len())
}

fn read(armed: &Path) -> Option<(String, u64)> {
    let text = fs::read_to_string(armed).ok()?;
    let (action, number) = text.trim().split_once(' ')?;
    Some((action.to_owned(), number.parse().ok()?))
}

fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    // SIGKILL from inside its own PID namespace does not reach the namespace's first process: pid_namespaces(7).
    std::process::abort()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::points::POD_RECORDED;

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in ["armed", "fired", "passed"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        directory
    }

    #[test]
    fn a_point_acts_at_the_pass_it_is_armed_for_and_only_then() {
        let directory = directory();
        let path = directory.path();
        fs::write(path.join("armed").join(POD_RECORDED.name), "error 2").unwrap();
        let passed: Vec<bool> = (0..4).map(|_| pass_in(path, &POD_RECORDED).is_ok()).collect();
        assert_eq!(passed, [true, false, true, true]);
        assert_eq!(fs::read(path.join("passed").join(POD_RECORDED.name)).unwrap().len(), 4);
        assert!(path.join("fired").join(POD_RECORDED.name).exists());
    }

    #[test]
    fn a_point_that_is_not_armed_or_whose_directory_is_gone_does_nothing() {
        let directory = directory();
        assert!(pass_in(directory.path(), &POD_RECORDED).is_ok());
        assert!(pass_in(Path::new("/nowhere"), &POD_RECORDED).is_ok());
    }
}
