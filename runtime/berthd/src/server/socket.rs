//! The listening socket. It appears at its path only with its final owner and mode, and is never taken from a daemon
//! that answers.

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

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A process accepts connections there.
    #[error("{} is in use: another daemon answers there", .0.display())]
    InUse(PathBuf),
    /// The path holds a file that is not a socket, which the daemon does not remove.
    #[error("{} exists and is no socket", .0.display())]
    NotASocket(PathBuf),
    /// A step failed in the file system.
    #[error("{step} {}", path.display())]
    Io {
        /// The step.
        step: &'static str,
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Listens at `path` with the mode and owner of `socket`. Replaces a socket that has no listener.
///
/// The socket is made under another name, and renamed to `path` once owner and mode are set.
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

/// Returns the name of the socket until it is renamed. It is short because a socket's path is limited to 107 bytes.
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

/// Succeeds when nothing is at the path, or a socket without a listener.
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
