//! Selects the hosts to ask for an image, with order and settings: mirrors from hosts.toml, then the registry itself.
//!
//! The layout is containerd's: `<dir>/<host[:port]>/hosts.toml`, or `<dir>/_default/hosts.toml` for every host without
//! a directory of its own. A directory without hosts.toml may contain `*.crt` (CA certificates to trust), and `*.cert`
//! with `*.key` (client certificate).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::HeaderMap;
use tokio::fs;
use url::{Host, Url};

use super::auth::Credentials;
use super::error::Error;
use super::hosts_toml::{Capability, HostsToml, Settings};

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;

/// Host of Docker Hub's registry.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// Name of the directory for all registries without one of their own.
const DEFAULT: &str = "_default";

/// A host to ask.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Endpoint {
    /// The API's root with a slash at its end, such as `https://registry-1.docker.io/v2/`.
    pub(super) base: Url,
    /// Whether it may resolve tags.
    pub(super) resolves: bool,
    /// Whether it may serve content by digest.
    pub(super) pulls: bool,
    /// Whether it is the registry that the image's credentials belong to.
    pub(super) owns_credentials: bool,
    /// Its own credentials, from an Authorization header in hosts.toml; used if the image's are not.
    pub(super) credentials: Option<Credentials>,
    /// The registry it mirrors, sent in the query of every request (`ns`).
    pub(super) namespace: Option<String>,
    /// The same host as the endpoint before, over plain HTTP; asked only if that one is unreachable.
    pub(super) is_plain_fallback: bool,
    /// Headers sent to this host only.
    pub(super) headers: HeaderMap,
    pub(super) tls: Tls,
}

/// TLS and connection settings of a host; equal settings share one client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tls {
    /// PEM files of CA certificates to trust beside the system's.
    pub(super) ca: Vec<(PathBuf, Vec<u8>)>,
    /// Client certificate and key, PEM.
    pub(super) identity: Option<(PathBuf, Vec<u8>)>,
    pub(super) skip_verify: bool,
    pub(super) dial_timeout: Option<Duration>,
    /// Set for hosts on this machine: they are never reached through a proxy.
    pub(super) no_proxy: bool,
}

impl Endpoint {
    /// Returns `host:port`, the same with and without TLS.
    pub(super) fn host(&self) -> String {
        let port = self.base.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", self.base.host_str().unwrap_or_default())
    }

    /// Returns scheme, host and port: for messages, and to detect a redirect to another host.
    pub(super) fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }
}

/// Returns the hosts to ask for images of `registry`. Reads the configuration anew at every call.
pub(super) async fn resolve(dirs: &[PathBuf], registry: &str) -> Result<Vec<Endpoint>, Error> {
    let Some((path, file)) = find(dirs, registry).await? else {
        return default_server(registry, &Settings::default(), Path::new(registry)).await;
    };
    for key in &file.unknown_keys {
        tracing::warn!(file = %path.display(), key, "unknown key in registry configuration");
    }
    let mut endpoints = Vec::new();
    for (host, settings) in &file.hosts {
        endpoints.push(endpoint(registry, host, settings, &path).await?);
    }
    match &file.server {
        Some(server) => {
            let server = endpoint(registry, server, &file.server_settings, &path).await?;
            // The server in a registry's own file is the registry, wherever it is. The one in `_default` is a mirror.
            let owns_credentials = server.owns_credentials || !is_default(&path);
            endpoints.push(Endpoint { owns_credentials, ..server });
        }
        None => endpoints.extend(default_server(registry, &file.server_settings, &path).await?),
    }
    Ok(endpoints)
}

/// Returns the configuration for `registry` and the file it comes from.
async fn find(dirs: &[PathBuf], registry: &str) -> Result<Option<(PathBuf, HostsToml)>, Error> {
    for root in dirs {
        for name in directory_names(registry) {
            let dir = root.join(name);
            if fs::metadata(&dir).await.is_ok_and(|metadata| metadata.is_dir()) {
                return load(&dir).await.map(Some);
            }
        }
    }
    Ok(None)
}

/// `host_port_` is how containerd writes `host:port` where a colon cannot be in a file name.
fn directory_names(registry: &str) -> Vec<String> {
    let escaped = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    escaped.into_iter().chain([registry.to_owned(), DEFAULT.to_owned()]).collect()
}

/// True if `path` is the hosts.toml for all registries without one of their own.
fn is_default(path: &Path) -> bool {
    path.parent().is_some_and(|directory| directory.ends_with(DEFAULT))
}

async fn load(dir: &Path) -> Result<(PathBuf, HostsToml), Error> {
    let path = dir.join("hosts.toml");
    match fs::read_to_string(&path).await {
        Ok(text) => match HostsToml::parse(&text, dir) {
            Ok(file) => Ok((path, file)),
            Err(reason) => Err(Error::Config { path, reason }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let server_settings = docker_certificates(dir).await.map_err(|error| unusable(dir, error))?;
            Ok((dir.to_owned(), HostsToml { server_settings, ..HostsToml::default() }))
        }
        Err(error) => Err(unusable(&path, error)),
    }
}

/// Returns the certificates in a directory of Docker's layout.
async fn docker_certificates(dir: &Path) -> std::io::Result<Settings> {
    let mut settings = Settings::default();
    let mut entries = fs::read_dir(dir).await?;
    while let Some(entry) = entries.next_entry().await? {
        let path = entry.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => settings.ca.push(path),
            Some("cert") => settings.client.push((path.clone(), Some(path.with_extension("key")))),
            _ => {}
        }
    }
    settings.ca.sort();
    settings.client.sort();
    Ok(settings)
}

