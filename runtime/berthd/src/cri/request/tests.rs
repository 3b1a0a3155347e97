#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, deprecated)]

use std::{collections::HashMap, path::PathBuf};

use berth_cri::v1::{self, NamespaceMode, security_profile::ProfileType};
use berth_image::registry::Credentials;

use super::*;
use crate::{
    container::config::{Apparmor, ContainerConfig, Propagation, Resources, Seccomp, UserName},
    error::{Error, Kind},
    pod::config::{IdRange, Namespaces, PidMode, PodConfig, Users},
};
use berth_network::Protocol;

/// Returns the smallest valid request for a pod.
fn pod() -> v1::RunPodSandboxRequest {
    let metadata = v1::PodSandboxMetadata {
        name: "web".into(),
        uid: "u-1".into(),
        namespace: "default".into(),
        attempt: 2,
    };
    let config = v1::PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() }
}

fn pod_with(change: impl FnOnce(&mut v1::PodSandboxConfig)) -> Result<PodConfig, Error> {
    let mut request = pod();
    change(request.config.as_mut().unwrap());
    run_pod_sandbox(request)
}

fn pod_with_security(change: impl FnOnce(&mut v1::LinuxSandboxSecurityContext)) -> Result<PodConfig, Error> {
    let mut security = v1::LinuxSandboxSecurityContext::default();
    change(&mut security);
    pod_with(|pod| pod.linux = Some(linux_pod(|linux| linux.security_context = Some(security))))
}

fn pod_with_namespaces(change: impl FnOnce(&mut v1::NamespaceOption)) -> Result<PodConfig, Error> {
    let mut options = v1::NamespaceOption::default();
    change(&mut options);
    pod_with_security(|security| security.namespace_options = Some(options))
}

fn linux_pod(change: impl FnOnce(&mut v1::LinuxPodSandboxConfig)) -> v1::LinuxPodSandboxConfig {
    let mut linux = v1::LinuxPodSandboxConfig::default();
    change(&mut linux);
    linux
}

fn container_in(
    pod: &PodConfig,
    change: impl FnOnce(&mut v1::ContainerConfig),
) -> Result<ContainerConfig, Error> {
    let mut config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "app".into(), attempt: 1 }),
        image: Some(v1::ImageSpec { image: "busybox".into(), ..Default::default() }),
        ..Default::default()
    };
    change(&mut config);
    let request = v1::CreateContainerRequest { config: Some(config), ..Default::default() };
    create_container(request, pod)
}

fn container_with(change: impl FnOnce(&mut v1::ContainerConfig)) -> Result<ContainerConfig, Error> {
    container_in(&PodConfig::default(), change)
}

fn container_with_security(
    change: impl FnOnce(&mut v1::LinuxContainerSecurityContext),
) -> Result<ContainerConfig, Error> {
    let mut security = v1::LinuxContainerSecurityContext::default();
    change(&mut security);
    container_with(|config| {
        config.linux = Some(v1::LinuxContainerConfig { security_context: Some(security), resources: None });
    })
}

fn resources_of(change: impl FnOnce(&mut v1::LinuxContainerResources)) -> Result<Resources, Error> {
    let mut resources = v1::LinuxContainerResources::default();
    change(&mut resources);
    update(v1::UpdateContainerResourcesRequest { linux: Some(resources), ..Default::default() })
}

fn mount_with(change: impl FnOnce(&mut v1::Mount)) -> Result<ContainerConfig, Error> {
    let mut mount =
        v1::Mount { container_path: "/data".into(), host_path: "/srv".into(), ..Default::default() };
    change(&mut mount);
    container_with(|config| config.mounts = vec![mount])
}

/// Asserts that an error has this kind and begins with the field.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, kind: Kind, field: &str) {
    let error = result.expect_err(field);
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().starts_with(field), "{field} is not named first: {error}");
}

#[track_caller]
fn invalid<T: std::fmt::Debug>(result: Result<T, Error>, field: &str) {
    refused(result, Kind::InvalidArgument, field);
}

#[test]
fn the_least_pod_is_taken_as_it_is() {
    let pod = run_pod_sandbox(pod()).unwrap();
    assert_eq!(pod.metadata.name, "web");
    assert_eq!(pod.metadata.attempt, 2);
    assert_eq!((pod.dns, pod.log_directory, pod.cgroup_parent), (None, None, None));
    let namespaces = Namespaces { pid: PidMode::Pod, ..Default::default() };
    assert_eq!(pod.namespaces, namespaces, "the CRI's default for an absent PID mode is POD");
}

