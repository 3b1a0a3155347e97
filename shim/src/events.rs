//! Forwarding of events to containerd, if the shim was started with an event address.
//!
//! Best effort: events go out in order through a bounded queue; those that do not fit are dropped and logged. No caller
//! waits for the receiver. berthd sets no address: it waits for exits by calls of its own.

use crate::error::error_line;
use crate::exit::{Exit, now};
use crate::shim_log::note;
use containerd_shim_protos::api::{CreateTaskRequest, ForwardRequest};
use containerd_shim_protos::events::task::*;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use std::time::Duration;
use tokio::sync::mpsc;

const MAX_QUEUED_EVENTS: usize = 128;
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
const SEND_ATTEMPTS: u32 = 3;

/// Converts nanoseconds since the Unix epoch to a protobuf timestamp.
pub fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp {
        seconds: nanoseconds.div_euclid(1_000_000_000),
        nanos: nanoseconds.rem_euclid(1_000_000_000) as i32,
        ..Default::default()
    }
}

/// Sender of events; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Events {
    queue: Option<mpsc::Sender<Envelope>>,
    namespace: String,
}

impl Events {
    /// Starts forwarding to the ttrpc socket at `address`; with an empty one nothing is sent.
    pub fn forward_to(address: &str, namespace: &str) -> Self {
        if address.is_empty() {
            return Self::default();
        }
        let (queue, events) = mpsc::channel(MAX_QUEUED_EVENTS);
        let address = format!("unix://{}", address.trim_start_matches("unix://"));
        tokio::spawn(forward(address, events));
        Self { queue: Some(queue), namespace: namespace.to_owned() }
    }

    /// Queues an event; `name` is the message's full protobuf name.
    pub fn publish(&self, topic: &str, name: &str, event: &impl Message) {
        let Some(queue) = &self.queue else {
            return;
        };
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(now())),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(pack(name, event)),
            ..Default::default()
        };
        if queue.try_send(envelope).is_err() {
            note(format_args!("event {topic} dropped: nobody takes events"));
        }
    }
}

/// The task events of shim v2.
impl Events {
    /// A container was created.
    pub fn created(&self, request: &CreateTaskRequest, pid: u32) {
        let io = TaskIO {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
            ..Default::default()
        };
        let event = TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            io: MessageField::some(io),
            pid,
            ..Default::default()
        };
        self.publish("/tasks/create", "containerd.events.TaskCreate", &event);
    }

    /// A container was started.
    pub fn started(&self, container: &str, pid: u32) {
        let event = TaskStart { container_id: container.to_owned(), pid, ..Default::default() };
        self.publish("/tasks/start", "containerd.events.TaskStart", &event);
    }

    /// An exec was registered.
    pub fn exec_added(&self, container: &str, exec: &str) {
        let (container_id, exec_id) = (container.to_owned(), exec.to_owned());
        let event = TaskExecAdded { container_id, exec_id, ..Default::default() };
        self.publish("/tasks/exec-added", "containerd.events.TaskExecAdded", &event);
    }

    /// An exec was started.
    pub fn exec_started(&self, container: &str, exec: &str, pid: u32) {
        let (container_id, exec_id) = (container.to_owned(), exec.to_owned());
        let event = TaskExecStarted { container_id, exec_id, pid, ..Default::default() };
        self.publish("/tasks/exec-started", "containerd.events.TaskExecStarted", &event);
    }

    /// A container was paused.
    pub fn paused(&self, container: &str) {
        let event = TaskPaused { container_id: container.to_owned(), ..Default::default() };
        self.publish("/tasks/paused", "containerd.events.TaskPaused", &event);
    }

    /// A container was resumed.
    pub fn resumed(&self, container: &str) {
        let event = TaskResumed { container_id: container.to_owned(), ..Default::default() };
        self.publish("/tasks/resumed", "containerd.events.TaskResumed", &event);
    }

    /// A container was deleted.
    pub fn deleted(&self, container: &str, pid: u32, exit: &Exit) {
        let event = TaskDelete {
            container_id: container.to_owned(),
            pid,
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.finished_at)),
            ..Default::default()
        };
        self.publish("/tasks/delete", "containerd.events.TaskDelete", &event);
    }

    /// A process ended; `id` is the container's for its first process, otherwise the exec's.
    pub fn exit(&self, container: &str, id: &str, pid: u32, exit: &Exit) {
        let event = TaskExit {
            container_id: container.to_owned(),
            id: id.to_owned(),
            pid,
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.finished_at)),
            ..Default::default()
        };
        self.publish("/tasks/exit", "containerd.events.TaskExit", &event);
    }

    /// The OOM killer killed a process of a container.
    pub fn oom(&self, container: &str) {
        let event = TaskOOM { container_id: container.to_owned(), ..Default::default() };
        self.publish("/tasks/oom", "containerd.events.TaskOOM", &event);
    }
}

/// Packs a message as containerd's typeurl does: the type URL has no host. `name` is a parameter because asking the
/// message for it would build its whole reflection, which stays in memory.
pub fn pack(name: &str, message: &impl Message) -> Any {
    let value = message.write_to_bytes().unwrap_or_default();
    Any { type_url: name.to_owned(), value, ..Default::default() }
}

async fn forward(address: String, mut events: mpsc::Receiver<Envelope>) {
    let mut client = None;
    while let Some(envelope) = events.recv().await {
        let topic = envelope.topic.clone();
        let request = ForwardRequest { envelope: MessageField::some(envelope), ..Default::default() };
        if let Err(error) = deliver(&address, &mut client, &request).await {
            note(format_args!("event {topic} lost: {}", error_line(&error)));
        }
    }
}

async fn deliver(
    address: &str,
    client: &mut Option<EventsClient>,
    request: &ForwardRequest,
) -> Result<(), ttrpc::Error> {
    let mut attempt = 1;
    loop {
        match send(address, client, request).await {
            Err(_) if attempt < SEND_ATTEMPTS => {
                *client = None;
                tokio::time::sleep(SEND_TIMEOUT / 10 * attempt).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

async fn send(
    address: &str,
    client: &mut Option<EventsClient>,
    request: &ForwardRequest,
) -> Result<(), ttrpc::Error> {
    let connected = match client.take() {
        Some(connected) => connected,
        None => EventsClient::new(Client::connect(address).await?),
    };
    let context = ttrpc::context::with_duration(SEND_TIMEOUT);
    connected.forward(context, request).await?;
    *client = Some(connected);
    Ok(())
}
