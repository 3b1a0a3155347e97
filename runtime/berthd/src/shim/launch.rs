//! Starting a shim, and cleaning up after a dead one, by its command line (containerd's shim v2).

use std::{
    fs::{File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use berth_sealed::Sealed;
use berth_shim_proto::address;
use serde::Deserialize;
use tokio::{
    process::Command,
    sync::{Mutex, Semaphore},
    time::{sleep, timeout},
};

use crate::{
    blocking,
    error::{During, Error, Kind, Result},
};

/// containerd's namespace (not a kernel one) that is passed to the shims.
const CONTAINERD_NAMESPACE: &str = "berth";
/// Far more than a shim needs on a healthy machine. Without it a hung disk would block the call for ever.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A file of the bundle that is locked while the shim is being started. The starting process inherits it as its
/// standard input, so that the lock is held until that process has ended, even when the daemon is killed meanwhile.
const START_LOCK_FILE: &str = "starting";
/// Pause between attempts to take that lock.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// Most clean-ups that run at once: when many shims die together, a process for each would overload the machine.
const MAX_CLEANUPS: usize = 8;

/// Starts shims from a sealed copy of one binary, which no container can change. The copy is made again when the binary
/// was replaced.
#[derive(Clone, Debug)]
pub struct Launcher {
    binary: PathBuf,
    address: PathBuf,
    copy: Arc<Mutex<Option<Arc<Sealed>>>>,
    cleanups: Arc<Semaphore>,
}

/// Output of a shim's start action, printed once it listens.
#[derive(Deserialize)]
struct Bootstrap {
    address: String,
    protocol: String,
}

impl Launcher {
    /// Shims are started from `binary`, with `address` as the daemon's address: their sockets go to `s/` beside it.
    pub fn new(binary: PathBuf, address: PathBuf) -> Self {
        Self { binary, address, copy: Arc::default(), cleanups: Arc::new(Semaphore::new(MAX_CLEANUPS)) }
    }

    /// Returns the path of the socket of the shim of pod `id`, which is known before the shim is started.
    pub fn socket(&self, id: &str) -> String {
        let directory = address::directory(&self.address.to_string_lossy());
        address::socket(&directory, CONTAINERD_NAMESPACE, id).to_string_lossy().into_owned()
    }

    /// Removes the socket of pod `id` after its shim was told to exit: a shim that was killed at that moment leaves it.
    pub fn remove_socket(&self, id: &str) -> Result<()> {
        let socket = self.socket(id);
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).during(|| format!("remove {socket}"))
            }
            _ => Ok(()),
        }
    }

    /// Starts the shim of pod `id`, whose bundle must exist. The shim listens when this returns.
    pub async fn start(&self, id: &str, bundle: &Path) -> Result<()> {
        let starting = lock(bundle).during(|| format!("begin to start the shim of pod {id}"))?;
        let printed = self.run(id, bundle, "start", starting.into()).await?;
        let step =
            || format!("read what the shim of pod {id} printed: {:?}", String::from_utf8_lossy(&printed));
        let bootstrap: Bootstrap = serde_json::from_slice(&printed).during(step)?;
        let expected = format!("unix://{}", self.socket(id));
        if bootstrap.protocol == "ttrpc" && bootstrap.address == expected {
            return Ok(());
        }
        Err(Error::new(Kind::Internal, format!("{}: not ttrpc on {expected}", step())))
    }

    /// Makes the copy before the first pod needs it. After an error the start of that pod tries again.
    pub async fn prepare(&self) {
        if let Err(error) = self.copy().await {
            tracing::warn!(%error, "no pod can be started until this is mended");
        }
    }

    /// Returns the copy of the binary. Pods that start together share one copy: while it is made, the others wait.
    async fn copy(&self) -> Result<Arc<Sealed>> {
        let mut held = self.copy.lock().await;
        if let Some(copy) = held.as_ref().filter(|copy| copy.is_of(&self.binary)) {
            return Ok(Arc::clone(copy));
        }
        let binary = self.binary.clone();
        let copy = blocking::run("copy the shim", move || Sealed::copy_of(&binary)).await?;
        let copy = copy.map_err(|error| Error::caused(Kind::Internal, "start shims", error))?;
        Ok(Arc::clone(held.insert(Arc::new(copy))))
    }

    /// Runs an action of the shim's command line in `bundle`. Returns what it printed.
    async fn run(&self, id: &str, bundle: &Path, action: &str, input: Stdio) -> Result<Vec<u8>> {
        let step = || format!("run {} {action} for {id}", self.binary.display());
        let copy = self.copy().await?;
        let child = Command::new(copy.path())
            .arg0(&self.binary)
            .args(["-namespace", CONTAINERD_NAMESPACE, "-id", id, "-address"])
            .arg(&self.address)
            .arg("-bundle")
            .arg(bundle)
            .arg(action)
            .current_dir(bundle)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .during(step)?;
        let ended = timeout(COMMAND_TIMEOUT, child.wait_with_output()).await;
        let Output { status, stdout, stderr } = ended
            .map_err(|_| Error::new(Kind::DeadlineExceeded, format!("{}: no end after 30 s", step())))?
            .during(step)?;
        if status.success() {
            return Ok(stdout);
        }
        let said = String::from_utf8_lossy(&stderr);
        Err(Error::new(Kind::Internal, format!("{}: {status}: {}", step(), said.trim())))
    }
}

/// Takes the lock that marks a shim as being started; it is released when all descriptors of the file are closed.
fn lock(bundle: &Path) -> std::io::Result<File> {
    let file = File::create(bundle.join(START_LOCK_FILE))?;
    file.try_lock()?;
    Ok(file)
}

/// Returns once no process is starting the shim of `bundle`, neither for this daemon nor for an earlier one. From then
/// on the shim listens, or never will.
///
/// # Errors
///
/// `DeadlineExceeded` after 30 s, the time limit of a start.
pub async fn wait_until_started(bundle: &Path) -> Result<()> {
    let path = bundle.join(START_LOCK_FILE);
    let step = || format!("wait for whoever holds {}", path.display());
    let begun = Instant::now();
    loop {
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened.during(step)?,
        };
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < COMMAND_TIMEOUT => {
                sleep(LOCK_RETRY_INTERVAL).await
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(Kind::DeadlineExceeded, format!("{}: for 30 s", step())));
            }
            Err(TryLockError::Error(error)) => return Err(error).during(step),
        }
    }
}

/// Runs the shim's delete action for `id` (a container, or the pod itself), whose shim is dead: kills remaining
/// processes and removes its cgroup and pins.
pub async fn cleanup_after(launcher: &Launcher, id: &str, bundle: &Path) -> Result<()> {
    if !bundle.exists() {
        return Ok(());
    }
    // The semaphore is never closed, so acquiring it cannot fail.
    let _permit = launcher.cleanups.acquire().await;
    launcher.run(id, bundle, "delete", Stdio::null()).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_a_start_waits_until_its_process_has_ended() {
        let bundle = tempfile::tempdir().unwrap();
        wait_until_started(bundle.path()).await.unwrap();
        let starting = lock(bundle.path()).unwrap();
        let mut starter = Command::new("sleep").arg("1000").stdin(starting).spawn().unwrap();
        let waiting = timeout(Duration::from_millis(100), wait_until_started(bundle.path()));
        assert!(waiting.await.is_err(), "it has not ended");
        starter.kill().await.unwrap();
        wait_until_started(bundle.path()).await.unwrap();
    }
}
