//! RunPodSandbox.

use std::net::IpAddr;

use berth_cri::v1::{self, NamespaceMode};

use super::{
    field::{
        absolute_or_empty, argument, check, each, id, invalid, known, name, required, text, unsupported,
    },
    namespace, resources,
    security::{apparmor, seccomp},
    sysctl,
};
use crate::{
    error::Result,
    pod::config::{Namespaces, PidMode, PodConfig, PodMetadata},
};
use berth_network::{Dns, PortMapping, Protocol};

/// Longest host name the kernel takes.
const MAX_HOSTNAME_BYTES: usize = 64;

/// Converts the request to a pod's configuration.
pub(crate) fn run_pod_sandbox(request: v1::RunPodSandboxRequest) -> Result<PodConfig> {
    let config = required("config", request.config)?;
    let mut pod = pod_config(config)?;
    pod.handler = text("runtime_handler", request.runtime_handler, 253)?;
    Ok(pod)
}

fn pod_config(config: v1::PodSandboxConfig) -> Result<PodConfig> {
    if let Some(windows) = config.windows {
        return Err(unsupported("config.windows", windows));
    }
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    check_process(&security)?;
    let namespaces = namespaces(security.namespace_options)?;
    let sysctls = sysctl::sysctls("config.linux.sysctls", linux.sysctls, &namespaces)?;
    let log_directory = absolute_or_empty("config.log_directory", config.log_directory)?;
    Ok(PodConfig {
        metadata: metadata(required("config.metadata", config.metadata)?)?,
        handler: String::new(),
        hostname: hostname(config.hostname)?,
        log_directory: (!log_directory.is_empty()).then(|| log_directory.into()),
        dns: config.dns_config.map(dns).transpose()?.flatten(),
        ports: each("config.port_mappings", config.port_mappings, port)?,
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        cgroup_parent: cgroup_parent(linux.cgroup_parent)?,
        sysctls,
        namespaces,
        privileged: security.privileged,
        overhead: resources::of_pod("config.linux.overhead", linux.overhead)?,
        resources: resources::of_pod("config.linux.resources", linux.resources)?,
    })
}

fn metadata(metadata: v1::PodSandboxMetadata) -> Result<PodMetadata> {
    Ok(PodMetadata {
        name: name("config.metadata.name", metadata.name)?,
        uid: name("config.metadata.uid", metadata.uid)?,
        namespace: name("config.metadata.namespace", metadata.namespace)?,
        attempt: metadata.attempt,
    })
}

fn hostname(hostname: String) -> Result<String> {
    const FIELD: &str = "config.hostname";
    let hostname = text(FIELD, hostname, MAX_HOSTNAME_BYTES)?;
    check(!hostname.contains(char::is_whitespace), FIELD, hostname, "holds white space")
}

/// Returns `None` when nothing is set: the pod then gets the host's resolver.
fn dns(dns: v1::DnsConfig) -> Result<Option<Dns>> {
    let dns = Dns {
        servers: each("config.dns_config.servers", dns.servers, nameserver)?,
        searches: each("config.dns_config.searches", dns.searches, word)?,
        options: each("config.dns_config.options", dns.options, word)?,
    };
    Ok(Some(dns).filter(|dns| *dns != Dns::default()))
}

/// An IP address; a link-local one may have a zone.
fn nameserver(field: &str, server: String) -> Result<String> {
    let server = word(field, server)?;
    let address = server.split_once('%').map_or(server.as_str(), |(address, _zone)| address);
    check(address.parse::<IpAddr>().is_ok(), field, server, "must be an IP address")
}

/// A word of a line of resolv.conf: text without white space.
fn word(field: &str, word: String) -> Result<String> {
    let word = name(field, word)?;
    check(!word.contains(char::is_whitespace), field, word, "holds white space")
}