#[test]
fn a_whole_pod_is_taken_as_it_is() {
    let mut request = pod();
    request.runtime_handler = "berth".into();
    let config = request.config.as_mut().unwrap();
    config.hostname = "web-0".into();
    config.log_directory = "/var/log/pods/web".into();
    config.dns_config = Some(v1::DnsConfig {
        servers: vec!["10.96.0.10".into(), "fe80::1%eth0".into()],
        searches: vec!["svc.cluster.local".into()],
        options: vec!["ndots:5".into()],
    });
    config.port_mappings = vec![
        v1::PortMapping { protocol: 1, container_port: 53, host_port: 5353, host_ip: "127.0.0.1".into() },
        v1::PortMapping { protocol: 2, container_port: 80, host_port: 0, host_ip: "0.0.0.0".into() },
    ];
    config.labels = HashMap::from([("app".into(), "web".into())]);
    config.annotations = HashMap::from([("note".into(), "two\nlines".into())]);
    config.linux = Some(linux_pod(|linux| {
        linux.cgroup_parent = "/kubepods/burstable/pod1".into();
        linux.sysctls = HashMap::from([("net.core.somaxconn".into(), "1024".into())]);
        linux.security_context =
            Some(v1::LinuxSandboxSecurityContext { privileged: true, ..Default::default() });
    }));
    let pod = run_pod_sandbox(request).unwrap();
    assert_eq!((pod.handler.as_str(), pod.hostname.as_str()), ("berth", "web-0"));
    assert_eq!(pod.log_directory, Some(PathBuf::from("/var/log/pods/web")));
    assert_eq!(pod.dns.unwrap().servers, ["10.96.0.10", "fe80::1%eth0"]);
    assert_eq!((pod.ports[0].protocol, pod.ports[0].host_port), (Protocol::Udp, 5353));
    assert_eq!(pod.ports[0].host_ip, Some("127.0.0.1".parse().unwrap()));
    assert_eq!((pod.ports[1].protocol, pod.ports[1].host_ip), (Protocol::Sctp, None));
    assert_eq!((pod.labels["app"].as_str(), pod.annotations["note"].as_str()), ("web", "two\nlines"));
    assert_eq!(pod.cgroup_parent.as_deref(), Some("/kubepods/burstable/pod1"));
    assert_eq!(pod.sysctls["net.core.somaxconn"], "1024");
    assert!(pod.privileged);
}

#[test]
fn a_pod_without_identity_is_refused() {
    let nothing = v1::RunPodSandboxRequest::default();
    invalid(run_pod_sandbox(nothing), "config: missing");
    invalid(pod_with(|pod| pod.metadata = None), "config.metadata: missing");
    invalid(pod_with(|pod| pod.metadata.as_mut().unwrap().name.clear()), "config.metadata.name");
    invalid(pod_with(|pod| pod.metadata.as_mut().unwrap().uid.clear()), "config.metadata.uid");
    invalid(pod_with(|pod| pod.metadata.as_mut().unwrap().namespace.clear()), "config.metadata.namespace");
    let long = "x".repeat(254);
    invalid(pod_with(|pod| pod.metadata.as_mut().unwrap().name = long), "config.metadata.name");
    let control = "a\u{1b}[31m".to_owned();
    invalid(pod_with(|pod| pod.metadata.as_mut().unwrap().name = control), "config.metadata.name");
}

#[test]
fn a_refusal_shows_only_the_beginning_of_a_long_value() {
    let error = pod_with(|pod| pod.metadata.as_mut().unwrap().name = "x".repeat(1 << 20)).unwrap_err();
    assert!(error.to_string().len() < 300, "{}", error.to_string().len());
}

#[test]
fn each_field_of_a_pod_is_checked() {
    let dns = |servers: &[&str], searches: &[&str]| {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Some(v1::DnsConfig { servers: words(servers), searches: words(searches), options: vec![] })
    };
    let port = |protocol, container_port, host_port, host_ip: &str| {
        vec![v1::PortMapping { protocol, container_port, host_port, host_ip: host_ip.into() }]
    };
    invalid(pod_with(|pod| pod.hostname = "h".repeat(65)), "config.hostname");
    invalid(pod_with(|pod| pod.hostname = "a b".into()), "config.hostname");
    invalid(pod_with(|pod| pod.log_directory = "logs".into()), "config.log_directory");
    invalid(pod_with(|pod| pod.dns_config = dns(&["dns.local"], &[])), "config.dns_config.servers[0]");
    invalid(
        pod_with(|pod| pod.dns_config = dns(&["1.1.1.1", "8.8.8.8\nsearch x"], &[])),
        "config.dns_config.servers[1]",
    );
    invalid(pod_with(|pod| pod.dns_config = dns(&[], &["a b"])), "config.dns_config.searches[0]");
    invalid(pod_with(|pod| pod.port_mappings = port(3, 80, 80, "")), "config.port_mappings[0].protocol");
    invalid(pod_with(|pod| pod.port_mappings = port(0, 0, 80, "")), "config.port_mappings[0].container_port");
    invalid(pod_with(|pod| pod.port_mappings = port(0, 80, 65536, "")), "config.port_mappings[0].host_port");
    invalid(pod_with(|pod| pod.port_mappings = port(0, 80, -1, "")), "config.port_mappings[0].host_port");
    invalid(pod_with(|pod| pod.port_mappings = port(0, 80, 80, "lo")), "config.port_mappings[0].host_ip");
    let windows = Some(v1::WindowsPodSandboxConfig::default());
    refused(pod_with(|pod| pod.windows = windows), Kind::Unimplemented, "config.windows");
}

#[test]
fn nameservers_that_say_nothing_leave_the_hosts() {
    assert_eq!(pod_with(|pod| pod.dns_config = Some(v1::DnsConfig::default())).unwrap().dns, None);
}

#[test]
fn a_cgroup_parent_is_a_path_or_a_slice_below_the_root() {
    let parent = |parent: &str| {
        let linux = linux_pod(|linux| linux.cgroup_parent = parent.into());
        pod_with(|pod| pod.linux = Some(linux)).map(|pod| pod.cgroup_parent)
    };
    for (given, taken) in
        [("", None), ("/a/b", Some("/a/b")), ("a/b", Some("/a/b")), ("a-b.slice", Some("a-b.slice"))]
    {
        assert_eq!(parent(given).unwrap().as_deref(), taken, "{given}");
    }
    for bad in ["/a/../..", "..", "/a/./b", "/a\n"] {
        invalid(parent(bad), "config.linux.cgroup_parent");
    }
}

