//! HTTP as registries need it: one client per TLS setting, redirects that drop secrets, statuses as errors.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap};
use reqwest::{Certificate, ClientBuilder, Identity, Method, RequestBuilder, Response, StatusCode, redirect};
use serde::Deserialize;
use url::Url;

use super::Config;
use super::auth::{Credentials, Proof, Proofs, Subject};
use super::challenge::Challenge;
use super::error::Error;
use super::hosts::{Endpoint, Tls};
use super::progress::{ChunkResult, Progress, ProgressMonitor};
use super::token::TokenService;

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// The most bytes of an error's body that are read.
const MAX_REASON_BYTES: u64 = 16 << 10;
/// The most clients kept; reached only if certificates are replaced again and again.
const MAX_CLIENTS: usize = 64;

/// HTTP/2 flow control windows in bytes, of a response and of a connection: enough for parallel layers over a link of
/// high latency, little enough to be held in memory when unpacking is slower than the network.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// A GET, or a HEAD, for something in a repository.
#[derive(Clone, Debug)]
pub(super) struct Get {
    /// Description of the content, for messages.
    pub(super) what: String,
    /// The registry in the image's name, to which the credentials belong.
    pub(super) registry: String,
    pub(super) repository: String,
    /// Send HEAD: only the headers are wanted.
    pub(super) is_head: bool,
    /// Path below the repository, such as `manifests/latest`.
    pub(super) path: String,
    pub(super) accept: &'static str,
    /// The content will be checked against a digest: only then may a redirect lead from HTTPS to plain HTTP.
    pub(super) is_pinned: bool,
    /// First byte wanted.
    pub(super) offset: u64,
    pub(super) credentials: Option<Credentials>,
}

/// Settings of a connection. Requests with equal settings share a client, and with it the connections.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Connect {
    /// Never uses TLS, so that missing CA certificates cannot make it fail.
    Plain {
        no_proxy: bool,
        dial_timeout: Option<Duration>,
    },
    Tls(Tls),
}

/// Connections and proofs, shared by all requests.
pub(super) struct Client {
    pub(super) config: Config,
    connections: Mutex<HashMap<Connect, reqwest::Client>>,
    proofs: Proofs,
}

impl Client {
    pub(super) fn new(config: Config) -> Result<Arc<Self>, Error> {
        let client = Self { config, connections: Mutex::default(), proofs: Proofs::default() };
        client.connection(Connect::Plain { no_proxy: true, dial_timeout: None }, "plain HTTP")?;
        Ok(Arc::new(client))
    }

    /// Sends `get` to `endpoint`; a challenge is answered once. Any status but 2xx is an error.
    pub(super) async fn get(&self, endpoint: &Endpoint, get: &Get) -> Result<Response, Error> {
        let given = get.credentials.clone().filter(|_| endpoint.owns_credentials);
        let subject = Subject {
            origin: endpoint.origin(),
            repository: get.repository.clone(),
            credentials: given.or_else(|| endpoint.credentials.clone()),
        };
        let withheld = get.credentials.is_some() && subject.credentials.is_none();
        let answer = self.prove_and_get(endpoint, get, &subject).await;
        if withheld { answer.map_err(|error| error.without_credentials_of(&get.registry)) } else { answer }
    }

    async fn prove_and_get(
        &self,
        endpoint: &Endpoint,
        get: &Get,
        subject: &Subject,
    ) -> Result<Response, Error> {
        let proof = self.proofs.current(subject).await;
        let response = self.follow(endpoint, get, proof.as_ref()).await?;
        let challenges = challenges(&response, endpoint);
        if challenges.is_empty() {
            return self.check(response, get).await;
        }
        let service = TokenService { client: self, endpoint, what: &get.what };
        let proof = self.proofs.renew(subject, proof.as_ref(), &challenges, &service).await?;
        let response = self.follow(endpoint, get, Some(&proof)).await?;
        self.check(response, get).await
    }

