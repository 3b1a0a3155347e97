#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use berth_cri::v1::{self, NamespaceMode};
use berth_image::Image;

use super::{container, features, handlers, pod_sandbox, pod_sandbox_status, runtime_status};
use crate::{
    container::{Container, ContainerState, config::*},
    cri::samples,
    pod::{
        PodState,
        config::{IdRange, Namespaces, PidMode, Users},
    },
    spec::HostFeatures,
};
use berth_network::NotReady;

fn container_status(container: &Container, image: Option<&Image>) -> v1::ContainerStatus {
    super::container_status(container, image, Path::new("/run/berth/containers/c1"))
}

#[test]
fn a_pod_is_shown_with_what_it_was_asked_to_be() {
    let mut pod = samples::pod("a1", PodState::Ready);
    pod.config.handler = "berth".into();
    pod.config.labels = BTreeMap::from([("app".into(), "web".into())]);
    pod.config.annotations = BTreeMap::from([("note".into(), "x".into())]);
    let listed = pod_sandbox(&pod);
    let status = pod_sandbox_status(&pod);
    assert_eq!((listed.id.as_str(), status.id.as_str()), ("a1", "a1"));
    assert_eq!((&listed.metadata, listed.created_at), (&status.metadata, status.created_at));
    assert_eq!(status.metadata.as_ref().unwrap().attempt, 3);
    assert_eq!(status.labels["app"], "web");
    assert_eq!(status.annotations["note"], "x");
    assert_eq!(
        (listed.state(), status.state()),
        (v1::PodSandboxState::SandboxReady, v1::PodSandboxState::SandboxReady)
    );
    assert_eq!(listed.runtime_handler, "berth");
}

#[test]
fn a_pod_that_is_not_ready_is_so_whatever_the_cause() {
    for state in [PodState::Starting, PodState::NotReady] {
        let status = pod_sandbox_status(&samples::pod("a1", state));
        assert_eq!(status.state(), v1::PodSandboxState::SandboxNotready);
    }
}

#[test]
fn the_first_address_is_the_primary_one() {
    let mut pod = samples::pod("a1", PodState::Ready);
    assert_eq!(pod_sandbox_status(&pod).network.unwrap().ip, "", "on the host's network there is none");
    pod.attachment = Some(samples::attachment(&["10.88.0.2", "fd00::2"]));
    let network = pod_sandbox_status(&pod).network.unwrap();
    assert_eq!(network.ip, "10.88.0.2");
    assert_eq!(network.additional_ips[0].ip, "fd00::2");
}

#[test]
fn namespaces_are_shown_as_they_were_asked_for() {
    for (pid, mode, target) in [
        (PidMode::Pod, NamespaceMode::Pod, ""),
        (PidMode::Container, NamespaceMode::Container, ""),
        (PidMode::Node, NamespaceMode::Node, ""),
        (PidMode::Target("c1".into()), NamespaceMode::Target, "c1"),
    ] {
        let mut pod = samples::pod("a1", PodState::Ready);
        pod.config.namespaces = Namespaces { host_network: true, pid, ..Default::default() };
        let options = pod_sandbox_status(&pod).linux.unwrap().namespaces.unwrap().options.unwrap();
        assert_eq!((options.pid(), options.target_id.as_str()), (mode, target));
        assert_eq!((options.network(), options.ipc()), (NamespaceMode::Node, NamespaceMode::Pod));
    }
}

fn ended(code: i32, reason: &str) -> ContainerState {
    ContainerState::Exited {
        started_at: 5,
        finished_at: 9,
        code,
        reason: reason.into(),
        message: "out of memory".into(),
    }
}

#[test]
fn each_state_of_a_container_is_shown_with_its_times() {
    for (state, shown, times) in [
        (ContainerState::Created { pid: 7 }, v1::ContainerState::ContainerCreated, (0, 0)),
        (ContainerState::Running { pid: 7, started_at: 5 }, v1::ContainerState::ContainerRunning, (5, 0)),
        (ended(1, "Error"), v1::ContainerState::ContainerExited, (5, 9)),
    ] {
        let one = samples::container("c1", "a1", state);
        assert_eq!(container(&one).state(), shown);
        let status = container_status(&one, None);
        assert_eq!((status.state(), (status.started_at, status.finished_at)), (shown, times));
    }
}

#[test]
fn an_end_is_shown_with_code_reason_and_message() {
    let status = container_status(&samples::container("c1", "a1", ended(137, "OOMKilled")), None);
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    assert_eq!(status.message, "out of memory");
}

#[test]
fn one_id_names_the_image_everywhere() {
    let one = samples::container("c1", "a1", ContainerState::Created { pid: 7 });
    let (listed, status) = (container(&one), container_status(&one, None));
    assert_eq!(listed.image_ref, one.image_id);
    assert_eq!((&listed.image_id, &status.image_id), (&one.image_id, &one.image_id));
    assert_eq!(status.image_ref, "docker.io/library/busybox@sha256:1");
    assert_eq!(status.image.unwrap().image, "busybox", "as asked for, when the image is gone");
}