#[test]
fn only_sysctls_of_the_pods_own_namespaces_are_taken() {
    let set = |name: &str, value: &str, network, ipc| {
        let options = v1::NamespaceOption { network, ipc, ..Default::default() };
        let linux = linux_pod(|linux| {
            linux.sysctls = HashMap::from([(name.to_owned(), value.to_owned())]);
            linux.security_context = Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(options),
                ..Default::default()
            });
        });
        pod_with(|pod| pod.linux = Some(linux)).map(|pod| pod.sysctls)
    };
    let node = NamespaceMode::Node.into();
    for good in ["kernel.shm_rmid_forced", "fs.mqueue.msg_max", "net.ipv4.ip_forward", "net/ipv4/ip_forward"]
    {
        assert_eq!(set(good, "1", 0, 0).unwrap()[good], "1");
    }
    for (name, value, network, ipc) in [
        ("kernel.panic", "1", 0, 0),
        ("vm.overcommit_memory", "1", 0, 0),
        ("net.ipv4.ip_forward", "1", node, 0),
        ("kernel.sem", "1", 0, node),
        ("net.../../kernel/panic", "1", 0, 0),
        ("", "1", 0, 0),
        ("net.core.somaxconn", "1\n2", 0, 0),
    ] {
        invalid(set(name, value, network, ipc), &format!("config.linux.sysctls[{name:?}]"));
    }
}

#[test]
fn namespaces_of_a_pod_are_its_own_or_the_hosts() {
    let node = i32::from(NamespaceMode::Node);
    let pod = pod_with_namespaces(|options| {
        options.network = node;
        options.ipc = node;
        options.pid = NamespaceMode::Container.into();
    });
    let expected = Namespaces { host_network: true, host_ipc: true, pid: PidMode::Container, users: None };
    assert_eq!(pod.unwrap().namespaces, expected);
    const AT: &str = "config.linux.security_context.namespace_options";
    for mode in [NamespaceMode::Container, NamespaceMode::Target] {
        invalid(pod_with_namespaces(|options| options.network = mode.into()), &format!("{AT}.network"));
        invalid(pod_with_namespaces(|options| options.ipc = mode.into()), &format!("{AT}.ipc"));
    }
    invalid(pod_with_namespaces(|options| options.pid = NamespaceMode::Target.into()), &format!("{AT}.pid"));
    invalid(pod_with_namespaces(|options| options.pid = 9), &format!("{AT}.pid = 9"));
    invalid(pod_with_namespaces(|options| options.target_id = "c1".into()), &format!("{AT}.target_id"));
}

const MAPPING: v1::IdMapping = v1::IdMapping { host_id: 100_000, container_id: 0, length: 65536 };

fn users(host: u32, length: u32) -> Users {
    let range = IdRange::new(host, length).unwrap();
    Users { uids: range, gids: range }
}

fn userns(mode: NamespaceMode, mappings: &[v1::IdMapping]) -> Option<v1::UserNamespace> {
    Some(v1::UserNamespace { mode: mode.into(), uids: mappings.to_vec(), gids: mappings.to_vec() })
}

#[test]
fn a_user_namespace_is_the_hosts_or_has_one_mapping_of_each_kind() {
    let with = |options| pod_with_namespaces(|given| given.userns_options = options);
    let taken = |options| with(options).unwrap().namespaces.users;
    assert_eq!(taken(None), None);
    assert_eq!(taken(userns(NamespaceMode::Node, &[])), None);
    assert_eq!(taken(userns(NamespaceMode::Pod, &[MAPPING])), Some(users(100_000, 65536)));
    let last = v1::IdMapping { host_id: u32::MAX - 1, length: 1, ..MAPPING };
    assert!(with(userns(NamespaceMode::Pod, &[last])).is_ok());

    const AT: &str = "config.linux.security_context.namespace_options.userns_options";
    invalid(with(userns(NamespaceMode::Node, &[MAPPING])), AT);
    invalid(with(userns(NamespaceMode::Container, &[])), &format!("{AT}.mode = \"CONTAINER\""));
    invalid(with(userns(NamespaceMode::Target, &[])), &format!("{AT}.mode = \"TARGET\""));
    let wrong = [
        (vec![], "uids"),
        (vec![MAPPING, MAPPING], "uids"),
        (vec![v1::IdMapping { container_id: 1, ..MAPPING }], "uids[0].container_id"),
        (vec![v1::IdMapping { length: 0, ..MAPPING }], "uids[0]"),
        (vec![v1::IdMapping { host_id: u32::MAX - 5, length: 6, ..MAPPING }], "uids[0]"),
        (vec![v1::IdMapping { host_id: 1, length: u32::MAX, ..MAPPING }], "uids[0]"),
    ];
    for (mappings, field) in wrong {
        invalid(with(userns(NamespaceMode::Pod, &mappings)), &format!("{AT}.{field}"));
    }
    let no_gids = v1::UserNamespace { uids: vec![MAPPING], ..Default::default() };
    invalid(with(Some(no_gids)), &format!("{AT}.gids"));
}

#[test]
fn a_pod_in_a_user_namespace_has_processes_and_memory_of_its_own() {
    let node = NamespaceMode::Node.into();
    let with = |change: fn(&mut v1::NamespaceOption, i32)| {
        pod_with_namespaces(|options| {
            options.userns_options = userns(NamespaceMode::Pod, &[MAPPING]);
            change(options, node);
        })
    };
    const AT: &str = "config.linux.security_context.namespace_options";
    invalid(with(|options, node| options.pid = node), &format!("{AT}.pid = \"NODE\""));
    invalid(with(|options, node| options.ipc = node), &format!("{AT}.ipc = \"NODE\""));
    assert!(with(|options, node| options.network = node).is_ok());
}