fn port(field: &str, mapping: v1::PortMapping) -> Result<PortMapping> {
    let port = |name: &str, port: i32, lowest: u16| match u16::try_from(port) {
        Ok(port) if port >= lowest => Ok(port),
        _ => Err(invalid(&format!("{field}.{name}"), port, &format!("must be from {lowest} to 65535"))),
    };
    Ok(PortMapping {
        protocol: match known(&format!("{field}.protocol"), mapping.protocol)? {
            v1::Protocol::Tcp => Protocol::Tcp,
            v1::Protocol::Udp => Protocol::Udp,
            v1::Protocol::Sctp => Protocol::Sctp,
        },
        container_port: port("container_port", mapping.container_port, 1)?,
        host_port: port("host_port", mapping.host_port, 0)?,
        host_ip: host_ip(&format!("{field}.host_ip"), mapping.host_ip)?,
    })
}

/// Returns `None` for all addresses of the host: callers send an empty string or the unspecified address for it.
fn host_ip(field: &str, ip: String) -> Result<Option<IpAddr>> {
    if ip.is_empty() {
        return Ok(None);
    }
    let ip: IpAddr = ip.parse().map_err(|_| invalid(field, ip, "must be an IP address"))?;
    Ok(Some(ip).filter(|ip| !ip.is_unspecified()))
}

/// Accepts `/a/b` or a systemd slice. A name without the leading slash is taken from the root too.
fn cgroup_parent(parent: String) -> Result<Option<String>> {
    const FIELD: &str = "config.linux.cgroup_parent";
    if parent.is_empty() {
        return Ok(None);
    }
    let parent = text(FIELD, parent, 4095)?;
    let climbs = parent.split('/').any(|part| part == ".." || part == ".");
    let parent = check(!climbs, FIELD, parent, "must not hold . or ..")?;
    let slice = parent.ends_with(".slice") && !parent.contains('/');
    Ok(Some(if slice || parent.starts_with('/') { parent } else { format!("/{parent}") }))
}

const NAMESPACES: &str = "config.linux.security_context.namespace_options";

fn namespaces(options: Option<v1::NamespaceOption>) -> Result<Namespaces> {
    let options = options.unwrap_or_default();
    let field = |name: &str| format!("{NAMESPACES}.{name}");
    check(options.target_id.is_empty(), &field("target_id"), options.target_id, "a pod has none")?;
    let namespaces = Namespaces {
        host_network: namespace::is_host(&field("network"), options.network)?,
        host_ipc: namespace::is_host(&field("ipc"), options.ipc)?,
        pid: match known(&field("pid"), options.pid)? {
            NamespaceMode::Pod => PidMode::Pod,
            NamespaceMode::Container => PidMode::Container,
            NamespaceMode::Node => PidMode::Node,
            NamespaceMode::Target => {
                return Err(invalid(&field("pid"), "TARGET", "only a container can have it"));
            }
        },
        users: namespace::users(NAMESPACES, options.userns_options)?,
    };
    namespace::check_host(&field("ipc"), namespaces.users, namespaces.host_ipc)?;
    namespace::check_host(&field("pid"), namespaces.users, namespaces.pid == PidMode::Node)?;
    Ok(namespaces)
}

/// Validates the options of the pod's own process. There is no such process, but invalid requests are refused.
fn check_process(security: &v1::LinuxSandboxSecurityContext) -> Result<()> {
    const AT: &str = "config.linux.security_context";
    if let Some(user) = security.run_as_user {
        id(&format!("{AT}.run_as_user"), user.value)?;
    }
    if let Some(group) = security.run_as_group {
        let group = id(&format!("{AT}.run_as_group"), group.value)?;
        let user = security.run_as_user.is_some();
        check(user, &format!("{AT}.run_as_group"), group, "needs run_as_user")?;
    }
    each(&format!("{AT}.supplemental_groups"), security.supplemental_groups.clone(), id)?;
    known::<v1::SupplementalGroupsPolicy>(
        &format!("{AT}.supplemental_groups_policy"),
        security.supplemental_groups_policy,
    )?;
    #[allow(deprecated)]
    let path = argument(&format!("{AT}.seccomp_profile_path"), security.seccomp_profile_path.clone())?;
    seccomp(AT, security.seccomp.clone(), path)?;
    apparmor(AT, security.apparmor.clone(), String::new())?;
    Ok(())
}
