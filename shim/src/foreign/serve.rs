//! The process between the daemon and a foreign shim.

use super::handler::Handler;
use super::launch::Launcher;
use super::pod::ForeignPod;
use super::service;
use crate::service::{Serve, attend, patient, runtime};
use std::io;
use ttrpc::r#async::Server;

/// Serves until the pod is closed. `daemon` is passed to the foreign shim as containerd's address.
pub fn serve(handler: Handler, daemon: String, serve: Serve) -> io::Result<()> {
    runtime()?.block_on(async {
        let events = serve.socket.clone();
        let launcher = Launcher { handler, namespace: serve.namespace, daemon, events };
        let pod = ForeignPod::new(serve.id, serve.bundle, serve.socket, launcher);
        let mut server = Server::new().add_listener(patient(serve.listener)?);
        for service in service::all(&pod) {
            server = server.register_service(service);
        }
        server.start().await.map_err(io::Error::other)?;
        attend(&pod.orphans, pod.close_when_forgotten(), pod.closed()).await?;
        server.shutdown().await.map_err(io::Error::other)
    })
}
