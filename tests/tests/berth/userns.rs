use std::{fs, os::unix::fs::MetadataExt, path::Path};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::{pod, shell},
};
use tonic::Code;

use super::restart::{processes_with, shim_of};

const HOST: u32 = 300_000;
const MAPPING: v1::IdMapping = v1::IdMapping { host_id: HOST, container_id: 0, length: 65536 };

fn options() -> v1::NamespaceOption {
    let users =
        v1::UserNamespace { mode: v1::NamespaceMode::Pod.into(), uids: vec![MAPPING], gids: vec![MAPPING] };
    v1::NamespaceOption { userns_options: Some(users), ..Default::default() }
}

fn sandbox_with(berth: &Berth, name: &str, options: v1::NamespaceOption) -> v1::PodSandboxConfig {
    let mut sandbox = pod(berth, name);
    sandbox.linux.as_mut().unwrap().security_context =
        Some(v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() });
    sandbox
}

fn context(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn mapped(container_path: &str, host_path: &Path) -> v1::Mount {
    v1::Mount {
        container_path: container_path.into(),
        host_path: host_path.display().to_string(),
        uid_mappings: vec![MAPPING],
        gid_mappings: vec![MAPPING],
        ..Default::default()
    }
}

async fn started(
    berth: &mut Berth,
    sandbox: &v1::PodSandboxConfig,
    config: v1::ContainerConfig,
) -> (String, String) {
    let pod = berth.run(sandbox).await.unwrap();
    let id = berth.create(&pod, sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    (pod, id)
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pod_of_its_own_users_runs_as_any_other() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (server, _) = berth.run_alone("server", &image, "exec nc -lk -p 8080 -e echo greetings").await;
    let ip = berth.pod_status(&server).await.unwrap().network.unwrap().ip;
    let sandbox = sandbox_with(&berth, "users", options());
    let script = "echo begin; echo again > /dev/stdout; exec sleep 1000";
    let (pod, id) = started(&mut berth, &sandbox, shell("c", &image, script)).await;

    let seen = berth.shell(&id, "cat /proc/self/uid_map /proc/self/gid_map; id -u; hostname").await;
    let words: Vec<_> = seen.split_whitespace().collect();
    assert_eq!(words, ["0", "300000", "65536", "0", "300000", "65536", "0", "users"]);
    let script = format!("for i in $(seq 50); do nc -w 1 {ip} 8080 </dev/null && break; sleep 0.1; done");
    assert_eq!(berth.shell(&id, &script).await, "greetings\n");
    let files = "stat -c '%u:%g' / /bin/busybox /etc/hosts /etc/resolv.conf /etc/hostname /dev/null /dev/shm; \
        echo 10.0.0.1 added >> /etc/hosts; grep -c added /etc/hosts; echo x > /dev/null && touch /new /dev/shm/new && echo written";
    assert_eq!(berth.shell(&id, files).await, format!("{}1\nwritten\n", "0:0\n".repeat(7)));
    assert_eq!(berth.log_of("users", "c").len(), 2);

    let status = berth.pod_status(&pod).await.unwrap();
    let shown = status.linux.unwrap().namespaces.unwrap().options.unwrap();
    assert_eq!(shown.userns_options, options().userns_options);
    let user = berth.status(&id).await.unwrap().user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid), (0, 0));
    let upper = berth.path().join("root/containers").join(&id).join("upper/new");
    assert_eq!(owner(&upper), (HOST, HOST));
    berth.remove_all_pods().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_files_of_a_mapped_volume_have_the_same_owner_inside_and_on_disk() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let volume = berth.path().join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("roots"), "").unwrap();
    fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let sandbox = sandbox_with(&berth, "volume", options());
    let mut config = shell("c", &image, "exec sleep 1000");
    let of_image = v1::Mount {
        container_path: "/image".into(),
        image: Some(v1::ImageSpec { image: image.clone(), ..Default::default() }),
        readonly: true,
        ..Default::default()
    };
    let plain = v1::Mount { uid_mappings: vec![], gid_mappings: vec![], ..mapped("/plain", &volume) };
    config.mounts = vec![
        of_image,
        mapped("/volume", &volume),
        plain,
        v1::Mount { readonly: true, ..mapped("/ro", &volume) },
    ];
    context(&mut config).run_as_user = Some(v1::Int64Value { value: 1000 });
    context(&mut config).run_as_group = Some(v1::Int64Value { value: 1001 });
    context(&mut config).seccomp = Some(v1::SecurityProfile::default());
    let (_, id) = started(&mut berth, &sandbox, config).await;
    let script = "id -u; stat -c '%u:%g' /volume/roots /plain/roots; touch /volume/mine /plain/other; touch /ro/x; stat -c '%u:%g' /volume/mine; stat -c '%u:%g image' /image/bin/busybox; grep Seccomp: /proc/self/status";
    let said = berth.shell(&id, script).await;
    assert!(said.starts_with("1000\n0:0\n65534:65534\n1000:1001\n"), "{said}");
    assert!(said.contains("/ro/x: Read-only file system") && said.contains("Seccomp:\t2"), "{said}");
    assert!(said.contains("0:0 image"), "{said}");
    assert_eq!(owner(&volume.join("mine")), (1000, 1001));
    assert_eq!(owner(&volume.join("other")), (HOST + 1000, HOST + 1001));

    let status = berth.status(&id).await.unwrap();
    let user = status.user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid), (1000, 1001));
    let mount = status.mounts.iter().find(|mount| mount.container_path == "/volume").unwrap();
    assert_eq!((&mount.uid_mappings, &mount.gid_mappings), (&vec![MAPPING], &vec![MAPPING]));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_mappings_that_make_no_sense_are_refused_and_leave_nothing() {
    let mut berth = Berth::start().await;
    let other = |change: v1::IdMapping| vec![change];
    let cases = [
        ("none", vec![], "userns_options.uids"),
        ("two", vec![MAPPING, MAPPING], "userns_options.uids"),
        ("not from 0", other(v1::IdMapping { container_id: 1, ..MAPPING }), "container_id = 1"),
        ("empty", other(v1::IdMapping { length: 0, ..MAPPING }), "userns_options.uids[0]"),
        ("too long", other(v1::IdMapping { length: u32::MAX, ..MAPPING }), "userns_options.uids[0]"),
    ];
    for (name, mappings, field) in cases {
        let mut options = options();
        let users = options.userns_options.as_mut().unwrap();
        (users.uids, users.gids) = (mappings.clone(), mappings);
        let refused = berth.run(&sandbox_with(&berth, "wrong", options)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}: {refused}");
        assert!(refused.message().contains(field), "{name}: {refused}");
    }
    for mode in [v1::NamespaceMode::Container, v1::NamespaceMode::Target] {
        let users = Some(v1::UserNamespace { mode: mode.into(), ..Default::default() });
        let options = v1::NamespaceOption { userns_options: users, ..Default::default() };
        let refused = berth.run(&sandbox_with(&berth, "wrong", options)).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains("mode"), "{refused}");
    }
    let listed = berth.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
    assert!(listed.into_inner().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_does_not_fit_its_pods_users_is_refused_by_name() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = sandbox_with(&berth, "fits", options());
    let pod = berth.run(&sandbox).await.unwrap();

    let mut of_host = shell("host", &image, "true");
    let users = v1::UserNamespace { mode: v1::NamespaceMode::Node.into(), ..Default::default() };
    context(&mut of_host).namespace_options =
        Some(v1::NamespaceOption { userns_options: Some(users), ..Default::default() });
    let mut beyond = shell("beyond", &image, "true");
    context(&mut beyond).run_as_user = Some(v1::Int64Value { value: 65536 });
    let mut unmappable = shell("unmappable", &image, "true");
    unmappable.mounts = vec![mapped("/kernel", Path::new("/proc/sys"))];
    for (config, named) in [
        (of_host, "userns_options"),
        (beyond, "uid 65536 is not mapped"),
        (unmappable, r#""/proc/sys" at "/kernel""#),
    ] {
        let refused = berth.create(&pod, &sandbox, config).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(named), "{refused}");
    }
    let mut same = shell("same", &image, "exec sleep 1000");
    context(&mut same).namespace_options = Some(options());
    let id = berth.create(&pod, &sandbox, same).await.unwrap();
    berth.start_container(&id).await.unwrap();
    assert_eq!(berth.shell(&id, "id -u").await, "0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_sysctls_processes_and_a_terminal_are_the_pods_own() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let namespaces = v1::NamespaceOption { pid: v1::NamespaceMode::Pod.into(), ..options() };
    let mut sandbox = sandbox_with(&berth, "shared", namespaces);
    let sysctls = [("net.ipv4.ip_unprivileged_port_start", "81"), ("kernel.shm_rmid_forced", "1")];
    sandbox.linux.as_mut().unwrap().sysctls =
        sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let mut config = shell("c", &image, "readlink /proc/self/fd/0; exec sleep 1000");
    config.tty = true;
    let (pod, id) = started(&mut berth, &sandbox, config).await;
    let other = berth.create(&pod, &sandbox, shell("d", &image, "exec sleep 2000")).await.unwrap();
    berth.start_container(&other).await.unwrap();
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced; ps | grep -c 'sleep [12]000'";
    assert_eq!(berth.shell(&other, script).await, "81\n1\n2\n");
    assert_eq!(berth.shell(&id, "test -c /dev/console && stat -c %u /dev/pts/0").await, "0\n");
    assert_eq!(berth.log_of("shared", "c")[0].1.trim_end(), "/dev/pts/0");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_users_of_a_pod_on_the_hosts_network_are_its_own() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let namespaces = v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..options() };
    let sandbox = sandbox_with(&berth, "hostnet", namespaces);
    let (_, id) = started(&mut berth, &sandbox, shell("c", &image, "exec sleep 1000")).await;
    let script = "readlink /proc/self/ns/net; cat /proc/self/uid_map; ls -d /sys/class/net/lo; touch /sys/class/x; ip link set lo down";
    let said = berth.shell(&id, script).await;
    let net = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(said.starts_with(&format!("{}\n", net.display())) && said.contains("300000"), "{said}");
    assert!(said.contains("/sys/class/net/lo\n") && said.contains("Read-only file system"), "{said}");
    assert!(said.contains("Operation not permitted"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_restarted_daemon_goes_on_with_the_users_of_its_pods() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = sandbox_with(&berth, "stays", options());
    let (pod, id) = started(&mut berth, &sandbox, shell("c", &image, "exec sleep 1000")).await;
    berth.kill();
    berth.restart().await;
    assert!(berth.shell(&id, "cat /proc/self/uid_map").await.contains("300000"));
    let later = berth.create(&pod, &sandbox, shell("later", &image, "exec sleep 1000")).await.unwrap();
    berth.start_container(&later).await.unwrap();
    let namespace = "readlink /proc/self/ns/user";
    assert_eq!(berth.shell(&id, namespace).await, berth.shell(&later, namespace).await);
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_nothing_is_left_of_a_pod_of_its_own_users_whose_shim_was_killed() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let namespaces = v1::NamespaceOption { pid: v1::NamespaceMode::Pod.into(), ..options() };
    let sandbox = sandbox_with(&berth, "killed", namespaces);
    let config = shell("c", &image, "sleep 7654329 & exec sleep 1000");
    let (pod, id) = started(&mut berth, &sandbox, config).await;
    nix::sys::signal::kill(shim_of(&pod), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(berth.ended(&id).await.message.contains("shim died"));
    assert_eq!(processes_with("7654329"), 0);
    berth.remove_pod(&pod).await.unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&pod[..12]) && !mounts.contains(berth.path().to_str().unwrap()), "{mounts}");
    assert_eq!(processes_with(&pod), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_handlers_say_that_pods_may_have_users_of_their_own() {
    let mut berth = Berth::start().await;
    let status = berth.runtime.status(v1::StatusRequest { verbose: true }).await.unwrap().into_inner();
    assert!(status.runtime_handlers.iter().all(|handler| handler.features.unwrap().user_namespaces));
    assert!(status.features.unwrap().user_namespaces_host_network);
    let config: serde_json::Value = serde_json::from_str(&status.info["config"]).unwrap();
    assert_eq!(config["stateDir"], berth.path().join("run").display().to_string());
}
