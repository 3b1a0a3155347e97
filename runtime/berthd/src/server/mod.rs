//! The daemon's server: one daemon per root, the CRI socket, and serving until a signal stops it.

mod lock;
mod notify;
mod services;
mod socket;
#[cfg(test)]
mod tests;

use std::{future::Future, time::Duration};

use futures::TryFutureExt;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tracing::{info, warn};

pub use lock::{Lock, LockError};
pub use notify::notify_ready;
pub use services::Services;
pub use socket::{BindError, bind};

/// Time for calls in flight to end after the daemon was told to stop. Cutting them off is as safe as killing the
/// daemon; the time is for their callers.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until `stop` completes, then lets calls in flight end within `drain`. Pods run on.
///
/// A client that sends its socket's path as `:authority` gets PROTOCOL_ERROR from the HTTP/2 library, before any code
/// of ours runs; kubelet and crictl send `localhost`.
pub async fn serve(
    listener: UnixListener,
    services: Services,
    stop: impl Future<Output = ()>,
    drain: Duration,
) -> Result<(), tonic::transport::Error> {
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = Server::builder().serve_with_incoming_shutdown(
        services,
        UnixListenerStream::new(listener),
        stopped.unwrap_or_else(|_| ()),
    );
    let deadline = async {
        stop.await;
        info!("stopping: calls in flight may end, pods run on");
        drop(stopping);
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        served = serving => served,
        () = deadline => {
            warn!("calls in flight were cut off");
            Ok(())
        }
    }
}
