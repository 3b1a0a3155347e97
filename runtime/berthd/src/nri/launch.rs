//! Plugins that the daemon starts: the executables of one directory.

use std::{
    fs,
    io::ErrorKind,
    os::{fd::OwnedFd, unix::fs::PermissionsExt, unix::net::UnixStream as StdStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use command_fds::{CommandFdExt, FdMapping};
use futures::future::join_all;
use tokio::{
    net::UnixStream,
    process::{Child, Command},
};

use super::{
    connection::{self, Launched},
    plugin::Identity,
};
use crate::{
    error::{During, Error, Kind, Result},
    runtime::Shared,
};
use berth_work::descriptors;

/// Number of the descriptor that a started plugin finds its connection at.
const PLUGIN_FD: i32 = 3;

/// Starts all plugins. Returns when each takes part or has failed to, which is logged.
pub(super) async fn launch_all(shared: &Arc<Shared>, programs: Vec<(Identity, PathBuf)>) {
    let started = programs.into_iter().map(|(identity, program)| async move {
        let name = identity.to_string();
        if let Err(error) = launch(shared, identity, &program).await {
            tracing::error!(plugin = name, %error, "an NRI plugin that was started does not take part");
        }
    });
    join_all(started).await;
}

/// Lists the plugins in `directory`, which need not exist.
pub(super) fn find(directory: &Path) -> Result<Vec<(Identity, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.during(|| format!("read {}", directory.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let executable = |meta: fs::Metadata| meta.is_file() && meta.permissions().mode() & 0o111 != 0;
        let name = entry.file_name().to_string_lossy().into_owned();
        match Identity::of_file(&name) {
            _ if !fs::metadata(entry.path()).is_ok_and(executable) => {}
            Ok(identity) => found.push((identity, entry.path())),
            Err(error) => tracing::error!(%error, "{} was not started", entry.path().display()),
        }
    }
    Ok(found)
}

async fn launch(shared: &Arc<Shared>, identity: Identity, program: &Path) -> Result<()> {
    let config = configuration(&shared.nri.config().plugin_config_dir, &identity)?;
    let (ours, theirs) = StdStream::pair().during(|| "make a pair of sockets")?;
    let child = start(&identity, program, theirs.into())?;
    ours.set_nonblocking(true).during(|| "set up a socket")?;
    let trunk = UnixStream::from_std(ours).during(|| "set up a socket")?;
    connection::serve(shared, trunk, Some(Launched { identity, config, _child: child })).await
}

/// Starts a plugin, with an environment that holds nothing of the daemon's.
fn start(identity: &Identity, program: &Path, connection: OwnedFd) -> Result<Child> {
    let step = || format!("start {}", program.display());
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("NRI_PLUGIN_NAME", &identity.name)
        .env("NRI_PLUGIN_IDX", &identity.index)
        .env("NRI_PLUGIN_SOCKET", PLUGIN_FD.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .fd_mappings(vec![FdMapping { parent_fd: connection, child_fd: PLUGIN_FD }])
        .map_err(|error| Error::caused(Kind::Internal, step(), error))?;
    command.spawn().inspect(descriptors::restore_limit).during(step)
}

/// Reads the configuration of a plugin: `NN-name.conf`, or else `name.conf`; empty when there is neither.
fn configuration(directory: &Path, identity: &Identity) -> Result<String> {
    for name in [identity.to_string(), identity.name.clone()] {
        let path = directory.join(format!("{name}.conf"));
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            read => return read.during(|| format!("read {}", path.display())),
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_configuration_by_the_whole_name_wins() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::of_file("10-a").unwrap();
        let read = || configuration(directory.path(), &identity).unwrap();
        assert_eq!(read(), "");
        fs::write(directory.path().join("a.conf"), "short").unwrap();
        assert_eq!(read(), "short");
        fs::write(directory.path().join("10-a.conf"), "whole").unwrap();
        assert_eq!(read(), "whole");
    }

    #[test]
    fn only_executables_with_an_index_are_plugins() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = directory.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        file("10-a", 0o755);
        file("20-notes", 0o644);
        file("no-index", 0o755);
        fs::create_dir(directory.path().join("30-directory")).unwrap();
        let found: Vec<_> =
            find(directory.path()).unwrap().into_iter().map(|(identity, _)| identity.to_string()).collect();
        assert_eq!(found, ["10-a"]);
        assert!(find(&directory.path().join("missing")).unwrap().is_empty());
    }
}