    /// Sends `get` and follows redirects. Proof and configured headers are sent to the endpoint's own origin only.
    async fn follow(&self, endpoint: &Endpoint, get: &Get, proof: Option<&Proof>) -> Result<Response, Error> {
        let mut url = address(endpoint, get)?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(endpoint, get, proof, url.clone()).await?;
            let Some(next) = redirect_target(&response) else { return Ok(response) };
            let bad = |reason: &str| bad_response(get, &url, reason);
            let next = url.join(&next).map_err(|error| bad(&format!("redirect: {error}")))?;
            match (url.scheme(), next.scheme()) {
                (_, "https") | ("http", "http") => {}
                ("https", "http") if get.is_pinned => {}
                ("https", "http") => return Err(bad("it redirects to plain HTTP")),
                _ => return Err(bad("it redirects to something that is no web address")),
            }
            url = next;
        }
        Err(bad_response(get, &url, "it redirects without end"))
    }

    async fn send(
        &self,
        endpoint: &Endpoint,
        get: &Get,
        proof: Option<&Proof>,
        url: Url,
    ) -> Result<Response, Error> {
        let host = url.origin().ascii_serialization();
        let http = self.http(&url, &endpoint.tls)?;
        let is_home = is_same_origin(&url, &endpoint.base);
        let method = if get.is_head { Method::HEAD } else { Method::GET };
        let mut request = http
            .request(method, url)
            .header(header::ACCEPT, get.accept)
            .header(header::ACCEPT_ENCODING, "identity");
        if get.offset > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", get.offset));
        }
        if is_home {
            let mut headers = endpoint.headers.clone();
            if proof.is_some() {
                headers.remove(header::AUTHORIZATION);
            }
            request = request.headers(headers);
        }
        let request = match proof.filter(|_| is_home) {
            Some(proof) => proof.apply(request),
            None => request,
        };
        send(request, &host, &get.what).await
    }

    async fn check(&self, response: Response, get: &Get) -> Result<Response, Error> {
        let host = response.url().origin().ascii_serialization();
        check(response, &host, &get.what).await
    }

    /// Returns the client for `url` under these settings, made on first use.
    pub(super) fn http(&self, url: &Url, tls: &Tls) -> Result<reqwest::Client, Error> {
        let connect = match url.scheme() {
            "https" => Connect::Tls(tls.clone()),
            _ => Connect::Plain { no_proxy: tls.no_proxy, dial_timeout: tls.dial_timeout },
        };
        self.connection(connect, &url.origin().ascii_serialization())
    }

    fn connection(&self, connect: Connect, host: &str) -> Result<reqwest::Client, Error> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = connections.get(&connect) {
            return Ok(client.clone());
        }
        let failed = |source| Error::Setup { host: host.to_owned(), source: Box::new(source) };
        let client = connect.builder(&self.config)?.build().map_err(failed)?;
        if connections.len() >= MAX_CLIENTS {
            connections.clear();
        }
        connections.insert(connect, client.clone());
        Ok(client)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Connect {
    fn builder(&self, config: &Config) -> Result<ClientBuilder, Error> {
        let (no_proxy, dial_timeout) = match self {
            Self::Plain { no_proxy, dial_timeout } => (*no_proxy, *dial_timeout),
            Self::Tls(tls) => (tls.no_proxy, tls.dial_timeout),
        };
        let builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .user_agent(&config.user_agent)
            .connect_timeout(dial_timeout.unwrap_or(config.connect_timeout))
            .read_timeout(config.read_timeout)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let builder = if no_proxy { builder.no_proxy() } else { builder };
        match self {
            Self::Plain { .. } => Ok(builder.tls_certs_only([])),
            Self::Tls(tls) => with_certificates(builder, tls),
        }
    }
}

fn with_certificates(mut builder: ClientBuilder, tls: &Tls) -> Result<ClientBuilder, Error> {
    let unusable = |path: &Path, reason: String| Error::Config { path: path.to_owned(), reason };
    let mut roots = Vec::new();
    for (path, pem) in &tls.ca {
        let found = Certificate::from_pem_bundle(pem).map_err(|error| unusable(path, error_chain(&error)))?;
        if found.is_empty() {
            return Err(unusable(path, "it holds no PEM certificate".to_owned()));
        }
        roots.extend(found);
    }
    if !roots.is_empty() {
        builder = builder.tls_certs_merge(roots);
    }
    if let Some((path, pem)) = &tls.identity {
        builder =
            builder.identity(Identity::from_pem(pem).map_err(|error| unusable(path, error_chain(&error)))?);
    }
    Ok(builder.tls_danger_accept_invalid_certs(tls.skip_verify))
}

