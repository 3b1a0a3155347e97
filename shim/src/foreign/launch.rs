//! The command line of a foreign shim: `start` and `delete`, called as containerd does.

use super::client::TaskClient;
use super::handler::{Address, Handler};
use crate::error::Error;
use crate::orphans::Orphans;
use crate::process::ChildProcess;
use crate::shim_log::note;
use crate::stdio::{Read, asynchronous, pipe, read};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult, Extension};
use containerd_shim_protos::protobuf::{Message, MessageField};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// Time limit, much longer than a shim needs to start.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Runs a foreign shim's binary.
#[derive(Debug, Clone)]
pub(super) struct Launcher {
    pub(super) handler: Handler,
    pub(super) namespace: String,
    /// The daemon's socket, from which older shims derive the path of their own.
    pub(super) daemon: String,
    /// Socket for the shim's events.
    pub(super) events: PathBuf,
}

impl Launcher {
    /// Starts the shim of a pod, whose bundle must contain config.json and a FIFO for the log.
    pub(super) async fn start(
        &self,
        orphans: &Arc<Orphans>,
        id: &str,
        bundle: &Path,
    ) -> Result<Address, Error> {
        let parameters = self.parameters(id).write_to_bytes().unwrap_or_default();
        let said = self.run(orphans, id, bundle, "start", &parameters).await?;
        address(&said)
    }

    /// Runs the binary's cleanup after a shim that died.
    pub(super) async fn delete(&self, orphans: &Arc<Orphans>, id: &str, bundle: &Path) -> Result<(), Error> {
        self.run(orphans, id, bundle, "delete", &[]).await.map(drop)
    }

