//! Destination of a container's output.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, mkdirat, open, openat},
    io::Errno,
};

use super::{Container, config::ContainerConfig, must_run};
use crate::{
    blocking,
    error::{During, Error, Kind, Result},
    pod::Pod,
    runtime::Shared,
    table::Entry,
};

/// URI for output that is not logged but can be attached to.
const DISCARD_URI: &str = "discard://";

/// Returns the path of the log file in the pod's log directory; `None` when nothing is logged.
///
/// # Errors
///
/// `InvalidArgument` when the path would leave the directory.
pub(super) fn path_of(pod: &Pod, config: &ContainerConfig) -> Result<Option<PathBuf>> {
    let Some(directory) = &pod.config.log_directory else { return Ok(None) };
    if config.log_path.is_empty() {
        return Ok(None);
    }
    let leads_out = config.log_path.split('/').any(|part| part == "..") || config.log_path.starts_with('/');
    if leads_out {
        let text = format!("log_path {:?} leads out of the pod's log directory", config.log_path);
        return Err(Error::new(Kind::InvalidArgument, text));
    }
    Ok(Some(directory.join(&config.log_path)))
}

/// Returns the output's URI for the shim, with symlinks of the pod's log directory resolved. Makes the directory of the
/// log file.
///
/// # Errors
///
/// `InvalidArgument` when a symlink lies between the pod's log directory and the file: a container may have the
/// directory as a volume and plant one.
pub(super) async fn uri_of(pod: &Pod, cause: &str, path: Option<PathBuf>, max_line: usize) -> Result<String> {
    let (Some(path), Some(base)) = (path, pod.config.log_directory.clone()) else {
        return Ok(DISCARD_URI.into());
    };
    let real = blocking::look_up("make the directory of its log", cause, move || {
        fs::create_dir_all(&base).during(|| format!("create {}", base.display()))?;
        let real = base.canonicalize().during(|| format!("find {}", base.display()))?;
        let below = path.strip_prefix(&base).unwrap_or(&path).to_owned();
        make_parents(&real, &below)?;
        Ok::<_, Error>(real.join(below))
    });
    Ok(format!("cri-log://{}?max-line={max_line}", real.await??.display()))
}

/// Makes the directories between `base` and the file `below`, one by one with O_NOFOLLOW, so that symlinks are refused.
fn make_parents(base: &Path, below: &Path) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let make = || {
        let mut directory = open(base, flags, Mode::empty())?;
        for name in below.parent().into_iter().flat_map(Path::components) {
            match mkdirat(&directory, name.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            directory = openat(&directory, name.as_os_str(), flags, Mode::empty())?;
        }
        Ok(())
    };
    make().map_err(|error| match error {
        Errno::NOTDIR | Errno::LOOP => {
            let text =
                format!("log_path {below:?}: a link, or a file, is on the way from {}", base.display());
            Error::new(Kind::InvalidArgument, text)
        }
        other => {
            let step = format!("make the directories of {} in {}", below.display(), base.display());
            Error::caused(Kind::Internal, step, std::io::Error::from(other))
        }
    })
}

/// Continues the log in a new file of the same name, after the old one was renamed.
pub(super) async fn reopen(shared: &Shared, entry: &Entry<Container>) -> Result<()> {
    let container = entry.get();
    must_run(&container)?;
    shared.shim_of(&container.pod_id).await?.reopen_log(&container.id).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn directories_are_made_on_the_way_to_the_log_and_links_are_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (base, elsewhere) = (place.path().join("base"), place.path().join("elsewhere"));
        fs::create_dir(&base).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        for _ in 0..2 {
            make_parents(&base, Path::new("a/b/0.log")).unwrap();
        }
        make_parents(&base, Path::new("0.log")).unwrap();
        assert!(base.join("a/b").is_dir());
        symlink(&elsewhere, base.join("link")).unwrap();
        for below in ["link/0.log", "link/made/0.log"] {
            let refused = make_parents(&base, Path::new(below)).unwrap_err();
            assert_eq!(refused.kind(), Kind::InvalidArgument, "{refused}");
        }
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
