//! Where a container's output goes.

use std::{fs, path::PathBuf};

use super::{Container, config::ContainerConfig, must_run};
use crate::{
    blocking,
    error::{During, Error, Kind, Result},
    pod::Pod,
    runtime::Shared,
    table::Entry,
};

/// Output that nobody keeps, but that can be attached to.
const DISCARD: &str = "discard://";

/// Where the output is logged, if at all: the container's path in the pod's directory.
///
/// # Errors
///
/// `InvalidArgument` when the path would lead out of the directory.
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

/// The output's URI, as the shim knows it. Makes the directory that the file will be in.
pub(super) async fn uri_of(cause: &str, path: Option<PathBuf>, max_line: usize) -> Result<String> {
    let Some(path) = path else { return Ok(DISCARD.into()) };
    let uri = format!("cri-log://{}?max-line={max_line}", path.display());
    blocking::look_up("make the directory of its log", cause, move || {
        let directory = path.parent().unwrap_or(&path);
        fs::create_dir_all(directory).during(|| format!("create {}", directory.display()))
    })
    .await??;
    Ok(uri)
}

/// Goes on in a new file of the same name, after someone has moved the old one.
pub(super) async fn reopen(shared: &Shared, entry: &Entry<Container>) -> Result<()> {
    let container = entry.get();
    must_run(&container)?;
    shared.shim_of(&container.pod_id).await?.reopen_log(&container.id).await
}
