//! An HTTP/1.1 server for faults that a real registry cannot be told to show: breaks, stalls, false headers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A request as received.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    headers: HashMap<String, String>,
    pub(super) body: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Returns the first byte asked for by a Range header.
    pub(super) fn offset(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        range.map_or(0, |first| first.parse().unwrap())
    }
}

/// An answer to send.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are really sent, if not all.
    sent: Option<usize>,
    ending: Ending,
    states_length: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Close,
    /// Nothing more is sent, but the connection stays open.
    Stall,
    /// The body is sent byte by byte, with this pause after each.
    Trickle(Duration),
}

impl Answer {
    pub(super) fn status(status: u16) -> Self {
        let (headers, body) = (Vec::new(), Vec::new());
        Self { status, headers, body, sent: None, ending: Ending::Close, states_length: true }
    }

    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::status(200) }
    }

    /// Answers with the rest of `whole` that `request` asks for.
    pub(super) fn range(whole: &[u8], request: &Request) -> Self {
        let first = request.offset();
        if first == 0 {
            return Self::ok(whole);
        }
        let range = format!("bytes {first}-{}/{}", whole.len() - 1, whole.len());
        Self { body: whole[first..].to_vec(), ..Self::status(206) }.header("Content-Range", &range)
    }

    pub(super) fn redirect(location: &str) -> Self {
        Self::status(307).header("Location", location)
    }

    pub(super) fn challenge(challenge: &str) -> Self {
        Self::status(401).header("WWW-Authenticate", challenge)
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Breaks the connection after this many bytes of the body.
    pub(super) fn cut_after(mut self, bytes: usize) -> Self {
        self.sent = Some(bytes);
        self
    }

    /// Sends this many bytes of the body, then nothing for ever.
    pub(super) fn stall_after(mut self, bytes: usize) -> Self {
        self.ending = Ending::Stall;
        self.cut_after(bytes)
    }

    /// Sends byte after byte, with this pause after each.
    pub(super) fn trickled(mut self, pause: Duration) -> Self {
        self.ending = Ending::Trickle(pause);
        self
    }

    /// States no length: the body ends with the connection.
    pub(super) fn of_unstated_length(mut self) -> Self {
        self.states_length = false;
        self
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Scripted\r\nConnection: close\r\n", self.status);
        if self.states_length {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }
}

type Script = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// The running server; it stops when dropped.
pub(super) struct Server {
    address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(script, None).await
    }

    pub(super) async fn start_tls(
        acceptor: TlsAcceptor,
        script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::listen(script, Some(acceptor)).await
    }

    async fn listen(
        script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
        acceptor: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let task = tokio::spawn(accept(listener, acceptor, Arc::new(script), seen.clone()));
        Self { address, scheme, seen, task }
    }

    /// Host and port, as in an image's name.
    pub(super) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Scheme, host and port.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Returns every request so far.
    pub(super) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns the targets of all requests so far.
    pub(super) fn targets(&self) -> Vec<String> {
        self.seen().into_iter().map(|request| request.target).collect()
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    script: Script,
    seen: Arc<Mutex<Vec<Request>>>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, script, seen) = (acceptor.clone(), script.clone(), seen.clone());
        tokio::spawn(async move {
            match acceptor {
                None => serve(stream, script, seen).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => serve(stream, script, seen).await,
                    Err(_) => None,
                },
            }
        });
    }
}

/// Answers one request. `None` if the client goes away.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    script: Script,
    seen: Arc<Mutex<Vec<Request>>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let request = read_request(&mut stream).await?;
    seen.lock().unwrap().push(request.clone());
    let answer = script(&request);
    stream.write_all(answer.head().as_bytes()).await.ok()?;
    let sent = answer.sent.unwrap_or(answer.body.len());
    let pieces = match answer.ending {
        Ending::Trickle(_) => 1,
        _ => sent.max(1),
    };
    for piece in answer.body[..sent].chunks(pieces) {
        stream.write_all(piece).await.ok()?;
        stream.flush().await.ok()?;
        if let Ending::Trickle(pause) = answer.ending {
            tokio::time::sleep(pause).await;
        }
    }
    stream.flush().await.ok()?;
    if answer.ending == Ending::Stall {
        stream.read_u8().await.ok()?;
    }
    stream.shutdown().await.ok()
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<Request> {
    const TLS_HANDSHAKE: u8 = 22;
    if stream.fill_buf().await.ok()?.first() == Some(&TLS_HANDSHAKE) {
        return None;
    }
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let mut first = lines.first()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { method, target, headers, body: String::from_utf8(body).unwrap() })
}
