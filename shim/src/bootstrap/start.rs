//! The `start` action, up to a server in the background.

use super::params::Params;
use super::socket::{self, BindResult};
use super::{Error, Flags, failed, program};
use crate::foreign::{self, Handler};
use crate::service::{ServerConfig, serve};
use crate::{descriptors, shim_log};
use berth_failpoint::failpoint;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Maximum size of the parameters in bytes.
const MAX_INPUT_BYTES: u64 = 10 << 20;
/// Annotation by containerd's CRI: the sandbox whose shim runs a container.
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";

/// Starts a server for the pod unless one runs, and prints its address.
pub fn start(flags: &Flags) -> Result<(), Error> {
    program::ensure_sealed()?;
    let input = read_input().map_err(failed("read", Path::new("standard input")))?;
    let environment = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    let params = Params::parse(&input, flags, environment)?;
    let plan = Plan::new(flags, &params)?;
    let answer = params.format.answer(&format!("unix://{}", plan.socket.display()));
    if let BindResult::Bound(listener) = socket::bind(&plan.socket)? {
        failpoint!(SHIM_BOUND)?;
        plan.fork(listener, params.events)?;
        failpoint!(SHIM_FORKED)?;
    }
    io::stdout().write_all(&answer).map_err(failed("write to", Path::new("standard output")))
}

/// Serves in the foreground, for debugging.
pub fn serve_here(flags: &Flags) -> Result<(), Error> {
    program::ensure_sealed()?;
    let events = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    let params = Params::parse(&[], flags, events)?;
    let plan = Plan::new(flags, &params)?;
    let bundle = plan.bundle.clone();
    match socket::bind(&plan.socket)? {
        BindResult::Bound(listener) => plan.serve(listener, params.events).map_err(failed("serve", &bundle)),
        BindResult::InUse => Err(Error::Usage(format!("a shim serves {} already", plan.group))),
    }
}

/// Everything that is determined before the socket is bound.
struct Plan {
    namespace: String,
    /// Id of the pod, or of a container without one.
    group: String,
    bundle: PathBuf,
    socket: PathBuf,
    /// The daemon's own socket.
    daemon: String,
}

impl Plan {
    fn new(flags: &Flags, params: &Params) -> Result<Self, Error> {
        let bundle = bundle(flags)?;
        let group = sandbox_of(&bundle)?.unwrap_or_else(|| flags.id.clone());
        let directory = match &params.socket_directory {
            Some(directory) => PathBuf::from(directory),
            None if flags.address.is_empty() => return Err(Error::Usage("-address is missing".into())),
            None => socket::directory(&flags.address),
        };
        let socket = socket::path(&directory, &flags.namespace, &group);
        let (namespace, daemon) = (flags.namespace.clone(), flags.address.clone());
        Ok(Self { namespace, group, bundle, socket, daemon })
    }

    fn fork(self, listener: UnixListener, events: String) -> Result<(), Error> {
        let socket = self.socket.clone();
        let forked = crate::sys::fork(|| self.background(listener, events));
        if forked.is_err() {
            // Without a server the socket is useless.
            let _ = fs::remove_file(&socket);
        }
        forked.map(drop).map_err(failed("fork the server of", &socket))
    }

    /// The forked server.
    fn background(self, listener: UnixListener, events: String) -> u8 {
        shim_log::open(&self.bundle);
        match detach(listener).and_then(|listener| self.serve(listener, events)) {
            Ok(()) => 0,
            Err(error) => {
                shim_log::note(format_args!("the server ended: {error}"));
                1
            }
        }
    }

    fn serve(self, listener: UnixListener, events: String) -> io::Result<()> {
        let handler = Handler::read(&self.bundle)?;
        let config = ServerConfig {
            id: self.group,
            namespace: self.namespace,
            bundle: self.bundle,
            listener,
            socket: self.socket,
            events,
        };
        match handler {
            Some(handler) => foreign::serve(handler, self.daemon, config),
            None => {
                descriptors::raise();
                serve(config)
            }
        }
    }
}

/// Detaches from the starter's session, terminal, pipes and directory, and closes every descriptor but the listener.
fn detach(listener: UnixListener) -> io::Result<UnixListener> {
    setsid()?;
    {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
    }
    std::env::set_current_dir("/")?;
    let kept = crate::sys::keep_only(listener.as_fd())?;
    // Its descriptor is closed by now, or is the kept one.
    let _ = listener.into_raw_fd();
    Ok(kept.into())
}

/// The absolute path of the bundle.
pub(super) fn bundle(flags: &Flags) -> Result<PathBuf, Error> {
    let given = if flags.bundle.as_os_str().is_empty() { Path::new(".") } else { &flags.bundle };
    given.canonicalize().map_err(failed("find the bundle", given))
}

/// The sandbox that a container's bundle belongs to. A sandbox's own bundle may have no config.json.
fn sandbox_of(bundle: &Path) -> Result<Option<String>, Error> {
    #[derive(Deserialize)]
    struct Annotated {
        #[serde(default)]
        annotations: HashMap<String, String>,
    }
    let path = bundle.join("config.json");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", &path)(error)),
    };
    let mut config: Annotated = serde_json::from_reader(io::BufReader::new(file))
        .map_err(|error| failed("parse", &path)(error.into()))?;
    Ok(config.annotations.remove(SANDBOX_ID))
}

/// Reads standard input, except from a terminal, where a user is typing the command.
fn read_input() -> io::Result<Vec<u8>> {
    let mut input = Vec::new();
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        stdin.lock().take(MAX_INPUT_BYTES).read_to_end(&mut input)?;
    }
    Ok(input)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sandbox(config: Option<&str>) -> Result<Option<String>, Error> {
        let bundle = tempfile::tempdir().unwrap();
        if let Some(config) = config {
            fs::write(bundle.path().join("config.json"), config).unwrap();
        }
        sandbox_of(bundle.path())
    }

    #[test]
    fn a_container_goes_to_the_shim_of_its_sandbox() {
        let config = r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "pod", "other": "x"}}"#;
        assert_eq!(sandbox(Some(config)).unwrap().as_deref(), Some("pod"));
        for alone in [None, Some("{}"), Some(r#"{"annotations": {"other": "x"}}"#)] {
            assert_eq!(sandbox(alone).unwrap(), None);
        }
    }

    #[test]
    fn a_broken_config_is_an_error_that_names_the_file() {
        assert!(sandbox(Some("{")).unwrap_err().line().contains("config.json"));
    }
}
