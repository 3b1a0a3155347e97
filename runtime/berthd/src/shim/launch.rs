//! Starting a shim, and cleaning up after one that died, by its command line (containerd's shim v2).

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

/// The namespace that Berth's shims run in, in containerd's sense of the word.
const NAMESPACE: &str = "berth";
/// Far more than a shim needs on a machine that works; without it a hung disk would hold the call for ever.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A file of the bundle that is locked while the shim is being started. The starting process has it as its input, so that
/// the lock is held until that one has ended, also when the daemon was killed meanwhile.
const STARTING: &str = "starting";
/// Between two looks at that lock.
const PAUSE: Duration = Duration::from_millis(10);
/// How many clean up at once: as many as shims that died together would bring the machine to its knees.
const CLEANERS: usize = 8;

/// Starts shims from one binary, or rather from a copy that no container can change; it is made anew when the binary is another.
#[derive(Clone, Debug)]
pub struct Launcher {
    binary: PathBuf,
    address: PathBuf,
    copy: Arc<Mutex<Option<Arc<Sealed>>>>,
    cleaners: Arc<Semaphore>,
}

/// What a shim prints once it listens.
#[derive(Deserialize)]
struct Bootstrap {
    address: String,
    protocol: String,
}

impl Launcher {
    /// `binary` is executed with `address` as the daemon's address: the shim's socket goes to `s/` beside it.
    pub fn new(binary: PathBuf, address: PathBuf) -> Self {
        Self { binary, address, copy: Arc::default(), cleaners: Arc::new(Semaphore::new(CLEANERS)) }
    }

    /// The path of the socket that the shim of pod `id` listens on, known before it is started.
    pub fn socket(&self, id: &str) -> String {
        let directory = address::directory(&self.address.to_string_lossy());
        address::socket(&directory, NAMESPACE, id).to_string_lossy().into_owned()
    }

    /// Removes the socket of pod `id`, whose shim was told to leave: one that was killed in that moment has left it.
    pub fn remove_socket(&self, id: &str) -> Result<()> {
        let socket = self.socket(id);
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).during(|| format!("remove {socket}"))
            }
            _ => Ok(()),
        }
    }

    /// Starts the shim of pod `id`, whose bundle exists. It listens when this returns.
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

    /// What to execute. Pods that start together share one copy: who makes it keeps the others waiting.
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

    /// Runs one action of the shim's command line in `bundle`.
    async fn run(&self, id: &str, bundle: &Path, action: &str, input: Stdio) -> Result<Vec<u8>> {
        let step = || format!("run {} {action} for {id}", self.binary.display());
        let copy = self.copy().await?;
        let child = Command::new(copy.path())
            .arg0(&self.binary)
            .args(["-namespace", NAMESPACE, "-id", id, "-address"])
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

/// Takes the lock that says that a shim is being started; it goes with the file.
fn lock(bundle: &Path) -> std::io::Result<File> {
    let file = File::create(bundle.join(STARTING))?;
    file.try_lock()?;
    Ok(file)
}

/// Returns once nobody is starting the shim of `bundle`, be it for this daemon or for one that was killed: from then on the
/// shim listens, or never will.
///
/// # Errors
///
/// `DeadlineExceeded` when that takes longer than a start may take.
pub async fn settled(bundle: &Path) -> Result<()> {
    let path = bundle.join(STARTING);
    let step = || format!("wait for whoever holds {}", path.display());
    let begun = Instant::now();
    loop {
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened.during(step)?,
        };
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < COMMAND_TIMEOUT => sleep(PAUSE).await,
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(Kind::DeadlineExceeded, format!("{}: for 30 s", step())));
            }
            Err(TryLockError::Error(error)) => return Err(error).during(step),
        }
    }
}

/// Does for `id` (a container, or the pod itself), whose shim is dead, what the shim would have done: ends what
/// is left of its processes and removes its cgroup and pins.
pub async fn cleanup_after(launcher: &Launcher, id: &str, bundle: &Path) -> Result<()> {
    if !bundle.exists() {
        return Ok(());
    }
    // The semaphore is never closed.
    let _cleaner = launcher.cleaners.acquire().await;
    launcher.run(id, bundle, "delete", Stdio::null()).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_a_start_waits_until_its_process_has_ended() {
        let bundle = tempfile::tempdir().unwrap();
        settled(bundle.path()).await.unwrap();
        let starting = lock(bundle.path()).unwrap();
        let mut starter = Command::new("sleep").arg("1000").stdin(starting).spawn().unwrap();
        let waiting = timeout(Duration::from_millis(100), settled(bundle.path()));
        assert!(waiting.await.is_err(), "it has not ended");
        starter.kill().await.unwrap();
        settled(bundle.path()).await.unwrap();
    }
}
