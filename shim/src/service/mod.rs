//! The ttrpc services. A method only reads its request, calls the pod or a container, and builds the answer.
//!
//! ttrpc drops the handler of a call whose connection ends. An operation that changes state must not stop half way, so
//! it runs in a task of its own ([`run_to_completion`]), and only its answer is lost.

mod berth;
mod sandbox;
mod stats;
mod task;

pub(crate) use berth::{described, message};
pub(crate) use sandbox::stop_timeout;

use crate::container::ShimContext;
use crate::error::Error;
use crate::events::Events;
use crate::init;
use crate::orphans::Orphans;
use crate::pod::Pod;
use crate::shim_log::note;
use futures::stream::unfold;
use std::future::Future;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use ttrpc::r#async::transport::Listener;
use ttrpc::r#async::{Server, TtrpcContext};

/// Time for an error to reach the caller before its own time limit.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(2);
/// Limit for callers that set none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Pause after a failed accept(2).
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Parameters of a server.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct ServerConfig {
    pub id: String,
    pub namespace: String,
    pub bundle: PathBuf,
    pub listener: UnixListener,
    pub socket: PathBuf,
    /// ttrpc socket for events; empty for none.
    pub events: String,
}

/// Serves until the pod is closed. Runs on the calling thread, which becomes the parent of all containers, and starts
/// no other thread. Blocks.
pub fn serve(config: ServerConfig) -> io::Result<()> {
    runtime()?.block_on(run(config))
}

/// The shim's runtime: it uses the calling thread only.
pub(crate) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Poll for I/O events often: streams that are always ready would delay requests.
        .event_interval(8)
        .build()
}

async fn run(config: ServerConfig) -> io::Result<()> {
    let context =
        ShimContext { events: Events::forward_to(&config.events, &config.namespace), ..Default::default() };
    let pod = Pod::new(config.id, config.bundle, config.socket, context);
    let mut server = start(&pod, config.listener).await?;
    run_until_closed(&pod.context().orphans, pod.close_when_unused(), pod.closed()).await?;
    server.shutdown().await.map_err(io::Error::other)?;
    init::cleanup_finished().await;
    Ok(())
}

/// Becomes a subreaper and reaps orphans until the shim is `closed`. Also runs `unused`, which closes it.
pub(crate) async fn run_until_closed(
    orphans: &Orphans,
    unused: impl Future<Output = ()>,
    closed: impl Future<Output = ()>,
) -> io::Result<()> {
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))?;
    let mut children = signal(SignalKind::child())?;
    let mut terminations = signal(SignalKind::terminate())?;
    tokio::pin!(unused, closed);
    let mut waiting = true;
    loop {
        tokio::select! {
            _ = children.recv() => orphans.reap(),
            // Ignored: there are calls to end the containers.
            _ = terminations.recv() => note("a termination signal was ignored"),
            () = &mut unused, if waiting => waiting = false,
            () = &mut closed => return Ok(()),
        }
    }
}

async fn start(pod: &Arc<Pod>, listener: UnixListener) -> io::Result<Server> {
    let mut server = Server::new()
        .add_listener(retrying_listener(listener)?)
        .register_service(task::service(pod))
        .register_service(sandbox::service(pod))
        .register_service(berth::service(pod));
    server.start().await.map_err(io::Error::other)?;
    Ok(server)
}

/// Wraps a listener so that accept errors do not end it. Without a free descriptor (EMFILE) the connection stays
/// queued, and accept would fail again at once, so it is repeated after a pause.
pub(crate) fn retrying_listener(listener: UnixListener) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    Ok(Listener::new(unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => return Some((Ok(connection), listener)),
                Err(_) => sleep(ACCEPT_RETRY_INTERVAL).await,
            }
        }
    })))
}

/// Time limit of work for a caller: a little less than its own, so that it gets the reason of a failure.
fn limit(context: &TtrpcContext) -> Duration {
    match u64::try_from(context.timeout_nano).map(Duration::from_nanos) {
        Ok(limit) if !limit.is_zero() => limit - (limit / 10).min(TIMEOUT_MARGIN),
        _ => DEFAULT_TIMEOUT,
    }
}

/// Runs `work` to its end even if the caller disconnects.
pub(crate) async fn run_to_completion<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> ttrpc::Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Closing.into()),
    }
}

/// Waits for `waiting`; fails when the shim is `closed` first.
pub(crate) async fn unless_closed<T>(
    closed: impl Future<Output = ()>,
    waiting: impl Future<Output = T>,
) -> ttrpc::Result<T> {
    tokio::select! {
        result = waiting => Ok(result),
        () = closed => Err(Error::Closing.into()),
    }
}
