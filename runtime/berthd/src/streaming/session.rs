//! From an upgraded connection to its command or port-forward.

use std::io;

use futures::StreamExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Command, command,
    connection::drive,
    forward,
    idle::Idle,
    negotiate::{CommandTransport, ForwardTransport},
    protocol::Protocol,
    spdy,
    websocket::{self, Encoding},
};
use crate::{container::Containers, pod::Pods};

type Connection = TokioIo<Upgraded>;

/// The operation and the transport that were negotiated.
#[derive(Debug)]
pub(super) enum Negotiated {
    Command(Command, CommandTransport),
    Forward { pod: String, transport: ForwardTransport },
}

/// State shared by the sessions of all clients.
#[derive(Clone, Debug)]
pub(super) struct SessionContext {
    pub(super) containers: Containers,
    pub(super) pods: Pods,
    /// Cancelled when the daemon is about to end.
    pub(super) stopping: CancellationToken,
}

/// Serves a client from the moment of its upgrade until it is gone. Dropping this ends everything that is done for it.
pub(super) async fn serve(upgrade: OnUpgrade, negotiated: Negotiated, context: &SessionContext, idle: Idle) {
    let connection = match upgrade.await {
        Ok(connection) => TokioIo::new(connection),
        Err(error) => return debug!(%error, "a client left before its upgrade"),
    };
    match negotiated {
        Negotiated::Command(wanted, CommandTransport::Spdy(protocol)) => {
            spdy_command(connection, wanted, protocol, context, idle).await;
        }
        Negotiated::Command(wanted, CommandTransport::WebSocket(protocol, encoding)) => {
            websocket_command(connection, wanted, protocol, encoding, context, idle).await;
        }
        Negotiated::Forward { pod, transport: ForwardTransport::Spdy } => {
            spdy_forward(connection, &pod, context, idle).await;
        }
        Negotiated::Forward { pod, transport: ForwardTransport::Tunnel } => {
            tunnelled_forward(connection, &pod, context, idle).await;
        }
    }
}

async fn spdy_command(
    connection: Connection,
    wanted: Command,
    protocol: Protocol,
    context: &SessionContext,
    idle: Idle,
) {
    let (input, output) = tokio::io::split(connection);
    let (reader, mut acceptor, queue) = spdy::connection(input, idle.clone());
    let work = async {
        match spdy::collect(&mut acceptor, wanted.wanted, protocol).await {
            Some(streams) => command::serve(wanted, context, streams, protocol).await,
            None => debug!("a client did not open the streams that it asked for"),
        }
        acceptor.go_away().await;
    };
    let writer = async { Ok(queue.write_to(output, idle.clone()).await?) };
    drive(reader.run(), writer, work, &idle).await;
}

async fn websocket_command(
    connection: Connection,
    wanted: Command,
    protocol: Protocol,
    encoding: Encoding,
    context: &SessionContext,
    idle: Idle,
) {
    let (output, input) = websocket::open(connection).await.split();
    let (reader, streams, queue) = websocket::channels(wanted.wanted, protocol, encoding, idle.clone());
    let work = async {
        streams.send_first_message().await;
        command::serve(wanted, context, streams, protocol).await;
    };
    drive(reader.run(input), websocket::send(queue, output, encoding, idle.clone()), work, &idle).await;
}

async fn spdy_forward(connection: Connection, pod: &str, context: &SessionContext, idle: Idle) {
    let (input, output) = tokio::io::split(connection);
    let (reader, acceptor, queue) = spdy::connection(input, idle.clone());
    let writer = async { Ok(queue.write_to(output, idle.clone()).await?) };
    drive(reader.run(), writer, forward::serve(acceptor, context, pod), &idle).await;
}

async fn tunnelled_forward(connection: Connection, pod: &str, context: &SessionContext, idle: Idle) {
    let (output, input) = websocket::open(connection).await.split();
    let (reader, acceptor, queue) = spdy::connection(websocket::tunnel(input), idle.clone());
    let sending = websocket::send(queue, output, Encoding::Binary, idle.clone());
    let writer = async { sending.await.map_err(|error| io::Error::other(error).into()) };
    drive(reader.run(), writer, forward::serve(acceptor, context, pod), &idle).await;
}
