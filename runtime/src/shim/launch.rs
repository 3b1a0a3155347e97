//! Starting a shim, and cleaning up after one that died, by its command line (containerd's shim v2).

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use berth_sealed::Sealed;
use serde::Deserialize;
use tokio::{process::Command, time::timeout};

use crate::{
    blocking,
    error::{During, Error, Kind, Result},
};

/// The namespace that Berth's shims run in, in containerd's sense of the word.
const NAMESPACE: &str = "berth";
/// Far more than a shim needs on a machine that works; without it a hung disk would hold the call for ever.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts shims from one binary, or rather from a copy that no container can change; it is made anew when the binary is another.
#[derive(Clone, Debug)]
pub struct Launcher {
    binary: PathBuf,
    address: PathBuf,
    copy: Arc<Mutex<Option<Arc<Sealed>>>>,
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
        Self { binary, address, copy: Arc::default() }
    }

    /// Starts the shim of pod `id`, whose bundle exists, and returns the path of its socket.
    pub async fn start(&self, id: &str, bundle: &Path) -> Result<String> {
        let printed = self.run(id, bundle, "start").await?;
        let step =
            || format!("read what the shim of pod {id} printed: {:?}", String::from_utf8_lossy(&printed));
        let bootstrap: Bootstrap = serde_json::from_slice(&printed).during(step)?;
        match (bootstrap.protocol.as_str(), bootstrap.address.strip_prefix("unix://")) {
            ("ttrpc", Some(socket)) => Ok(socket.to_owned()),
            _ => Err(Error::new(Kind::Internal, format!("{}: not ttrpc on a unix socket", step()))),
        }
    }

    /// What to execute.
    async fn copy(&self) -> Result<Arc<Sealed>> {
        let copy = self.held().clone();
        match copy.filter(|copy| copy.is_of(&self.binary)) {
            Some(copy) => Ok(copy),
            None => {
                let launcher = self.clone();
                blocking::run("copy the shim", move || launcher.copy_anew()).await?
            }
        }
    }

    fn copy_anew(&self) -> Result<Arc<Sealed>> {
        let copy = Sealed::copy_of(&self.binary);
        let copy = copy.map_err(|error| Error::caused(Kind::Internal, "start shims", error))?;
        let copy = Arc::new(copy);
        *self.held() = Some(Arc::clone(&copy));
        Ok(copy)
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Sealed>>> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one action of the shim's command line in `bundle`.
    async fn run(&self, id: &str, bundle: &Path, action: &str) -> Result<Vec<u8>> {
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
            .stdin(Stdio::null())
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

/// Does for `id` (a container, or the pod itself), whose shim is dead, what the shim would have done: ends what
/// is left of its processes and removes its cgroup and pins.
pub async fn cleanup_after(launcher: &Launcher, id: &str, bundle: &Path) -> Result<()> {
    if !bundle.exists() {
        return Ok(());
    }
    launcher.run(id, bundle, "delete").await.map(drop)
}
