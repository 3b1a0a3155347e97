//! A fake shim, for behaviour that a real one cannot be made to show.
#![allow(clippy::unwrap_used)]

use std::{collections::HashMap, future::ready};

use futures::stream;
use tokio::net::UnixStream;
use ttrpc::asynchronous::{Server, Service, transport::Listener};

/// Serves this one connection until the returned server is dropped.
pub(crate) async fn serve(connection: UnixStream, services: HashMap<String, Service>) -> Server {
    let only = Listener::new(stream::once(ready(Ok(connection))));
    let mut server = Server::new().register_service(services).add_listener(only);
    server.start().await.unwrap();
    server
}
