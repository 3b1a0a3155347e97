//! The process between the daemon and a foreign shim.

use super::handler::Handler;
use super::launch::Launcher;
use super::pod::ForeignPod;
use super::service;
use crate::service::{ServerConfig, retrying_listener, run_until_closed, runtime};
use std::io;
use ttrpc::r#async::Server;

/// Serves until the pod is closed. `daemon` is passed to the foreign shim as containerd's address.
pub fn serve(handler: Handler, daemon: String, config: ServerConfig) -> io::Result<()> {
    runtime()?.block_on(async {
        let events = config.socket.clone();
        let launcher = Launcher { handler, namespace: config.namespace, daemon, events };
        let pod = ForeignPod::new(config.id, config.bundle, config.socket, launcher);
        let mut server = Server::new().add_listener(retrying_listener(config.listener)?);
        for service in service::services(&pod) {
            server = server.register_service(service);
        }
        server.start().await.map_err(io::Error::other)?;
        run_until_closed(&pod.orphans, pod.close_when_unused(), pod.closed()).await?;
        server.shutdown().await.map_err(io::Error::other)
    })
}