#[test]
fn a_container_is_in_the_user_namespace_of_its_pod() {
    let namespaces = Namespaces { users: Some(users(100_000, 65536)), ..Default::default() };
    let pod = PodConfig { namespaces, ..Default::default() };
    let asked = |pod: &PodConfig, options: v1::NamespaceOption| {
        let security_context =
            v1::LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() };
        let linux = v1::LinuxContainerConfig { security_context: Some(security_context), resources: None };
        container_in(pod, |config| config.linux = Some(linux))
    };
    let with = |userns_options| v1::NamespaceOption { userns_options, ..Default::default() };
    let same = userns(NamespaceMode::Pod, &[MAPPING]);
    assert!(asked(&pod, with(None)).is_ok() && asked(&pod, with(same.clone())).is_ok());
    let other = userns(NamespaceMode::Pod, &[v1::IdMapping { host_id: 7, ..MAPPING }]);
    const AT: &str = "config.linux.security_context.namespace_options";
    for options in [userns(NamespaceMode::Node, &[]), other] {
        invalid(asked(&pod, with(options)), &format!("{AT}.userns_options"));
    }
    invalid(asked(&PodConfig::default(), with(same)), &format!("{AT}.userns_options"));
    let host_pid = v1::NamespaceOption { pid: NamespaceMode::Node.into(), ..Default::default() };
    invalid(asked(&pod, host_pid), &format!("{AT}.pid"));
}

#[test]
fn the_process_a_pod_does_not_have_is_checked_all_the_same() {
    const AT: &str = "config.linux.security_context";
    let value = |value| Some(v1::Int64Value { value });
    assert!(pod_with_security(|s| (s.run_as_user, s.run_as_group) = (value(0), value(0))).is_ok());
    invalid(pod_with_security(|s| s.run_as_group = value(1)), &format!("{AT}.run_as_group"));
    invalid(pod_with_security(|s| s.run_as_user = value(-1)), &format!("{AT}.run_as_user"));
    invalid(
        pod_with_security(|s| s.supplemental_groups = vec![1, -1]),
        &format!("{AT}.supplemental_groups[1]"),
    );
    invalid(
        pod_with_security(|s| s.supplemental_groups_policy = 7),
        &format!("{AT}.supplemental_groups_policy"),
    );
    invalid(
        pod_with_security(|s| s.seccomp_profile_path = "odd".into()),
        &format!("{AT}.seccomp_profile_path"),
    );
}

#[test]
fn the_least_container_is_taken_as_it_is() {
    let pod = PodConfig {
        namespaces: Namespaces { pid: PidMode::Node, ..Default::default() },
        ..Default::default()
    };
    let container = container_in(&pod, |_| {}).unwrap();
    assert_eq!((container.metadata.name.as_str(), container.metadata.attempt), ("app", 1));
    assert_eq!(container.image, "busybox");
    assert_eq!(container.resources, Resources::default());
    assert_eq!(container.security.pid, PidMode::Node, "the pod's, since it says nothing itself");
    assert_eq!(container.stop_signal, None);
}

#[test]
fn a_whole_container_is_taken_as_it_is() {
    let container = container_with(|config| {
        config.command = vec!["sh".into(), "-c".into()];
        config.args = vec!["echo".into(), String::new()];
        config.working_dir = "/srv".into();
        config.envs = vec![v1::KeyValue { key: "A".into(), value: vec![0xff, b'='] }];
        config.log_path = "app/0.log".into();
        (config.stdin, config.stdin_once, config.tty) = (true, true, true);
        config.devices = vec![v1::Device {
            container_path: "/dev/x".into(),
            host_path: "/dev/null".into(),
            permissions: "rw".into(),
        }];
        config.stop_signal = v1::Signal::Sigrtminplus3.into();
    })
    .unwrap();
    assert_eq!(container.env, [("A".to_owned(), vec![0xff, b'='])], "values are bytes, not text");
    assert_eq!(container.args, ["echo", ""]);
    assert_eq!((container.working_dir.as_str(), container.log_path.as_str()), ("/srv", "app/0.log"));
    assert!(container.stdin && container.stdin_once && container.tty);
    assert_eq!(container.devices[0].permissions, "rw");
    assert_eq!(container.stop_signal.as_deref(), Some("SIGRTMINPLUS3"));
}

