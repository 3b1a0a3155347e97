//! The listening socket: never at its path with another's rights, never taken from a daemon that answers.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, chown},
        net::{UnixListener as StdListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

use crate::config::Socket;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Someone accepts connections there.
    #[error("{} is in use: another daemon answers there", .0.display())]
    InUse(PathBuf),
    /// There is something that is no socket, which is not ours to remove.
    #[error("{} exists and is no socket", .0.display())]
    NotASocket(PathBuf),
    /// The file system does not let us.
    #[error("{step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Listens at `path` with the mode and owner of `socket`. A socket that a dead daemon left is replaced.
///
/// It is made under another name and moved to its place when all about it is right.
pub fn bind(path: &Path, socket: &Socket) -> Result<UnixListener, BindError> {
    let failed = |step, path: &Path| {
        let path = path.to_path_buf();
        move |source| BindError::Io { step, path, source }
    };
    check_free(path)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(failed("create", parent))?;
    let new = unfinished(path);
    remove_leftover(&new).map_err(failed("remove", &new))?;
    let listener = StdListener::bind(&new).map_err(failed("listen at", &new))?;
    chown(&new, Some(socket.uid), Some(socket.gid)).map_err(failed("set the owner of", &new))?;
    let mode = Permissions::from_mode(socket.mode.bits());
    fs::set_permissions(&new, mode).map_err(failed("set the mode of", &new))?;
    fs::rename(&new, path).map_err(failed("put the socket at", path))?;
    listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .map_err(failed("listen at", path))
}

/// Where a socket is until it is whole. The name is short because a socket's path may have 107 bytes only.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("~");
    name.into()
}

fn remove_leftover(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Fine when there is nothing, or a socket that nobody listens to.
fn check_free(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BindError::Io { step: "look at", path: path.into(), source }),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.into())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BindError::Io { step: "connect to", path: path.into(), source }),
        Ok(_) => Err(BindError::InUse(path.into())),
    }
}
