//! Brings a plugin from a connected socket to the list of plugins.
//!
//! ```text
//! Connected --RegisterPlugin--> Registered --Configure--> Configured --Synchronize--> (called, in the order of its index)
//!     \_________________________\_________________________\_____ too late, or wrong: disconnected
//! ```

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use berth_nri::{
    nri::{self, ConfigureRequest},
    nri_ttrpc::{PluginClient, Runtime as RuntimeService, create_runtime},
};
use futures::{future::ready, stream};
use tokio::{
    io::DuplexStream,
    net::UnixStream,
    process::Child,
    sync::oneshot,
    time::{Instant, timeout_at},
};
use ttrpc::{
    Code,
    asynchronous::{
        Client, Server, TtrpcContext,
        transport::{Listener, Socket},
    },
    context, get_status,
};

use super::{
    Nri, mux,
    plugin::{ConnectionHandle, Identity, Plugin},
    synchronization, updates,
};
use crate::{
    error::{Error, Kind, Result},
    runtime::Shared,
};

/// The runtime's name, as plugins are told.
const RUNTIME_NAME: &str = "berth";
/// The version of the protocol, as upstream numbers it.
const NRI_VERSION: &str = "v0.12.5";

/// A plugin that the daemon has started itself.
pub(super) struct Launched {
    /// From its file name: known before it registers.
    pub identity: Identity,
    /// Content of its configuration file; empty without one.
    pub config: String,
    /// Killed when the connection ends.
    pub _child: Child,
}

/// Serves the plugin on `trunk` in the background until that ends. Returns once the plugin takes part, or has failed
/// to.
pub(super) async fn serve(shared: &Arc<Shared>, trunk: UnixStream, launched: Option<Launched>) -> Result<()> {
    let due = Instant::now() + shared.nri.config().registration_timeout();
    let plugin = connect(shared, trunk, launched, due).await?;
    synchronization::join(shared, plugin).await
}

/// Registers and configures the plugin.
async fn connect(
    shared: &Arc<Shared>,
    trunk: UnixStream,
    launched: Option<Launched>,
    due: Instant,
) -> Result<Plugin> {
    let (connections, carrying) = mux::split_trunk(trunk);
    let (registered, registration) = oneshot::channel();
    let identity = launched.as_ref().map(|launched| launched.identity.clone());
    let config = launched.as_ref().map(|launched| launched.config.clone()).unwrap_or_default();
    let client = PluginClient::new(Client::new(Socket::new(connections.plugin)));
    let service = Service { shared: Arc::clone(shared), registered: Mutex::new(Some(registered)), identity };
    let server = start_server(service, connections.runtime).await?;
    let link = spawn_carrier(shared.nri.clone(), carrying, (server, launched));
    let configured = async {
        let late = |_| Error::new(Kind::DeadlineExceeded, "an NRI plugin connected and did not register");
        let gone = |_| Error::new(Kind::Unavailable, "an NRI plugin left before it registered");
        let identity = timeout_at(due, registration).await.map_err(late)?.map_err(gone)??;
        configure(&shared.nri, identity, client, config, link.clone()).await
    };
    configured.await.inspect_err(|_| link.disconnect())
}

/// Carries the connection's bytes in the background, and drops `kept` when it ends.
fn spawn_carrier<T: Send + 'static>(
    nri: Nri,
    carrying: impl Future<Output = std::io::Error> + Send + 'static,
    kept: T,
) -> ConnectionHandle {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    let carry = async move {
        let reason = carrying.await;
        tracing::debug!(%reason, "the connection to an NRI plugin ended");
        flag.store(true, Ordering::Relaxed);
        drop(kept);
        nri.forget_closed().await;
    };
    ConnectionHandle { task: tokio::spawn(carry).abort_handle(), ended }
}

async fn start_server(service: Service, connection: DuplexStream) -> Result<Server> {
    let only = Listener::new(stream::once(ready(Ok(connection))));
    let mut server = Server::new().register_service(create_runtime(Arc::new(service))).add_listener(only);
    let started = server.start().await;
    started.map_err(|error| Error::caused(Kind::Internal, "serve an NRI plugin", error))?;
    Ok(server)
}

async fn configure(
    nri: &Nri,
    identity: Identity,
    client: PluginClient,
    config: String,
    link: ConnectionHandle,
) -> Result<Plugin> {
    let (registration, request) = (nri.config().registration_timeout(), nri.config().request_timeout());
    let asked = ConfigureRequest {
        config,
        runtime_name: RUNTIME_NAME.into(),
        runtime_version: env!("CARGO_PKG_VERSION").into(),
        registration_timeout: milliseconds(registration),
        request_timeout: milliseconds(request),
        NRI_version: NRI_VERSION.into(),
        ..Default::default()
    };
    let wishes = client.configure(context::with_duration(request), &asked).await;
    let wishes = wishes.map_err(|error| {
        Error::caused(Kind::Unavailable, format!("configure NRI plugin {identity}"), error)
    })?;
    Plugin::new(identity, client, wishes, request, link)
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The service that a plugin can call on its connection.
struct Service {
    shared: Arc<Shared>,
    registered: Mutex<Option<oneshot::Sender<Result<Identity>>>>,
    /// Identity of a plugin that the daemon has started, which overrides the one it registers with.
    identity: Option<Identity>,
}

#[async_trait]
impl RuntimeService for Service {
    async fn register_plugin(
        &self,
        _: &TtrpcContext,
        request: nri::RegisterPluginRequest,
    ) -> ttrpc::Result<nri::Empty> {
        let identity = match &self.identity {
            Some(identity) => Ok(identity.clone()),
            None => Identity::new(&request.plugin_idx, &request.plugin_name),
        };
        let refused = identity.as_ref().err().map(|error| invalid(error.to_string()));
        let waiting = self.registered.lock().unwrap_or_else(PoisonError::into_inner).take();
        let told = waiting.ok_or_else(|| invalid("the plugin is registered already".into()))?.send(identity);
        match refused {
            Some(refused) => Err(refused),
            None => told.map(|()| nri::Empty::new()).map_err(|_| invalid("the plugin came too late".into())),
        }
    }

    async fn update_containers(
        &self,
        _: &TtrpcContext,
        request: nri::UpdateContainersRequest,
    ) -> ttrpc::Result<nri::UpdateContainersResponse> {
        updates::evict(&self.shared, request.evict).await;
        let failed = updates::apply(&self.shared, request.update).await;
        Ok(nri::UpdateContainersResponse { failed, ..Default::default() })
    }
}

fn invalid(text: String) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(Code::INVALID_ARGUMENT, text))
}