/// Returns the registry at the host in its name, for a hosts.toml without a server.
async fn default_server(registry: &str, settings: &Settings, file: &Path) -> Result<Vec<Endpoint>, Error> {
    if registry == "docker.io" {
        return Ok(vec![endpoint(registry, DOCKER_HUB, settings, file).await?]);
    }
    let https = endpoint(registry, registry, settings, file).await?;
    if !is_loopback(&https.base) {
        return Ok(vec![https]);
    }
    local_server(registry, settings, file).await
}

/// Returns a registry on this machine: its certificate is not checked unless the settings give a CA or ask for it, and
/// plain HTTP is used on port 80, or tried after TLS on another port.
async fn local_server(registry: &str, settings: &Settings, file: &Path) -> Result<Vec<Endpoint>, Error> {
    let trusting =
        Settings { skip_verify: settings.skip_verify.or(Some(settings.ca.is_empty())), ..settings.clone() };
    let plain = endpoint(registry, &format!("http://{registry}"), &trusting, file).await?;
    let https = endpoint(registry, registry, &trusting, file).await?;
    let names_a_port = registry.trim_end_matches(|c: char| c.is_ascii_digit()).ends_with(':');
    Ok(match (names_a_port, plain.base.port_or_known_default()) {
        (true, Some(80)) => vec![plain],
        (true, Some(443)) | (false, _) => vec![https],
        (true, _) => vec![https, Endpoint { is_plain_fallback: true, ..plain }],
    })
}

/// Makes an endpoint from the `settings` for one host. `file` is where they come from.
async fn endpoint(registry: &str, server: &str, settings: &Settings, file: &Path) -> Result<Endpoint, Error> {
    let base = base_url(server, settings.override_path).map_err(|reason| Error::Config {
        path: file.to_owned(),
        reason: format!("host {server:?}: {reason}"),
    })?;
    let may = |capability| settings.capabilities.as_ref().is_none_or(|all| all.contains(&capability));
    let owns_credentials = is_home_of(&base, registry);
    Ok(Endpoint {
        credentials: Credentials::from_header(&settings.headers),
        resolves: may(Capability::Resolve),
        pulls: may(Capability::Pull),
        owns_credentials,
        namespace: (!owns_credentials).then(|| registry.to_owned()),
        is_plain_fallback: false,
        headers: settings.headers.clone(),
        tls: tls(settings, is_loopback(&base)).await?,
        base,
    })
}

fn base_url(server: &str, override_path: bool) -> Result<Url, String> {
    let text = if server.contains("://") { server.to_owned() } else { format!("https://{server}") };
    let mut url = Url::parse(&text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{} is neither http nor https", url.scheme()));
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err("only scheme, host, port and path are allowed".to_owned());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    match override_path || path.ends_with("/v2") {
        true => url.set_path(&format!("{path}/")),
        false => url.set_path(&format!("{path}/v2/")),
    }
    Ok(url)
}

/// True if `base` is the registry that images call `registry`, and not a mirror of it.
fn is_home_of(base: &Url, registry: &str) -> bool {
    let home = |name: &str| Url::parse(&format!("{}://{name}/", base.scheme()));
    let names: &[&str] =
        if registry == "docker.io" { &["docker.io", "index.docker.io", DOCKER_HUB] } else { &[registry] };
    names.iter().any(|name| home(name).is_ok_and(|home| home.origin() == base.origin()))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// Reads the files named in the settings.
async fn tls(settings: &Settings, is_loopback: bool) -> Result<Tls, Error> {
    let mut ca = Vec::new();
    for path in &settings.ca {
        ca.push((path.clone(), read(path).await?));
    }
    if settings.client.len() > 1 {
        tracing::warn!(used = %settings.client[0].0.display(), "only the first client certificate of a host is used");
    }
    let identity = match settings.client.first() {
        None => None,
        Some((certificate, key)) => Some((certificate.clone(), identity(certificate, key.as_deref()).await?)),
    };
    let skip_verify = settings.skip_verify.unwrap_or(false);
    Ok(Tls { ca, identity, skip_verify, dial_timeout: settings.dial_timeout, no_proxy: is_loopback })
}

async fn identity(certificate: &Path, key: Option<&Path>) -> Result<Vec<u8>, Error> {
    let mut pem = read(certificate).await?;
    if let Some(key) = key {
        pem.push(b'\n');
        pem.extend(read(key).await?);
    }
    Ok(pem)
}

async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).await.map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, error: std::io::Error) -> Error {
    Error::Config { path: path.to_owned(), reason: error.to_string() }
}
