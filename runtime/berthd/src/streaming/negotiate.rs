//! Negotiates transport and protocol version between client and server, from the header of one request.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};
use http_body_util::Full;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{protocol::Protocol, websocket::Encoding};

const SPDY: &str = "SPDY/3.1";
const WEBSOCKET: &str = "websocket";
/// Header in which clients of SPDY name the versions that they speak.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// How the streams of a command are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandTransport {
    /// As SPDY streams.
    Spdy(Protocol),
    /// As WebSocket channels.
    WebSocket(Protocol, Encoding),
}

/// How forwarded connections are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForwardTransport {
    /// As SPDY streams.
    Spdy,
    /// As SPDY streams inside a WebSocket connection.
    Tunnel,
}

const SPDY_COMMAND: [(&str, Protocol); 4] = [
    ("v4.channel.k8s.io", Protocol::V4),
    ("v3.channel.k8s.io", Protocol::V3),
    ("v2.channel.k8s.io", Protocol::V2),
    ("channel.k8s.io", Protocol::V1),
];
const WEBSOCKET_COMMAND: [(&str, (Protocol, Encoding)); 5] = [
    ("v5.channel.k8s.io", (Protocol::V5, Encoding::Binary)),
    ("v4.channel.k8s.io", (Protocol::V4, Encoding::Binary)),
    ("v4.base64.channel.k8s.io", (Protocol::V4, Encoding::Base64)),
    ("channel.k8s.io", (Protocol::V1, Encoding::Binary)),
    ("base64.channel.k8s.io", (Protocol::V1, Encoding::Base64)),
];
const SPDY_FORWARD: [(&str, ForwardTransport); 1] = [("portforward.k8s.io", ForwardTransport::Spdy)];
const WEBSOCKET_FORWARD: [(&str, ForwardTransport); 1] =
    [("SPDY/3.1+portforward.k8s.io", ForwardTransport::Tunnel)];

/// The response to the client.
pub(super) type Answer = Response<Full<Bytes>>;

/// Negotiates for a command. A client that names no version gets the first.
pub(super) fn command(headers: &HeaderMap) -> Result<(CommandTransport, Answer), Refusal> {
    match upgrade(headers)? {
        Upgrade::Spdy => {
            let (protocol, answer) = spdy(headers, &SPDY_COMMAND, Some(Protocol::V1))?;
            Ok((CommandTransport::Spdy(protocol), answer))
        }
        Upgrade::WebSocket { accept } => {
            let first = Some((Protocol::V1, Encoding::Binary));
            let ((protocol, encoding), answer) = websocket(headers, &accept, &WEBSOCKET_COMMAND, first)?;
            Ok((CommandTransport::WebSocket(protocol, encoding), answer))
        }
    }
}

/// Negotiates for port-forward.
pub(super) fn forward(headers: &HeaderMap) -> Result<(ForwardTransport, Answer), Refusal> {
    match upgrade(headers)? {
        Upgrade::Spdy => spdy(headers, &SPDY_FORWARD, Some(ForwardTransport::Spdy)),
        Upgrade::WebSocket { accept } => websocket(headers, &accept, &WEBSOCKET_FORWARD, None),
    }
}

/// Why a client is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut answer = Response::new(Full::from(refusal.why));
        *answer.status_mut() = refusal.status;
        answer
    }
}

enum Upgrade {
    Spdy,
    WebSocket {
        /// Value of `Sec-WebSocket-Accept` (RFC 6455, section 4.2.2).
        accept: String,
    },
}

fn upgrade(headers: &HeaderMap) -> Result<Upgrade, Refusal> {
    let bad = |why: &str| Refusal::new(StatusCode::BAD_REQUEST, why);
    let wanted = listed(headers, &UPGRADE);
    let asks = listed(headers, &CONNECTION).iter().any(|option| option.eq_ignore_ascii_case("upgrade"));
    if asks && wanted.iter().any(|protocol| protocol.eq_ignore_ascii_case(SPDY)) {
        return Ok(Upgrade::Spdy);
    }
    if !asks || !wanted.iter().any(|protocol| protocol.eq_ignore_ascii_case(WEBSOCKET)) {
        return Err(bad("this is a stream: the request must upgrade to SPDY/3.1 or websocket"));
    }
    if listed(headers, &SEC_WEBSOCKET_VERSION) != ["13"] {
        return Err(bad("Sec-WebSocket-Version must be 13"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad("Sec-WebSocket-Key is missing"))?;
    Ok(Upgrade::WebSocket { accept: derive_accept_key(key.as_bytes()) })
}

fn spdy<T: Copy>(
    headers: &HeaderMap,
    known: &[(&'static str, T)],
    unnamed: Option<T>,
) -> Result<(T, Answer), Refusal> {
    let (name, agreed) = agree(&listed(headers, &STREAM_PROTOCOL), known, unnamed)?;
    let mut answer = switch(SPDY);
    if let Some(name) = name {
        answer.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok((agreed, answer))
}

fn websocket<T: Copy>(
    headers: &HeaderMap,
    accept: &str,
    known: &[(&'static str, T)],
    unnamed: Option<T>,
) -> Result<(T, Answer), Refusal> {
    let (name, agreed) = agree(&listed(headers, &SEC_WEBSOCKET_PROTOCOL), known, unnamed)?;
    let mut answer = switch(WEBSOCKET);
    if let Some(name) = name {
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    if let Ok(accept) = HeaderValue::from_str(accept) {
        answer.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok((agreed, answer))
}

/// Picks the first of the offers that is known, with its name; `unnamed` when there are no offers.
fn agree<T: Copy>(
    offers: &[&str],
    known: &[(&'static str, T)],
    unnamed: Option<T>,
) -> Result<(Option<&'static str>, T), Refusal> {
    if let (true, Some(unnamed)) = (offers.is_empty(), unnamed) {
        return Ok((None, unnamed));
    }
    let agreed = offers.iter().find_map(|offer| known.iter().find(|(name, _)| name == offer));
    agreed.map(|&(name, agreed)| (Some(name), agreed)).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        let why = format!("none of the protocols {offers:?} is spoken here, but {names:?}");
        Refusal::new(StatusCode::FORBIDDEN, why)
    })
}

fn switch(protocol: &'static str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static(protocol));
    answer
}

/// Returns the elements of a list header, which may be spread over several lines.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|element| !element.is_empty()).collect()
}

#[cfg(test)]
mod tests;