#[test]
fn each_field_of_a_container_is_checked() {
    let variable = |key: &str, value: &[u8]| vec![v1::KeyValue { key: key.into(), value: value.into() }];
    let device = |container: &str, host: &str, permissions: &str| {
        vec![v1::Device {
            container_path: container.into(),
            host_path: host.into(),
            permissions: permissions.into(),
        }]
    };
    invalid(
        create_container(v1::CreateContainerRequest::default(), &PodConfig::default()),
        "config: missing",
    );
    invalid(container_with(|c| c.metadata = None), "config.metadata: missing");
    invalid(container_with(|c| c.metadata = Some(v1::ContainerMetadata::default())), "config.metadata.name");
    invalid(container_with(|c| c.image = None), "config.image: missing");
    invalid(container_with(|c| c.image = Some(v1::ImageSpec::default())), "config.image.image");
    invalid(container_with(|c| c.command = vec!["a\0b".into()]), "config.command[0]");
    invalid(container_with(|c| c.args = vec!["a".into(), "\0".into()]), "config.args[1]");
    invalid(container_with(|c| c.working_dir = "srv".into()), "config.working_dir");
    invalid(container_with(|c| c.envs = variable("", b"x")), "config.envs[0].key");
    invalid(container_with(|c| c.envs = variable("A=B", b"x")), "config.envs[0].key");
    invalid(container_with(|c| c.envs = variable("A", b"x\0")), "config.envs[0].value");
    invalid(
        container_with(|c| c.devices = device("x", "/dev/null", "r")),
        "config.devices[0].container_path",
    );
    invalid(container_with(|c| c.devices = device("/x", "null", "r")), "config.devices[0].host_path");
    invalid(container_with(|c| c.devices = device("/x", "/x", "")), "config.devices[0].permissions");
    invalid(container_with(|c| c.devices = device("/x", "/x", "rx")), "config.devices[0].permissions");
    invalid(container_with(|c| c.log_path = "/var/log/x".into()), "config.log_path");
    invalid(container_with(|c| c.log_path = "../x".into()), "config.log_path");
    invalid(container_with(|c| c.stop_signal = 66), "config.stop_signal");
    let cdi = vec![v1::CdiDevice { name: "/dev/gpu".into() }];
    invalid(container_with(|c| c.cdi_devices = cdi), "config.CDI_devices[0].name");
    let cdi = [("cdi.k8s.io/gpu".into(), "v/c=1,gpu".into())].into();
    invalid(container_with(|c| c.annotations = cdi), "config.annotations[\"cdi.k8s.io/gpu\"]");
    let windows = Some(v1::WindowsContainerConfig::default());
    refused(container_with(|c| c.windows = windows), Kind::Unimplemented, "config.windows");
}

#[test]
fn described_devices_are_taken_once_from_the_field_and_from_annotations() {
    let config = container_with(|c| {
        let device = |name: &str| v1::CdiDevice { name: name.into() };
        c.cdi_devices = vec![device("v/c=2"), device("v/c=1"), device("v/c=2")];
        c.annotations = [
            ("cdi.k8s.io/b".into(), "v/c=4".into()),
            ("cdi.k8s.io/a".into(), "v/c=3,v/c=1".into()),
            ("other".into(), "v/c=5".into()),
        ]
        .into();
    });
    let config = config.unwrap();
    let names: Vec<_> = config.cdi_devices.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["v/c=2", "v/c=1", "v/c=3", "v/c=4"]);
    let kept: ContainerConfig = serde_json::from_value(serde_json::json!(config)).unwrap();
    assert_eq!(kept, config);
}

