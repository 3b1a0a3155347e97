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

/// Between two looks at a lock that somebody holds.
const PAUSE: Duration = Duration::from_millis(10);

/// Holds `<root>/lock` as long as the process lives, however it ends. The file tells a person who holds it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the root directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon works on it.
    #[error("{} is in use by another berthd, process {holder}", root.display())]
    Held {
        /// The directory.
        root: PathBuf,
        /// What the lock file says; a number unless someone wrote to it.
        holder: String,
    },
    /// The file system does not let us.
    #[error("lock {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Lock {
    /// How long the daemon waits for its predecessor. One that was killed is gone for whoever started it as soon as its first
    /// thread is, and holds its files until the last one is.
    pub const PATIENCE: Duration = Duration::from_secs(5);

    /// Takes the lock of `root`, which is made if need be. Whoever holds it has `patience` to end.
    pub async fn take(root: &Path, patience: Duration) -> Result<Self, LockError> {
        let path = root.join("lock");
        let failed = |source| LockError::Io { path: path.clone(), source };
        let mut file = open(root, &path).map_err(failed)?;
        if !lock(&file, patience).await.map_err(failed)? {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(failed)?;
            return Err(LockError::Held { root: root.into(), holder: holder.trim().to_owned() });
        }
        sign(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Whether the lock could be had within `patience`.
async fn lock(file: &File, patience: Duration) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => sleep(PAUSE).await,
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(source)) => return Err(source),
        }
    }
}

fn open(root: &Path, path: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Over what was there, and cut then: on a full disk there may be no other block for it.
fn sign(file: &mut File) -> io::Result<()> {
    let line = format!("{}\n", process::id());
    file.rewind()?;
    file.write_all(line.as_bytes())?;
    file.set_len(line.len() as u64)
}
