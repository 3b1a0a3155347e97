//! Client of a foreign shim. Versions 2 and 3 of containerd's task service have the same messages under two names.

use super::handler::Address;
use crate::error::Error;
use containerd_shim_protos::api::*;
use containerd_shim_protos::protobuf::Message;
use std::time::Duration;
use ttrpc::asynchronous::Client;
use ttrpc::proto::KeyValue;
use ttrpc::{Code, Request, get_status};

/// Time limit of calls that a shim answers from memory, or with a few system calls.
pub(super) const SHORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of calls that start a program, or touch file systems that may be slow.
pub(super) const LONG_TIMEOUT: Duration = Duration::from_secs(120);
/// No time limit: for calls that wait for an end.
pub(super) const NO_TIMEOUT: Duration = Duration::ZERO;
const NAMESPACE_KEY: &str = "containerd-namespace-ttrpc";
const SIGKILL: u32 = 9;

/// A connection; clones share it.
#[derive(Clone)]
pub(super) struct TaskClient {
    client: Client,
    service: &'static str,
    namespace: String,
}

impl TaskClient {
    /// Connects to the shim at `address`, whose tasks are in `namespace`. Fails for an unknown version.
    pub(super) async fn connect(address: &Address, namespace: &str) -> Result<Self, Error> {
        let service = match address.version {
            2 => "containerd.task.v2.Task",
            3 => "containerd.task.v3.Task",
            version => {
                return Err(Error::Handler(format!("version {version} of the task service is not known")));
            }
        };
        let client = Client::connect(&address.address).await;
        let client = client.map_err(|source| failed("connect to the shim at", &address.address, source))?;
        Ok(Self { client, service, namespace: namespace.to_owned() })
    }

    /// One call, by method name. A limit of zero means none.
    pub(super) async fn call<A: Message>(
        &self,
        method: &str,
        request: &impl Message,
        limit: Duration,
    ) -> ttrpc::Result<A> {
        let encode = |error: containerd_shim_protos::protobuf::Error| status(error.to_string());
        let namespace =
            KeyValue { key: NAMESPACE_KEY.into(), value: self.namespace.clone(), ..Default::default() };
        let request = Request {
            service: self.service.to_owned(),
            method: method.to_owned(),
            timeout_nano: i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
            metadata: vec![namespace],
            payload: request.write_to_bytes().map_err(encode)?,
            ..Default::default()
        };
        let response = self.client.request(request).await?;
        A::parse_from_bytes(&response.payload).map_err(encode)
    }

    /// Sends SIGKILL to all processes of a task. No error if it has ended.
    pub(super) async fn kill(&self, id: &str) -> Result<(), Error> {
        let request = KillRequest { id: id.into(), signal: SIGKILL, all: true, ..Default::default() };
        match self.call::<Empty>("Kill", &request, SHORT_TIMEOUT).await {
            Err(error) if code(&error) != Code::NOT_FOUND => Err(failed("kill", id, error)),
            _ => Ok(()),
        }
    }

    /// Waits for the end of a task. A limit of zero means none.
    pub(super) async fn wait(&self, id: &str, limit: Duration) -> Result<WaitResponse, Error> {
        let request = WaitRequest { id: id.into(), ..Default::default() };
        self.call("Wait", &request, limit).await.map_err(|source| failed("wait for", id, source))
    }

    /// Makes the shim forget an ended task. No error if the shim does not know it.
    pub(super) async fn delete(&self, id: &str) -> Result<(), Error> {
        let request = DeleteRequest { id: id.into(), ..Default::default() };
        match self.call::<DeleteResponse>("Delete", &request, LONG_TIMEOUT).await {
            Err(error) if code(&error) != Code::NOT_FOUND => Err(failed("delete", id, error)),
            _ => Ok(()),
        }
    }

    /// Asks the shim to exit. Errors are ignored: the exit may break the connection before the answer.
    pub(super) async fn shutdown(&self, id: &str) {
        let request = ShutdownRequest { id: id.into(), now: true, ..Default::default() };
        let _ = self.call::<Empty>("Shutdown", &request, SHORT_TIMEOUT).await;
    }
}

/// An error that names the failed action.
pub(super) fn failed(doing: &'static str, id: &str, answer: ttrpc::Error) -> Error {
    Error::Foreign { doing, id: id.to_owned(), answer }
}

/// The code of an answer; UNAVAILABLE for a broken connection.
pub(crate) fn code(error: &ttrpc::Error) -> Code {
    match error {
        ttrpc::Error::RpcStatus(status) => status.code(),
        _ => Code::UNAVAILABLE,
    }
}

fn status(text: String) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(Code::INTERNAL, text))
}