#[test]
fn an_error_about_a_variable_does_not_show_its_value() {
    let secret = vec![v1::KeyValue { key: "TOKEN".into(), value: b"hunter2\0".to_vec() }];
    let error = container_with(|c| c.envs = secret).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn mounts_are_taken_with_their_options() {
    let container = mount_with(|mount| {
        (mount.readonly, mount.recursive_read_only) = (true, true);
        mount.mount_options = vec!["noexec".into(), "nosuid".into()];
    });
    let mount = container.unwrap().mounts.remove(0);
    assert!(mount.readonly && mount.recursive_readonly && mount.noexec && mount.nosuid && !mount.nodev);
    assert_eq!(mount.owners, None);
    let mapped = mount_with(|mount| {
        (mount.uid_mappings, mount.gid_mappings) = (vec![MAPPING], vec![MAPPING]);
    });
    assert_eq!(mapped.unwrap().mounts[0].owners, Some(users(100_000, 65536)));
    for (given, taken) in [(1, Propagation::HostToContainer), (2, Propagation::Bidirectional)] {
        let container = mount_with(|mount| mount.propagation = given).unwrap();
        assert_eq!(container.mounts[0].propagation, taken);
    }
}

#[test]
fn each_field_of_a_mount_is_checked() {
    let image = |name: &str| Some(v1::ImageSpec { image: name.into(), ..Default::default() });
    invalid(mount_with(|m| m.container_path.clear()), "config.mounts[0].container_path");
    invalid(mount_with(|m| m.host_path = "srv".into()), "config.mounts[0].host_path");
    invalid(mount_with(|m| m.propagation = 3), "config.mounts[0].propagation");
    invalid(mount_with(|m| m.mount_options = vec!["exec".into()]), "config.mounts[0].mount_options[0]");
    invalid(mount_with(|m| m.recursive_read_only = true), "config.mounts[0].recursive_read_only");
    for propagation in [1, 2] {
        let mount = mount_with(|m| {
            (m.readonly, m.recursive_read_only, m.propagation) = (true, true, propagation);
        });
        invalid(mount, "config.mounts[0].recursive_read_only");
    }
    invalid(mount_with(|m| m.uid_mappings = vec![MAPPING]), "config.mounts[0].gidMappings");
    invalid(mount_with(|m| m.gid_mappings = vec![MAPPING]), "config.mounts[0].uidMappings");
    assert!(mount_with(|m| m.image = image("")).is_ok(), "an empty image is none");
}

#[test]
fn an_image_is_mounted_read_only_whole_or_in_part() {
    let with = |change: &dyn Fn(&mut v1::Mount)| {
        mount_with(|mount| {
            let image = v1::ImageSpec { image: "data:1".into(), ..Default::default() };
            (mount.readonly, mount.image, mount.host_path) = (true, Some(image), String::new());
            change(mount);
        })
    };
    let container = with(&|mount| mount.image_sub_path = "etc/app".into()).unwrap();
    assert!(container.mounts.is_empty());
    let mount = &container.image_mounts[0];
    assert_eq!((mount.image.as_str(), mount.sub_path.as_str()), ("data:1", "etc/app"));
    invalid(with(&|mount| mount.readonly = false), "config.mounts[0].readonly");
    invalid(with(&|mount| mount.host_path = "/srv".into()), "config.mounts[0].host_path");
    for outside in ["/etc", "../etc", "a/../../b"] {
        invalid(with(&|mount| mount.image_sub_path = outside.into()), "config.mounts[0].image_sub_path");
    }
}

#[test]
fn users_are_taken_by_number_or_by_name() {
    let value = |value| Some(v1::Int64Value { value });
    let by_number =
        container_with_security(|s| (s.run_as_user, s.run_as_group) = (value(1000), value(50))).unwrap();
    assert_eq!((by_number.security.user, by_number.security.group), (Some(UserName::Id(1000)), Some(50)));
    let by_name = container_with_security(|s| s.run_as_username = "nobody".into()).unwrap();
    assert_eq!(by_name.security.user, Some(UserName::Name("nobody".into())));
    const AT: &str = "config.linux.security_context";
    invalid(container_with_security(|s| s.run_as_group = value(1)), &format!("{AT}.run_as_group"));
    invalid(container_with_security(|s| s.run_as_user = value(1 << 32)), &format!("{AT}.run_as_user"));
    invalid(container_with_security(|s| s.run_as_user = value(0xffff_ffff)), &format!("{AT}.run_as_user"));
    let both = |s: &mut v1::LinuxContainerSecurityContext| {
        (s.run_as_user, s.run_as_username) = (value(1), "root".into());
    };
    invalid(container_with_security(both), &format!("{AT}.run_as_username"));
}

#[test]
fn groups_follow_either_policy() {
    let strict = container_with_security(|s| {
        s.supplemental_groups = vec![5, 6];
        s.supplemental_groups_policy = v1::SupplementalGroupsPolicy::Strict.into();
    });
    let security = strict.unwrap().security;
    assert!(security.strict_groups);
    assert_eq!(security.supplemental_groups, [5, 6]);
    assert!(!container_with_security(|_| {}).unwrap().security.strict_groups);
}

#[test]
fn capabilities_lose_their_prefix() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let with = |capability| {
        container_with_security(|s| s.capabilities = Some(capability)).map(|config| config.security)
    };
    let taken = with(v1::Capability {
        add_capabilities: names(&["NET_ADMIN", "cap_sys_time"]),
        drop_capabilities: names(&["ALL"]),
        add_ambient_capabilities: vec![],
    })
    .unwrap();
    assert_eq!(taken.add_capabilities, ["NET_ADMIN", "SYS_TIME"]);
    assert_eq!(taken.drop_capabilities, ["ALL"]);
    let odd = v1::Capability { add_ambient_capabilities: names(&["CAP_"]), ..Default::default() };
    invalid(with(odd), "config.linux.security_context.capabilities.add_ambient_capabilities[0]");
}

#[test]
fn paths_to_hide_are_absolute() {
    const AT: &str = "config.linux.security_context";
    let taken = container_with_security(|s| s.masked_paths = vec!["/proc/kcore".into()]).unwrap();
    assert_eq!(taken.security.masked_paths, ["/proc/kcore"]);
    invalid(
        container_with_security(|s| s.masked_paths = vec!["kcore".into()]),
        &format!("{AT}.masked_paths[0]"),
    );
    invalid(
        container_with_security(|s| s.readonly_paths = vec![String::new()]),
        &format!("{AT}.readonly_paths[0]"),
    );
}

#[test]
fn seccomp_profiles_come_from_the_field_of_today_or_the_former_path() {
    let profile = |kind: ProfileType, file: &str| {
        Some(v1::SecurityProfile { profile_type: kind.into(), localhost_ref: file.into() })
    };
    let taken = |profile, path: &str| {
        container_with_security(|s| (s.seccomp, s.seccomp_profile_path) = (profile, path.into()))
            .map(|config| config.security.seccomp)
    };
    let file = || Seccomp::Localhost("/p.json".into());
    for (profile, path, expected) in [
        (None, "", Seccomp::Unconfined),
        (None, "unconfined", Seccomp::Unconfined),
        (None, "runtime/default", Seccomp::RuntimeDefault),
        (None, "localhost//p.json", file()),
        (profile(ProfileType::RuntimeDefault, ""), "unconfined", Seccomp::RuntimeDefault),
        (profile(ProfileType::Unconfined, ""), "", Seccomp::Unconfined),
        (profile(ProfileType::Localhost, "/p.json"), "", file()),
    ] {
        assert_eq!(taken(profile, path).unwrap(), expected, "{path}");
    }
    const AT: &str = "config.linux.security_context";
    invalid(taken(None, "localhost/p.json"), &format!("{AT}.seccomp_profile_path"));
    invalid(taken(profile(ProfileType::Localhost, "p.json"), ""), &format!("{AT}.seccomp.localhost_ref"));
}

