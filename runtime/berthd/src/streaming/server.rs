//! The server itself: connections, HTTP, and admission.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http::{Method, StatusCode};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::service_fn,
    upgrade::{OnUpgrade, on},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    Request, Tokens,
    idle::Idle,
    negotiate::{self, Answer, Refusal},
    pending_clients::{PendingClient, PendingClients},
    session::{self, Negotiated, SessionContext},
    tls::Tls,
};
use crate::{
    config,
    container::Containers,
    error::{During, Result},
    pod::Pods,
};

/// How long a client may take for its first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client may take for its TLS handshake, and for the header of its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit of clients that have not asked for a stream yet.
const MAX_PENDING_CLIENTS: usize = 128;
/// Limit of open streams. Each has a handful of descriptors.
const MAX_SESSIONS: usize = 2048;
/// TCP keepalive: idle time before the first probe to a client, and pause between two.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long clients may take to leave once they were told that the server stops.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a connection could not be accepted, for instance because no descriptor was free (EMFILE).
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A listening server.
pub struct Server {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    idle: Duration,
    sessions: usize,
    tokens: Tokens,
}

/// State that every connection needs.
struct Admission {
    tls: Option<Arc<Tls>>,
    idle: Duration,
    tokens: Tokens,
    context: SessionContext,
    session_permits: Arc<Semaphore>,
}

/// An admitted client: its connection to be, and the negotiated operation.
struct Admitted {
    upgrade: OnUpgrade,
    negotiated: Negotiated,
    /// Permit of the semaphore that limits sessions.
    _permit: OwnedSemaphorePermit,
}

impl Server {
    /// Listens at the configured address.
    ///
    /// # Errors
    ///
    /// When the address is taken or not one of this machine's, or the certificate or its key cannot be used.
    pub async fn bind(config: &config::Streaming) -> Result<Self> {
        let tls = match (&config.tls_certificate, &config.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::open(certificate, key)?),
            _ => None,
        };
        let step = || format!("listen for streams on {}", config.address);
        let listener = TcpListener::bind(config.address).await.during(step)?;
        let address = listener.local_addr().during(step)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let tokens = Tokens::new(&format!("{scheme}://{}", reachable(address)));
        Ok(Self { listener, tls, idle: config.idle_timeout(), sessions: MAX_SESSIONS, tokens })
    }

    /// Returns the tokens that admit clients.
    pub fn tokens(&self) -> Tokens {
        self.tokens.clone()
    }

    /// Serves clients that have a token until `stop` is done, and then tells every client that the server stops.
    /// Dropping this ends all sessions without notice.
    pub async fn serve(self, containers: Containers, pods: Pods, stop: impl Future<Output = ()>) {
        let Self { listener, tls, idle, sessions, tokens } = self;
        let context = SessionContext { containers, pods, stopping: CancellationToken::new() };
        let session_permits = Arc::new(Semaphore::new(sessions));
        let admission = Arc::new(Admission { tls, idle, tokens, context, session_permits });
        let pending_clients = PendingClients::new(MAX_PENDING_CLIENTS);
        let mut clients = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = listener.accept() => match accepted {
                    Ok((connection, _)) => drop(clients.spawn(Arc::clone(&admission).serve_client(connection, pending_clients.add()))),
                    Err(error) => {
                        warn!(%error, "a client of the streaming server was not accepted");
                        sleep(ACCEPT_RETRY_DELAY).await;
                    }
                },
                Some(_) = clients.join_next() => {}
            }
        }
        admission.context.stopping.cancel();
        let _ = timeout(DISCONNECT_TIMEOUT, clients.join_all()).await;
    }
}

/// Returns the address at which a client on this machine reaches a server that may listen on all addresses.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

impl Admission {
    async fn serve_client(self: Arc<Self>, connection: TcpStream, pending: PendingClient) {
        if let Err(error) = set_socket_options(&connection) {
            debug!(%error, "set options of a client's connection");
        }
        let admitted = tokio::select! {
            admitted = self.admit_connection(connection) => admitted,
            () = pending.evicted() => None,
        };
        drop(pending);
        if let Some(Admitted { upgrade, negotiated, _permit }) = admitted {
            session::serve(upgrade, negotiated, &self.context, Idle::new(self.idle)).await;
        }
    }

    /// Does the TLS handshake, if configured, and HTTP. A client that sends nothing is dropped after
    /// `FIRST_BYTE_TIMEOUT`.
    async fn admit_connection(&self, connection: TcpStream) -> Option<Admitted> {
        // Not `readable()`, which may return although there is nothing to read.
        timeout(FIRST_BYTE_TIMEOUT, connection.peek(&mut [0])).await.ok()?.ok()?;
        let Some(tls) = &self.tls else { return self.http(connection).await };
        let acceptor = tls.acceptor().await.inspect_err(|error| warn!(%error, "TLS with a client")).ok()?;
        match timeout(REQUEST_TIMEOUT, acceptor.accept(connection)).await {
            Ok(Ok(connection)) => return self.http(connection).await,
            Ok(Err(error)) => debug!(%error, "TLS with a client"),
            Err(_) => debug!("a client did not finish its TLS handshake"),
        }
        None
    }

    /// Serves HTTP requests until one of them upgrades the connection, and returns its client.
    async fn http(
        &self,
        connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Option<Admitted> {
        let (admit, mut admitted) = mpsc::channel(1);
        let answer = service_fn(|request| {
            let answer = self.answer(request, &admit);
            async { Ok::<_, Infallible>(answer) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIMEOUT)
            .serve_connection(TokioIo::new(connection), answer)
            .with_upgrades();
        if let Err(error) = serving.await {
            debug!(%error, "HTTP with a client");
            return None;
        }
        admitted.try_recv().ok()
    }

    fn answer(&self, request: hyper::Request<Incoming>, admit: &mpsc::Sender<Admitted>) -> Answer {
        self.admit(request, admit).unwrap_or_else(Answer::from)
    }

    fn admit(
        &self,
        mut request: hyper::Request<Incoming>,
        admit: &mpsc::Sender<Admitted>,
    ) -> std::result::Result<Answer, Refusal> {
        if ![Method::GET, Method::POST].contains(request.method()) {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "streams are opened by GET or POST"));
        }
        let full = |_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many streams are open");
        let permit = Arc::clone(&self.session_permits).try_acquire_owned().map_err(full)?;
        let wanted = self.tokens.redeem(request.uri().path());
        let none = "no such stream, or it was opened before, or too late";
        let (negotiated, answer) = match wanted.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, none))? {
            Request::Command(command) => {
                let (transport, answer) = negotiate::command(request.headers())?;
                (Negotiated::Command(command, transport), answer)
            }
            Request::Forward { pod } => {
                let (transport, answer) = negotiate::forward(request.headers())?;
                (Negotiated::Forward { pod, transport }, answer)
            }
        };
        let _ = admit.try_send(Admitted { upgrade: on(&mut request), negotiated, _permit: permit });
        Ok(answer)
    }
}

/// Typed characters must not wait for more (TCP_NODELAY), and a machine that is gone must be noticed (keepalive).
fn set_socket_options(connection: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_nodelay(connection, true)?;
    sockopt::set_socket_keepalive(connection, true)?;
    sockopt::set_tcp_keepidle(connection, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepintvl(connection, KEEPALIVE_INTERVAL)
}

#[cfg(test)]
mod tests;
