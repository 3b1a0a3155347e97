//! The format of hosts.toml, as containerd documents it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::{Table, Value};

/// One parsed hosts.toml.
#[derive(Debug, Default)]
pub(super) struct HostsToml {
    /// Host of the registry itself; absent means the one in its name.
    pub(super) server: Option<String>,
    /// The settings at the top of the file, which apply to the server.
    pub(super) server_settings: Settings,
    /// The mirrors, in the file's order.
    pub(super) hosts: Vec<(String, Settings)>,
    /// Unknown keys, by their path in the file.
    pub(super) unknown_keys: Vec<String>,
}

/// How one host is reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Settings {
    /// Requests that the host may get; absent means all.
    pub(super) capabilities: Option<Vec<Capability>>,
    /// Files with certificates to trust beside the system's.
    pub(super) ca: Vec<PathBuf>,
    /// Files of client certificates with their keys (in the same file when there is no second).
    pub(super) client: Vec<(PathBuf, Option<PathBuf>)>,
    pub(super) skip_verify: Option<bool>,
    pub(super) headers: HeaderMap,
    /// The URL's path is the whole path of the API: no `/v2` is appended.
    pub(super) override_path: bool,
    pub(super) dial_timeout: Option<Duration>,
}

/// A kind of request that a host may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Capability {
    /// Fetching content by digest.
    Pull,
    /// Resolving tags.
    Resolve,
    /// Uploads; never made.
    Push,
    /// The referrers API; never used.
    Referrers,
}

#[derive(Deserialize)]
struct RawSettings {
    capabilities: Option<Vec<Capability>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    #[serde(default)]
    header: std::collections::BTreeMap<String, OneOrMany>,
    #[serde(default)]
    override_path: bool,
    dial_timeout: Option<String>,
    #[serde(flatten)]
    unknown: Table,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    One(String),
    Many(Vec<ClientFiles>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ClientFiles {
    Together(String),
    Apart(String, String),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

impl HostsToml {
    /// Parses `text`; relative file names in it are taken from `dir`. The error describes the fault and its place.
    pub(super) fn parse(text: &str, dir: &Path) -> Result<Self, String> {
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let server = match table.remove("server") {
            None => None,
            Some(Value::String(server)) => Some(server),
            Some(other) => return Err(format!("server must be a string, not {}", other.type_str())),
        };
        let hosts = match table.remove("host") {
            None => Table::new(),
            Some(Value::Table(hosts)) => hosts,
            Some(other) => return Err(format!("host must be a table, not {}", other.type_str())),
        };
        let mut file = Self { server, ..Self::default() };
        file.server_settings = file.settings(Value::Table(table), "", dir)?;
        for (host, value) in hosts {
            let settings = file.settings(value, &format!("host.{host:?}."), dir)?;
            file.hosts.push((host, settings));
        }
        Ok(file)
    }

    /// Checks the settings at `place`, and records the unknown keys there.
    fn settings(&mut self, value: Value, place: &str, dir: &Path) -> Result<Settings, String> {
        let at = |reason: &dyn std::fmt::Display| match place {
            "" => reason.to_string(),
            place => format!("{}: {reason}", place.trim_end_matches('.')),
        };
        let raw: RawSettings = value.try_into().map_err(|error: toml::de::Error| at(&error.message()))?;
        self.unknown_keys.extend(raw.unknown.keys().map(|key| format!("{place}{key}")));
        let dial_timeout = match &raw.dial_timeout {
            None => None,
            Some(text) => {
                Some(go_duration(text).ok_or_else(|| at(&format!("dial_timeout {text:?} is no duration")))?)
            }
        };
        Ok(Settings {
            capabilities: raw.capabilities,
            ca: raw
                .ca
                .map_or_else(Vec::new, OneOrMany::into_vec)
                .into_iter()
                .map(|path| dir.join(path))
                .collect(),
            client: raw.client.map_or_else(Vec::new, |client| client_files(client, dir)),
            skip_verify: raw.skip_verify,
            headers: headers(raw.header).map_err(|name| at(&format!("header {name:?} cannot be sent")))?,
            override_path: raw.override_path,
            dial_timeout,
        })
    }
}

fn client_files(client: Client, dir: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
    let files = match client {
        Client::One(one) => vec![ClientFiles::Together(one)],
        Client::Many(many) => many,
    };
    let paths = |files| match files {
        ClientFiles::Together(both) => (dir.join(both), None),
        ClientFiles::Apart(certificate, key) => (dir.join(certificate), Some(dir.join(key))),
    };
    files.into_iter().map(paths).collect()
}

/// Returns the headers, or as error the name of one that HTTP does not allow.
fn headers(raw: std::collections::BTreeMap<String, OneOrMany>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, values) in raw {
        let key = HeaderName::try_from(&name).map_err(|_| name.clone())?;
        for value in values.into_vec() {
            let mut value = HeaderValue::try_from(value).map_err(|_| name.clone())?;
            value.set_sensitive(true);
            headers.append(&key, value);
        }
    }
    Ok(headers)
}

/// Parses a duration as Go writes it: `1m30s`, `1.5h`, `300ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let seconds = number.parse::<f64>().ok()? * unit_seconds(unit)?;
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}