#[test]
fn apparmor_profiles_come_from_the_field_of_today_or_the_former_name() {
    let profile = |kind: ProfileType, name: &str| {
        Some(v1::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() })
    };
    let taken = |profile, former: &str| {
        container_with_security(|s| (s.apparmor, s.apparmor_profile) = (profile, former.into()))
            .map(|config| config.security.apparmor)
    };
    let mine = || Apparmor::Localhost("mine".into());
    for (profile, former, expected) in [
        (None, "", Apparmor::RuntimeDefault),
        (None, "runtime/default", Apparmor::RuntimeDefault),
        (None, "unconfined", Apparmor::Unconfined),
        (None, "localhost/mine", mine()),
        (profile(ProfileType::Unconfined, ""), "localhost/mine", Apparmor::Unconfined),
        (profile(ProfileType::RuntimeDefault, ""), "unconfined", Apparmor::RuntimeDefault),
        (profile(ProfileType::Localhost, "mine"), "unconfined", mine()),
        (profile(ProfileType::Localhost, "localhost/mine"), "", mine()),
    ] {
        assert_eq!(taken(profile, former).unwrap(), expected, "{former}");
    }
    const AT: &str = "config.linux.security_context";
    for former in ["mine", "localhost/"] {
        invalid(taken(None, former), &format!("{AT}.apparmor_profile"));
    }
    invalid(taken(profile(ProfileType::Localhost, ""), ""), &format!("{AT}.apparmor.localhost_ref"));
}

#[test]
fn a_label_of_selinux_is_filled_up_with_what_is_usual() {
    let taken = |kind: &str, level: &str| {
        let options = v1::SeLinuxOption { r#type: kind.into(), level: level.into(), ..Default::default() };
        container_with_security(|s| s.selinux_options = Some(options)).map(|config| config.security.selinux)
    };
    let label = taken("", "s0:c1,c2").unwrap().unwrap();
    assert_eq!(
        [label.user, label.role, label.kind, label.level],
        ["system_u", "system_r", "container_t", "s0:c1,c2"]
    );
    assert_eq!(container_with_security(|_| {}).unwrap().security.selinux, None);
    const AT: &str = "config.linux.security_context.selinux_options";
    invalid(taken("a:b", ""), &format!("{AT}.type"));
    invalid(taken("", "s0 "), &format!("{AT}.level"));
}

#[test]
fn a_container_cannot_ask_for_more_of_the_host_than_its_pod_has() {
    let asked = |pod: &PodConfig, options: v1::NamespaceOption| {
        let security_context =
            v1::LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() };
        let linux = v1::LinuxContainerConfig { security_context: Some(security_context), resources: None };
        container_in(pod, |config| config.linux = Some(linux)).map(|config| config.security.pid)
    };
    let node = NamespaceMode::Node.into();
    let own = PodConfig::default();
    let host = PodConfig {
        namespaces: Namespaces { host_network: true, host_ipc: true, pid: PidMode::Pod, users: None },
        ..Default::default()
    };
    let both = v1::NamespaceOption { network: node, ipc: node, ..Default::default() };
    assert_eq!(asked(&host, both.clone()).unwrap(), PidMode::Pod);
    const AT: &str = "config.linux.security_context.namespace_options";
    invalid(asked(&own, both), &format!("{AT}.network"));
    let ipc = v1::NamespaceOption { ipc: node, ..Default::default() };
    invalid(asked(&own, ipc), &format!("{AT}.ipc"));
    let target = |target: &str| v1::NamespaceOption {
        pid: NamespaceMode::Target.into(),
        target_id: target.into(),
        ..Default::default()
    };
    assert_eq!(asked(&own, target("c1")).unwrap(), PidMode::Target("c1".into()));
    invalid(asked(&own, target("")), &format!("{AT}.target_id"));
    let untargeted = v1::NamespaceOption { target_id: "c1".into(), ..Default::default() };
    invalid(asked(&own, untargeted), &format!("{AT}.target_id"));
}

#[test]
fn limits_that_are_zero_were_not_asked_for() {
    assert_eq!(resources_of(|_| {}).unwrap(), Resources::default());
    let fresh = container_with(|config| {
        let resources = Some(v1::LinuxContainerResources::default());
        config.linux = Some(v1::LinuxContainerConfig { resources, security_context: None });
    });
    assert_eq!(fresh.unwrap().resources.oom_score_adj, Some(0), "of a new container, 0 is a value");
}

#[test]
fn limits_are_taken_as_they_are() {
    let taken = resources_of(|r| {
        (r.cpu_period, r.cpu_quota, r.cpu_shares) = (100_000, -1, 512);
        (r.memory_limit_in_bytes, r.memory_swap_limit_in_bytes) = (1 << 30, -1);
        (r.cpuset_cpus, r.cpuset_mems) = ("0-2,7".into(), "0".into());
        r.oom_score_adj = -998;
        r.hugepage_limits = vec![v1::HugepageLimit { page_size: "2MB".into(), limit: 0 }];
        r.unified = HashMap::from([("memory.high".into(), "max".into())]);
    })
    .unwrap();
    assert_eq!((taken.cpu_period, taken.cpu_quota, taken.cpu_shares), (Some(100_000), Some(-1), Some(512)));
    assert_eq!((taken.memory_limit, taken.memory_swap_limit), (Some(1 << 30), Some(-1)));
    assert_eq!((taken.cpuset_cpus.as_deref(), taken.cpuset_mems.as_deref()), (Some("0-2,7"), Some("0")));
    assert_eq!((taken.oom_score_adj, &*taken.hugepages), (Some(-998), &[("2MB".to_owned(), 0)][..]));
    assert_eq!(taken.unified["memory.high"], "max");
}

