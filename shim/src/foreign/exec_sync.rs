//! Commands whose output is the answer, by shim v2's calls and pipes of this process.

use super::client::{LONG_TIMEOUT, NO_TIMEOUT, SHORT_TIMEOUT, failed};
use super::container::{ForeignContainer, path_of};
use super::launch::ForeignShim;
use crate::error::Error;
use crate::exec_sync::{Caller, Command, answer, deadline, outputs};
use crate::exit::Exit;
use crate::init::Stdio;
use crate::shim_log::note;
use berth_shim_proto::berth_shim::ExecSyncRequest;
use containerd_shim_protos::api::*;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::Value;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PROCESS_TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Runs the requested command and streams its output.
pub(super) async fn exec_sync(
    shim: &ForeignShim,
    container: &ForeignContainer,
    request: &ExecSyncRequest,
    caller: &Caller,
) -> Result<(), Error> {
    let io = |source| Error::Io { doing: "run a command in", id: container.id.clone(), source };
    let deadline = deadline(request.timeout_ns)?;
    let process = process_of(&container.bundle, &request.args).map_err(io)?;
    let (stdio, outputs) = outputs().map_err(io)?;
    let command = Exec { shim, container: &container.id, id: next_id() };
    let result = match command.start(process, stdio).await {
        Ok(()) => answer(&command, outputs, deadline, caller).await,
        Err(error) => Err(error),
    };
    command.forget().await;
    result
}

/// The container's own process, with other arguments.
fn process_of(bundle: &Path, args: &[String]) -> io::Result<Value> {
    let mut spec: Value = serde_json::from_slice(&std::fs::read(bundle.join("config.json"))?)?;
    let mut process = spec["process"].take();
    process["args"] = args.into();
    process["terminal"] = false.into();
    Ok(process)
}

fn next_id() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    format!("sync-{}", LAST.fetch_add(1, Ordering::Relaxed))
}

/// A command in a foreign shim's container.
struct Exec<'a> {
    shim: &'a ForeignShim,
    container: &'a str,
    id: String,
}

impl Exec<'_> {
    async fn start(&self, process: Value, stdio: Stdio) -> Result<(), Error> {
        let spec = Any {
            type_url: PROCESS_TYPE_URL.into(),
            value: process.to_string().into_bytes(),
            ..Default::default()
        };
        let request = ExecProcessRequest {
            id: self.container.into(),
            exec_id: self.id.clone(),
            stdout: path_of(&stdio.stdout),
            stderr: path_of(&stdio.stderr),
            spec: MessageField::some(spec),
            ..Default::default()
        };
        let added: ttrpc::Result<Empty> = self.shim.tasks.call("Exec", &request, SHORT_TIMEOUT).await;
        added.map_err(|source| self.failed(source))?;
        let request =
            StartRequest { id: self.container.into(), exec_id: self.id.clone(), ..Default::default() };
        let started: ttrpc::Result<StartResponse> =
            self.shim.tasks.call("Start", &request, LONG_TIMEOUT).await;
        started.map(drop).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: ttrpc::Error) -> Error {
        failed("run a command in", self.container, source)
    }

    async fn forget(&self) {
        let request =
            DeleteRequest { id: self.container.into(), exec_id: self.id.clone(), ..Default::default() };
        if let Err(error) = self.shim.tasks.call::<DeleteResponse>("Delete", &request, LONG_TIMEOUT).await {
            note(format_args!("a command is left in {}: {error}", self.container));
        }
    }
}

impl Command for Exec<'_> {
    /// The foreign shim copies the output and closes the pipes at its end.
    const OUTPUT_TIMEOUT: Duration = Duration::from_secs(5);

    async fn ended(&self) -> Exit {
        let request =
            WaitRequest { id: self.container.into(), exec_id: self.id.clone(), ..Default::default() };
        match self.shim.tasks.call::<WaitResponse>("Wait", &request, NO_TIMEOUT).await {
            Ok(end) => Exit::now(end.exit_status, ""),
            Err(error) => Exit::now(255, format!("the exit code is lost: {error}")),
        }
    }

    async fn kill(&self) {
        let request = KillRequest {
            id: self.container.into(),
            exec_id: self.id.clone(),
            signal: crate::process::KILL.unsigned_abs(),
            all: true,
            ..Default::default()
        };
        if let Err(error) = self.shim.tasks.call::<Empty>("Kill", &request, SHORT_TIMEOUT).await {
            note(format_args!("kill a command in {}: {error}", self.container));
        }
    }
}
