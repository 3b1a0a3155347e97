//! One daemon per root directory.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use tokio::time::sleep;

/// Pause between attempts to take a held lock.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Lock on `<root>/lock`, which the kernel releases when the process ends. The file holds the pid, for people.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon holds it.
    #[error("{} is in use by another berthd, process {holder}", root.display())]
    Held {
        /// The root directory.
        root: PathBuf,
        /// Contents of the lock file: a pid, unless someone else wrote to it.
        holder: String,
    },
    /// The lock file cannot be opened, locked or written.
    #[error("lock {}", path.display())]
    Io {
        /// Path of the lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Lock {
    /// How long the daemon waits for its predecessor. The kernel releases the lock of a killed daemon only when its
    /// last thread has exited, which may be after the process already looks dead.
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// Takes the lock of `root`, and makes the directory if need be. Waits up to `limit` while it is held.
    pub async fn take(root: &Path, limit: Duration) -> Result<Self, LockError> {
        let path = root.join("lock");
        let failed = |source| LockError::Io { path: path.clone(), source };
        let mut file = open(root, &path).map_err(failed)?;
        if !lock(&file, limit).await.map_err(failed)? {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(failed)?;
            return Err(LockError::Held { root: root.into(), holder: holder.trim().to_owned() });
        }
        write_pid(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Returns whether the lock could be taken within `limit`.
async fn lock(file: &File, limit: Duration) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if begun.elapsed() < limit => sleep(RETRY_INTERVAL).await,
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(source)) => return Err(source),
        }
    }
}

fn open(root: &Path, path: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Overwrites the file and truncates it afterwards: on a full disk, truncating first could leave no block for the pid.
fn write_pid(file: &mut File) -> io::Result<()> {
    let line = format!("{}\n", process::id());
    file.rewind()?;
    file.write_all(line.as_bytes())?;
    file.set_len(line.len() as u64)
}
