use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::{pod, shell},
    waiting::until,
};

use super::{ESCAPED, SECRET};

/// Uid and gid of the host's user `nobody`.
const NOBODY: u32 = 65534;

/// Output of `program path`, run as an unprivileged user of the host.
fn as_nobody(program: &str, path: &Path) -> String {
    let done = Command::new(program).arg(path).uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap();
    String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
}

/// Starts a container with a setuid file, and a secret in its environment. Returns its id and the paths on the host that
/// must not be readable.
async fn with_secrets(berth: &mut Berth) -> (String, Vec<PathBuf>) {
    let image = berth.busybox().await;
    let sandbox = pod(berth, "secrets");
    let pod = berth.run(&sandbox).await.unwrap();
    let script = "busybox cp /bin/busybox /setuid; chmod 4755 /setuid; exec sleep 1000";
    let mut config = shell("c", &image, script);
    config.envs = vec![v1::KeyValue { key: "PASSWORD".into(), value: SECRET.into() }];
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    berth.shell(&id, "until [ -u /setuid ]; do sleep 0.01; done").await;
    let paths = [
        format!("root/containers/{id}/upper/setuid"),
        format!("run/containers/{id}/config.json"),
        format!("run/sandboxes/{pod}/hosts"),
        "root/state.db".into(),
        "root/images/index.db".into(),
    ];
    let paths = paths.map(|path| berth.path().join(path)).into();
    (id, paths)
}

fn assert_closed(berth: &Berth, paths: &[PathBuf]) {
    for path in paths {
        assert!(path.exists(), "{}", path.display());
        let said = as_nobody("cat", path);
        assert!(said.contains("Permission denied") && !said.contains(SECRET), "{}: {said}", path.display());
    }
    for directory in
        ["root", "root/images", "root/containers", "run", "run/containers", "run/sandboxes", "run/s"]
    {
        let said = as_nobody("ls", &berth.path().join(directory));
        assert!(said.contains("Permission denied"), "{directory}: {said}");
    }
}

/// CVE-2021-41103: directories of containers that every local user may enter. The user runs a setuid file that the
/// container's root has made, and is root of the host, or reads secrets in the container's config.json.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2021_41103_local_users_reach_nothing_of_a_container() {
    let mut berth = Berth::start().await;
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(berth.path());
    let (id, paths) = with_secrets(&mut berth).await;
    assert_closed(&berth, &paths);

    // Directories as an earlier version of the daemon has left them.
    berth.kill();
    let ours: Vec<_> = ["root", "run"].map(|name| berth.path().join(name)).into();
    for path in paths.iter().flat_map(|path| path.ancestors().skip(1)) {
        if ours.iter().any(|ours| path.starts_with(ours)) {
            open(path);
        }
    }
    fs::set_permissions(&paths[3], fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!as_nobody("ls", &paths[0]).contains("Permission denied"), "it is closed for another reason");
    berth.restart().await;
    assert_closed(&berth, &paths);
    assert_eq!(berth.shell(&id, "echo runs").await, "runs\n");
    let socket = as_nobody("stat", &berth.path().join("run/berth.sock"));
    assert!(!socket.contains("Permission denied"), "the way to a socket there is closed: {socket}");
}

/// CVE-2022-29162: a process that is not root, but has inheritable capabilities, regains them by executing a file with the
/// same inheritable file capabilities.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2022_29162_nothing_is_inheritable() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "inheritable");
    let pod = berth.run(&sandbox).await.unwrap();
    let show = "grep -E 'Cap(Inh|Amb)' /proc/self/status";
    for (name, user, add) in
        [("root", 0, vec![]), ("user", 1000, vec![]), ("more", 1000, vec!["SYS_ADMIN".to_owned()])]
    {
        let mut config = shell(name, &image, &format!("{show}; exec sleep 1000"));
        config.linux.as_mut().unwrap().security_context = Some(v1::LinuxContainerSecurityContext {
            run_as_user: Some(v1::Int64Value { value: user }),
            capabilities: Some(v1::Capability { add_capabilities: add, ..Default::default() }),
            ..Default::default()
        });
        let id = berth.create(&pod, &sandbox, config).await.unwrap();
        berth.start_container(&id).await.unwrap();
        let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
        assert_eq!(berth.shell(&id, show).await, none, "{name}");
        until("it has printed", || berth.log_of("inheritable", name).len() == 2).await;
        let printed: String =
            berth.log_of("inheritable", name).into_iter().map(|(_, line)| line + "\n").collect();
        assert_eq!(printed, none, "{name}");
    }
}

/// CVE-2023-25809: without a cgroup namespace, or with a user namespace, `/sys/fs/cgroup` was the host's and writable: root
/// inside could make cgroups and move processes in the cgroups of the host's user.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2023_25809_the_cgroups_are_read_only_with_and_without_users_of_its_own() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let mapping = v1::IdMapping { host_id: 400_000, container_id: 0, length: 65536 };
    let users =
        v1::UserNamespace { mode: v1::NamespaceMode::Pod.into(), uids: vec![mapping], gids: vec![mapping] };
    for (name, users, network) in [
        ("hosts", None, v1::NamespaceMode::Pod),
        ("own", Some(users.clone()), v1::NamespaceMode::Pod),
        ("shared", Some(users), v1::NamespaceMode::Node),
    ] {
        let mut sandbox = pod(&berth, name);
        let options =
            v1::NamespaceOption { userns_options: users, network: network.into(), ..Default::default() };
        sandbox.linux.as_mut().unwrap().security_context =
            Some(v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() });
        let pod = berth.run(&sandbox).await.unwrap();
        let script = format!(
            "for group in /sys/fs/cgroup /sys/fs/cgroup/*; do \
                 mkdir $group/made 2>/dev/null && echo {ESCAPED}: made $group/made; \
                 for file in cgroup.procs notify_on_release release_agent; do \
                     (: >> $group/$file) 2>/dev/null && echo {ESCAPED}: $group/$file can be written to; \
                 done; \
             done; mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo {ESCAPED}: remounted; echo over"
        );
        let outcome = super::attempt(&mut berth, &sandbox, &pod, shell("c", &image, &script)).await;
        assert_eq!(outcome.unwrap(), "over\n", "{name}");
    }
}
