//! Input and output of the network: the pod to attach and the resulting attachment.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::bandwidth::Bandwidth;
use super::error::Error;

/// A pod as the network sees it. `id` names the pod in every record and in interface names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodNetwork {
    /// The pod's id: letters, digits, `-`, `_` and `.`.
    pub id: String,
    /// The pod's name.
    pub name: String,
    /// The pod's Kubernetes namespace.
    pub namespace: String,
    /// The pod's uid.
    pub uid: String,
    /// Path at which the pod's network namespace is pinned.
    pub netns: PathBuf,
    /// The pod's annotations, passed to plugins that ask for them. The Kubernetes bandwidth annotations limit its
    /// traffic.
    pub annotations: BTreeMap<String, String>,
    /// Ports to publish on the host.
    pub port_mappings: Vec<PortMapping>,
    /// Name servers, for plugins that ask for them.
    pub dns: Dns,
    /// The pod's cgroup, for plugins that ask for it; empty when unknown.
    pub cgroup_parent: String,
}

/// A port of the pod that is published on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port inside the pod.
    pub container_port: u16,
    /// The port on the host; 0 means not published.
    pub host_port: u16,
    /// The host address it is published on; none means all addresses.
    pub host_ip: Option<IpAddr>,
}

/// The transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// How names are resolved inside the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<String>,
    /// Resolver options such as `ndots:5`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Result of attaching a pod. Kept with the pod's record and passed back to `detach` and `check`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The pod's addresses, the primary one first.
    pub ips: Vec<IpAddr>,
    /// The interfaces made for the pod, inside it and on the host.
    pub interfaces: Vec<Interface>,
    /// The provider's own record. CNI can detach from it when its record on disk was lost.
    pub record: serde_json::Value,
}

/// A network interface made for a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The network namespace it is in; none means the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<PathBuf>,
}

impl PodNetwork {
    /// Rejects values that would break a record's file name, CNI_ARGS or a port rule.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let refuse = |field, value: &str, why| Err(Error::InvalidPod { field, value: value.to_owned(), why });
        if !is_plain(&self.id) {
            return refuse("id", &self.id, "must be 1 to 128 of A-Z a-z 0-9 - _ . and not start with a dot");
        }
        for (field, value) in [("name", &self.name), ("namespace", &self.namespace), ("uid", &self.uid)] {
            if value.contains([';', '=', '\0']) {
                return refuse(field, value, "must not contain ';', '=' or NUL: it becomes part of CNI_ARGS");
            }
        }
        self.port_mappings.iter().try_for_each(PortMapping::validate)
    }

    /// Reads the traffic limits from the annotations. Fails on a malformed one.
    pub(super) fn bandwidth(&self) -> Result<Option<Bandwidth>, Error> {
        Bandwidth::from_annotations(&self.annotations)
    }
}

fn is_plain(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && !id.starts_with('.')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

impl PortMapping {
    fn validate(&self) -> Result<(), Error> {
        match self.container_port {
            0 => Err(Error::InvalidPod {
                field: "port_mappings",
                value: self.to_string(),
                why: "the container's port must not be 0",
            }),
            _ => Ok(()),
        }
    }

    /// Whether both mappings would claim the same packets arriving at the host.
    pub(super) fn conflicts(&self, other: &PortMapping) -> bool {
        let any = |mapping: &PortMapping| mapping.host_ip.is_none_or(|ip| ip.is_unspecified());
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && (any(self) || any(other) || self.host_ip == other.host_ip)
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}->{}/{}", self.host_port, self.container_port, self.protocol)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

impl Dns {
    /// Whether nothing is configured.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.searches.is_empty() && self.options.is_empty()
    }
}