    /// The same, blocking and without a runtime.
    pub(super) fn delete_blocking(&self, id: &str, bundle: &Path) -> Result<(), Error> {
        let output = self.command(id, bundle, "delete").stdin(Stdio::null()).output();
        let output = output.map_err(|error| self.failed("delete", &error.to_string()))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(self.failed("delete", &String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn parameters(&self, id: &str) -> BootstrapParams {
        let extension = |value| Extension { value: MessageField::some(value), ..Default::default() };
        BootstrapParams {
            instance_id: id.into(),
            namespace: self.namespace.clone(),
            containerd_ttrpc_address: self.events.display().to_string(),
            containerd_grpc_address: self.daemon.clone(),
            extensions: self.handler.any().map(extension).into_iter().collect(),
            ..Default::default()
        }
    }

    fn command(&self, id: &str, bundle: &Path, action: &str) -> Command {
        let mut command = Command::new(&self.handler.shim);
        command
            .args(["-namespace", &self.namespace, "-address", &self.daemon, "-publish-binary", "/bin/false"])
            .args(["-id", id, "-bundle"])
            .arg(bundle)
            .arg(action)
            .current_dir(bundle)
            .env("TTRPC_ADDRESS", &self.events)
            .env("GRPC_ADDRESS", &self.daemon)
            .env("NAMESPACE", &self.namespace);
        command
    }

    async fn run(
        &self,
        orphans: &Arc<Orphans>,
        id: &str,
        bundle: &Path,
        action: &str,
        input: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let failed = |error: io::Error| self.failed(action, &error.to_string());
        let (process, output) = self.spawn(orphans, id, bundle, action, input).map_err(failed)?;
        let ended = timeout(COMMAND_TIMEOUT, process.reap()).await;
        if ended.is_err() {
            process.signal(crate::process::KILL).map_err(failed)?;
        }
        let mut said = Vec::with_capacity(MAX_ANSWER_BYTES);
        if read(&output, &mut said) != Read::Some {
            said.clear();
        }
        match ended {
            Ok(exit) if exit.code == 0 => Ok(said),
            Ok(_) => Err(self.failed(action, &String::from_utf8_lossy(&said))),
            Err(_) => Err(self.failed(action, "it does not end")),
        }
    }

    /// Standard output and error share one pipe. A server left behind may keep it open, so it is not read to its end.
    fn spawn(
        &self,
        orphans: &Arc<Orphans>,
        id: &str,
        bundle: &Path,
        action: &str,
        input: &[u8],
    ) -> io::Result<(ChildProcess, AsyncFd<OwnedFd>)> {
        let _creation = orphans.creation();
        let (reader, writer) = pipe()?;
        let mut command = self.command(id, bundle, action);
        command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // The parameters fit into a pipe. A shim that does not read them is no error.
            let _ = stdin.write_all(input);
        }
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok((ChildProcess::new(child.id(), pidfd, orphans)?, asynchronous(reader)?))
    }

    fn failed(&self, action: &str, said: &str) -> Error {
        Error::Handler(format!("{} {action}: {}", self.handler.shim.display(), said.trim()))
    }
}

/// A running foreign shim.
pub(super) struct ForeignShim {
    pub(super) tasks: TaskClient,
    pub(super) launcher: Launcher,
    orphans: Arc<Orphans>,
}

impl ForeignShim {
    /// Starts the shim of a pod and connects to it. Its address is kept in the bundle.
    pub(super) async fn start(
        launcher: Launcher,
        orphans: Arc<Orphans>,
        id: &str,
        bundle: &Path,
    ) -> Result<Arc<Self>, Error> {
        let address = launcher.start(&orphans, id, bundle).await?;
        let kept = address.write(bundle);
        kept.map_err(|source| Error::Io { doing: "keep the shim's address of", id: id.into(), source })?;
        let tasks = TaskClient::connect(&address, &launcher.namespace).await?;
        Ok(Arc::new(Self { tasks, launcher, orphans }))
    }

    /// After the shim has died: runs its binary's cleanup for one of its tasks.
    pub(super) async fn clean_up_after(&self, id: &str, bundle: &Path) {
        if let Err(error) = self.launcher.delete(&self.orphans, id, bundle).await {
            note(format_args!("clean up after {id}: {error}"));
        }
    }
}

/// Parses the answer to `start`: protobuf since containerd 2.3, JSON since 2.0, before that the bare address of a
/// version 2 service.
fn address(said: &[u8]) -> Result<Address, Error> {
    #[derive(Deserialize)]
    struct Json {
        version: i32,
        address: String,
        protocol: String,
    }
    let text = || String::from_utf8_lossy(said).trim().to_owned();
    let (version, address, protocol) = match BootstrapResult::parse_from_bytes(said) {
        Ok(result) if !result.address.is_empty() => (result.version, result.address, result.protocol),
        _ => match serde_json::from_slice::<Json>(said) {
            Ok(json) => (json.version, json.address, json.protocol),
            Err(_) => (2, text(), "ttrpc".to_owned()),
        },
    };
    if protocol != "ttrpc" || !address.starts_with("unix://") {
        return Err(Error::Handler(format!("the shim answers {:?}: not ttrpc on a unix socket", text())));
    }
    Ok(Address { address, version })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_form_of_the_answer_is_understood() {
        let result = BootstrapResult {
            version: 3,
            address: "unix:///run/s".into(),
            protocol: "ttrpc".into(),
            ..Default::default()
        };
        let json = br#"{"version": 3, "address": "unix:///run/s", "protocol": "ttrpc"}"#;
        for (said, version) in
            [(&result.write_to_bytes().unwrap()[..], 3), (json, 3), (b"unix:///run/s\n", 2)]
        {
            assert_eq!(address(said).unwrap(), Address { address: "unix:///run/s".into(), version });
        }
    }

    #[test]
    fn an_answer_that_leads_nowhere_is_shown() {
        for said in
            [&b""[..], b"cannot start", br#"{"version": 3, "address": "vsock://3", "protocol": "grpc"}"#]
        {
            assert!(address(said).unwrap_err().to_string().contains("not ttrpc"), "{said:?}");
        }
    }
}