#[test]
fn limits_out_of_their_range_are_refused() {
    invalid(update(v1::UpdateContainerResourcesRequest::default()), "linux: missing");
    invalid(resources_of(|r| r.cpu_period = 10), "linux.cpu_period");
    invalid(resources_of(|r| r.cpu_quota = -2), "linux.cpu_quota");
    invalid(resources_of(|r| r.cpu_shares = 1), "linux.cpu_shares");
    invalid(resources_of(|r| r.cpu_shares = 262_145), "linux.cpu_shares");
    invalid(resources_of(|r| r.memory_limit_in_bytes = -2), "linux.memory_limit_in_bytes");
    invalid(resources_of(|r| r.oom_score_adj = 1001), "linux.oom_score_adj");
    let swap = |r: &mut v1::LinuxContainerResources| {
        (r.memory_limit_in_bytes, r.memory_swap_limit_in_bytes) = (100, 50);
    };
    invalid(resources_of(swap), "linux.memory_swap_limit_in_bytes");
    for bad in ["a", "1-", "3-1", "1,,2", "+1", " 1"] {
        invalid(resources_of(|r| r.cpuset_cpus = bad.into()), "linux.cpuset_cpus");
    }
    for bad in ["2", "MB", "+2MB", "2mb", "2 MB"] {
        let limit = v1::HugepageLimit { page_size: bad.into(), limit: 1 };
        invalid(resources_of(|r| r.hugepage_limits = vec![limit]), "linux.hugepage_limits[0].page_size");
    }
    for bad in ["", "memory", "../memory.max", "a/b.c", ".hidden"] {
        invalid(resources_of(|r| r.unified = HashMap::from([(bad.into(), "1".into())])), "linux.unified");
    }
}

#[test]
fn commands_are_checked() {
    let exec = |cmd: &[&str], timeout| {
        let cmd = cmd.iter().map(|word| (*word).to_owned()).collect();
        exec_sync(v1::ExecSyncRequest { container_id: "c1".into(), cmd, timeout })
    };
    assert_eq!(exec(&["true"], 0).unwrap().2, None, "0 is no limit");
    assert_eq!(exec(&["true"], 3).unwrap().2, Some(std::time::Duration::from_secs(3)));
    invalid(exec(&[], 0), "cmd");
    invalid(exec(&["a\0"], 0), "cmd[0]");
    invalid(exec(&["true"], -1), "timeout");
    invalid(grace(-1), "timeout");
    invalid(id("container_id", String::new()), "container_id");
}

fn pull_with(auth: v1::AuthConfig) -> Result<Option<Credentials>, Error> {
    let image = Some(v1::ImageSpec { image: "registry.example/app:1".into(), ..Default::default() });
    let request = v1::PullImageRequest { image, auth: Some(auth), sandbox_config: None };
    pull(request).map(|(_, credentials)| credentials)
}

#[test]
fn credentials_come_in_four_forms() {
    let basic = || Some(Credentials::Basic { user: "joe".into(), password: "s:ecret".into() });
    let auth = v1::AuthConfig::default;
    for (given, expected) in [
        (auth(), None),
        (v1::AuthConfig { username: "joe".into(), password: "s:ecret".into(), ..auth() }, basic()),
        (v1::AuthConfig { auth: "am9lOnM6ZWNyZXQ=".into(), ..auth() }, basic()),
        (
            v1::AuthConfig { identity_token: "id".into(), ..auth() },
            Some(Credentials::IdentityToken("id".into())),
        ),
        (
            v1::AuthConfig { registry_token: "bearer".into(), ..auth() },
            Some(Credentials::RegistryToken("bearer".into())),
        ),
    ] {
        assert!(pull_with(given.clone()).unwrap() == expected, "{given:?}");
    }
}

#[test]
fn credentials_of_another_registry_are_not_used() {
    let given = |server_address: &str| {
        pull_with(v1::AuthConfig {
            username: "joe".into(),
            server_address: server_address.into(),
            ..Default::default()
        })
    };
    assert!(given("https://registry.example/v2/").unwrap().is_some());
    assert!(given("registry.example").unwrap().is_some());
    assert!(given("https://registry.example.evil/").unwrap().is_none());
    let image = Some(v1::ImageSpec { image: "busybox".into(), ..Default::default() });
    let auth = v1::AuthConfig {
        username: "joe".into(),
        server_address: "https://index.docker.io/v1/".into(),
        ..Default::default()
    };
    let request = v1::PullImageRequest { image, auth: Some(auth), sandbox_config: None };
    assert!(pull(request).unwrap().1.is_some(), "Docker Hub goes by several names");
}

#[test]
fn a_bad_secret_is_refused_without_being_shown() {
    for auth in ["%%%", "aHVudGVyMg==", "/////w=="] {
        let error = pull_with(v1::AuthConfig { auth: auth.into(), ..Default::default() }).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        let text = error.to_string();
        assert!(text.starts_with("auth.auth") && !text.contains(auth) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_name_that_is_no_image_is_refused() {
    let pulled = |name: &str| {
        let image = Some(v1::ImageSpec { image: name.into(), ..Default::default() });
        pull(v1::PullImageRequest { image, ..Default::default() }).map(|(reference, _)| reference.to_string())
    };
    assert_eq!(pulled("busybox").unwrap(), "docker.io/library/busybox:latest");
    let long = format!("registry.example/{}:{}", "n".repeat(230), "t".repeat(128));
    assert_eq!(pulled(&long).unwrap(), long);
    for bad in ["", &"n".repeat(10_000), "UPPER", "a b", "x:", "-", "http://registry.example/app"] {
        invalid(pulled(bad), "image.image");
    }
    invalid(pull(v1::PullImageRequest::default()), "image: missing");
}