/// Returns the URL of `get` at `endpoint`.
fn address(endpoint: &Endpoint, get: &Get) -> Result<Url, Error> {
    let path = format!("{}/{}", get.repository, get.path);
    let mut url =
        endpoint.base.join(&path).map_err(|error| bad_response(get, &endpoint.base, &error.to_string()))?;
    if let Some(namespace) = &endpoint.namespace {
        url.query_pairs_mut().append_pair("ns", namespace);
    }
    Ok(url)
}

fn redirect_target(response: &Response) -> Option<String> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(header::LOCATION).filter(|_| redirects)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

fn is_same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

/// Returns the challenges in a 401 of the endpoint; none for another status, or after a redirect to another origin.
fn challenges(response: &Response, endpoint: &Endpoint) -> Vec<Challenge> {
    if response.status() != StatusCode::UNAUTHORIZED || !is_same_origin(response.url(), &endpoint.base) {
        return Vec::new();
    }
    let values = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(Challenge::parse_all).collect()
}

fn bad_response(get: &Get, url: &Url, reason: &str) -> Error {
    let host = url.origin().ascii_serialization();
    Error::BadResponse { what: get.what.clone(), host, reason: reason.to_owned() }
}

/// Sends a request; without an answer fails with [`Error::Unreachable`].
pub(super) async fn send(request: RequestBuilder, host: &str, what: &str) -> Result<Response, Error> {
    request.send().await.map_err(|error| Error::Unreachable {
        what: what.to_owned(),
        host: host.to_owned(),
        source: Box::new(error.without_url()),
    })
}

/// Returns a response with status 2xx; any other status becomes an error.
pub(super) async fn check(response: Response, host: &str, what: &str) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(response.headers());
    let reason = reason(response).await;
    let (what, host) = (what.to_owned(), host.to_owned());
    Err(match status.as_u16() {
        401 => Error::Unauthorized { what, host, reason },
        403 => Error::Denied { what, host, reason },
        404 => Error::NotFound { what, host, reason },
        429 => Error::TooManyRequests { what, host, retry_after, reason },
        status @ (408 | 500..=599) => Error::ServerFailure { what, host, status, retry_after, reason },
        status if reason.is_empty() => Error::BadResponse { what, host, reason: format!("status {status}") },
        status => Error::BadResponse { what, host, reason: format!("status {status}: {reason}") },
    })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    Some(until.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Returns the registry's messages if the body has the form of the distribution specification, else nothing.
async fn reason(response: Response) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Detail>,
    }
    #[derive(Deserialize)]
    struct Detail {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(body) = read(response, MAX_REASON_BYTES, Progress::default(), "", "").await else {
        return String::new();
    };
    let Ok(Errors { errors }) = serde_json::from_slice(&body) else { return String::new() };
    let said = errors.iter().map(|it| if it.message.is_empty() { &it.code } else { &it.message });
    line(&said.map(String::as_str).collect::<Vec<_>>().join("; "))
}

/// Makes a text from the network fit for one line of a log: no control characters, at most 300 characters.
pub(super) fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// Reads the whole body. Fails if it is longer than `limit` bytes, breaks off, or comes too slowly.
pub(super) async fn read(
    mut response: Response,
    limit: u64,
    progress: Progress,
    host: &str,
    what: &str,
) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge { what: what.to_owned(), host: host.to_owned(), limit };
    let expected = response.content_length();
    if expected.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let (mut body, mut monitor) = (Vec::new(), ProgressMonitor::new(progress));
    loop {
        let broken = match monitor.next_chunk(&mut response).await {
            ChunkResult::End => return Ok(body),
            ChunkResult::Bytes(bytes) if (body.len() + bytes.len()) as u64 > limit => return Err(too_large()),
            ChunkResult::Bytes(bytes) => {
                body.extend_from_slice(&bytes);
                continue;
            }
            ChunkResult::Broken(error) => Some(Box::new(error.without_url())),
            ChunkResult::TooSlow => None,
        };
        let (what, host, received) = (what.to_owned(), host.to_owned(), body.len() as u64);
        return Err(match broken {
            Some(error) => {
                let expected = expected.unwrap_or(received);
                Error::Truncated { what, host, received, expected, source: Some(error) }
            }
            None => Error::TooSlow { what, host, received, within: progress.within },
        });
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