#[test]
fn what_was_asked_for_comes_back() {
    let mut one = samples::container("c1", "a1", ContainerState::Created { pid: 7 });
    one.log_path = Some(PathBuf::from("/var/log/pods/app/0.log"));
    one.user.additional_gids = vec![50, 1000];
    one.config.resources = Resources {
        cpu_quota: Some(-1),
        cpu_shares: Some(512),
        memory_limit: Some(1 << 30),
        hugepages: vec![("2MB".into(), 4)],
        ..Resources::default()
    };
    one.config.mounts = vec![Mount {
        container_path: "/data".into(),
        host_path: "/srv".into(),
        readonly: true,
        propagation: Propagation::HostToContainer,
        nosuid: true,
        ..Mount::default()
    }];
    let status = container_status(&one, None);
    assert_eq!(status.log_path, "/var/log/pods/app/0.log");
    assert_eq!(status.user.unwrap().linux.unwrap().supplemental_groups, [50, 1000]);
    let resources = status.resources.unwrap().linux.unwrap();
    assert_eq!((resources.cpu_quota, resources.cpu_shares, resources.cpu_period), (-1, 512, 0));
    assert_eq!((resources.memory_limit_in_bytes, resources.hugepage_limits[0].limit), (1 << 30, 4));
    let mount = &status.mounts[0];
    assert_eq!(mount.propagation(), v1::MountPropagation::PropagationHostToContainer);
    assert_eq!((mount.readonly, mount.mount_options.as_slice()), (true, &["nosuid".to_owned()][..]));
}

#[test]
fn every_signal_of_the_cri_comes_back_from_its_number() {
    let number = |signal: v1::Signal| -> i32 {
        let name = signal.as_str_name().strip_prefix("SIGNAL_").unwrap();
        name.parse::<crate::spec::Signal>().unwrap().number()
    };
    for value in 1..=65 {
        let signal = v1::Signal::try_from(value).unwrap();
        let shown = super::container::signal(number(signal));
        assert_eq!(number(shown), number(signal), "{signal:?}");
    }
    assert_eq!(super::container::signal(15), v1::Signal::Sigterm);
    assert_eq!(super::container::signal(17), v1::Signal::Sigchld, "not its alias SIGCLD");
    assert_eq!(super::container::signal(0), v1::Signal::RuntimeDefault);
}

fn with_pid(state: &ContainerState) -> Container {
    samples::container("c1", "a1", state.clone())
}

#[test]
fn a_container_without_a_log_has_a_path_of_its_own_that_no_file_has() {
    let one = with_pid(&ContainerState::Created { pid: 1 });
    let status = super::container_status(&one, None, Path::new("/run/berth/containers/c1"));
    assert_eq!(status.log_path, "/run/berth/containers/c1/no-log");
}

#[test]
fn the_network_condition_says_why() {
    let ready = runtime_status(None, None);
    assert!(ready.conditions.iter().all(|condition| condition.status));
    assert_eq!(ready.conditions[0].r#type, "RuntimeReady");
    let missing = NotReady { reason: "NetworkPluginNotReady", message: "no file in /etc/cni/net.d".into() };
    let unready = runtime_status(Some(missing), None);
    assert!(unready.conditions[0].status);
    let network = &unready.conditions[1];
    assert_eq!((network.r#type.as_str(), network.status), ("NetworkReady", false));
    assert_eq!(
        (network.reason.as_str(), network.message.as_str()),
        ("NetworkPluginNotReady", "no file in /etc/cni/net.d")
    );

    let blocked = NotReady { reason: "ForwardingBlocked", message: "chain FORWARD".into() };
    let network = &runtime_status(None, Some(blocked)).conditions[1];
    assert_eq!(
        (network.status, network.reason.as_str(), network.message.as_str()),
        (true, "ForwardingBlocked", "chain FORWARD")
    );
}

#[test]
fn the_default_handler_has_no_name() {
    let host = HostFeatures { recursive_readonly: true, user_namespaces: false };
    let handlers = handlers(["", "berth"].map(|name| (name, host)).into_iter());
    assert_eq!(handlers.iter().map(|handler| handler.name.as_str()).collect::<Vec<_>>(), ["", "berth"]);
    let features_of = handlers[0].features.unwrap();
    assert!(features_of.recursive_read_only_mounts && !features_of.user_namespaces);
    let features_of = features(host);
    assert!(features_of.supplemental_groups_policy && features_of.mount_options);
    assert!(!features_of.user_namespaces_host_network);
}

#[test]
fn users_of_pods_and_mounts_are_shown_as_they_were_asked_for() {
    let users = Users { uids: IdRange::new(7, 8).unwrap(), gids: IdRange::new(9, 10).unwrap() };
    let uids = vec![v1::IdMapping { host_id: 7, container_id: 0, length: 8 }];
    let gids = vec![v1::IdMapping { host_id: 9, container_id: 0, length: 10 }];
    let mut pod = samples::pod("a1", PodState::Ready);
    pod.config.namespaces.users = Some(users);
    let options = pod_sandbox_status(&pod).linux.unwrap().namespaces.unwrap().options.unwrap();
    let expected =
        v1::UserNamespace { mode: NamespaceMode::Pod.into(), uids: uids.clone(), gids: gids.clone() };
    assert_eq!(options.userns_options, Some(expected));
    let mut container = samples::container("c1", "a1", ContainerState::Created { pid: 1 });
    container.config.mounts = vec![Mount { owners: Some(users), ..Default::default() }];
    let mount = container_status(&container, None).mounts.remove(0);
    assert_eq!((mount.uid_mappings, mount.gid_mappings), (uids, gids));
}

#[test]
fn the_user_of_an_image_is_a_number_or_a_name() {
    let user = super::image::user;
    let number = |value| (Some(v1::Int64Value { value }), String::new());
    for (given, expected) in [
        ("1000", number(1000)),
        ("1000:50", number(1000)),
        ("0", number(0)),
        ("www", (None, "www".to_owned())),
        ("www:staff", (None, "www".to_owned())),
        ("", (None, String::new())),
    ] {
        assert_eq!(user(given), expected, "{given}");
    }
}
