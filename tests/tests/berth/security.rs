use berth_cri::v1::{self, security_profile::ProfileType};
use berth_tests::{
    berth::Berth,
    pod::{container, pod, shell},
    waiting::eventually,
};

/// Runs a container with this security context, and returns the output of an exec of `script` in it.
async fn seen(
    berth: &mut Berth,
    image: &str,
    name: &str,
    context: v1::LinuxContainerSecurityContext,
    script: &str,
) -> String {
    let mut sandbox = pod(berth, name);
    sandbox.linux.as_mut().unwrap().security_context =
        Some(v1::LinuxSandboxSecurityContext { privileged: context.privileged, ..Default::default() });
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = shell(name, image, "exec sleep 1000");
    config.linux.as_mut().unwrap().security_context = Some(context);
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    berth.shell(&id, script).await
}

#[tokio::test(flavor = "multi_thread")]
async fn root_privileged_and_unprivileged_differ_in_capabilities_devices_and_mounts() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let script = "grep CapEff /proc/self/status; ls /dev | wc -l; grep -c ' /sys .*ro,' /proc/mounts; \
                  mount -t tmpfs none /tmp 2>/dev/null && echo mounted";
    let plain = seen(&mut berth, &image, "plain", v1::LinuxContainerSecurityContext::default(), script).await;
    let context = v1::LinuxContainerSecurityContext { privileged: true, ..Default::default() };
    let privileged = seen(&mut berth, &image, "privileged", context, script).await;
    assert!(plain.contains("00000000a80425fb"), "{plain}");
    assert!(!plain.contains("mounted"));
    assert!(privileged.contains("mounted"), "{privileged}");
    let devices = |said: &str| said.lines().nth(1).unwrap().trim().parse::<u32>().unwrap();
    assert!(devices(&privileged) > devices(&plain));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_users_come_by_number_or_by_name_with_the_images_groups() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let by_name = v1::LinuxContainerSecurityContext {
        run_as_username: "alice".into(),
        supplemental_groups: vec![1234],
        ..Default::default()
    };
    let said = seen(&mut berth, &image, "name", by_name.clone(), "id -u; id -g; id -G").await;
    assert_eq!(said, "1000\n1000\n1000 50 1234\n");
    let strict = v1::LinuxContainerSecurityContext {
        supplemental_groups_policy: v1::SupplementalGroupsPolicy::Strict.into(),
        ..by_name
    };
    assert_eq!(seen(&mut berth, &image, "strict", strict, "id -G").await, "1000 1234\n");
    let by_number = v1::LinuxContainerSecurityContext {
        run_as_user: Some(v1::Int64Value { value: 4711 }),
        run_as_group: Some(v1::Int64Value { value: 815 }),
        ..Default::default()
    };
    assert_eq!(seen(&mut berth, &image, "number", by_number, "id -u; id -g").await, "4711\n815\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_paths_are_masked_or_read_only_and_the_root_refuses_writes() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let context = v1::LinuxContainerSecurityContext {
        readonly_rootfs: true,
        masked_paths: vec!["/etc/passwd".into(), "/root".into()],
        readonly_paths: vec!["/tmp".into()],
        ..Default::default()
    };
    let said = seen(
        &mut berth,
        &image,
        "paths",
        context,
        "wc -c </etc/passwd; touch /x; touch /tmp/x; touch /dev/shm/x && echo shm",
    )
    .await;
    assert!(said.starts_with("0\nshm\n"), "{said}");
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_mount_options_are_kept() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let source = berth.path().join("source");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("script"), "#!/bin/sh\necho ran\n").unwrap();
    std::fs::set_permissions(source.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let sandbox = pod(&berth, "mounts");
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = shell("c", &image, "exec sleep 1000");
    let mount = |path: &str| v1::Mount {
        container_path: path.into(),
        host_path: source.display().to_string(),
        ..Default::default()
    };
    config.mounts = vec![
        mount("/rw"),
        v1::Mount { readonly: true, ..mount("/ro") },
        v1::Mount { readonly: true, recursive_read_only: true, ..mount("/rro") },
    ];
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    let said = berth.shell(&id, "/rw/script; touch /rw/new && echo written; touch /ro/x; touch /rro/x").await;
    assert!(said.starts_with("ran\nwritten\n"), "{said}");
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_containers_environment_directory_and_terminal_are_as_asked() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "process");
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = container(
        "c",
        &image,
        &["sh", "-c", "env; pwd; [ -t 0 ] && [ -t 1 ] && echo terminal; exec sleep 1000"],
    );
    config.envs = vec![v1::KeyValue { key: "GREETING".into(), value: b"hello".to_vec() }];
    config.working_dir = "/made/for/me".into();
    config.tty = true;
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    let log = async || berth.log_of("process", "c").into_iter().map(|(_, line)| line + "\n").collect();
    let log = eventually(log, |log: &String| log.contains("terminal")).await;
    for line in
        ["GREETING=hello", "FROM_IMAGE=yes", "PATH=/bin", "HOSTNAME=process", "TERM=xterm", "/made/for/me"]
    {
        assert!(log.contains(line), "{line} is not in {log}");
    }
}

fn seccomp(kind: ProfileType, localhost_ref: &str) -> v1::LinuxContainerSecurityContext {
    let profile = v1::SecurityProfile { profile_type: kind.into(), localhost_ref: localhost_ref.into() };
    v1::LinuxContainerSecurityContext { seccomp: Some(profile), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_default_filter_is_for_those_who_ask_for_it_and_never_for_the_privileged() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let script = "grep Seccomp: /proc/self/status; unshare -U true && echo unshared";
    let default = seccomp(ProfileType::RuntimeDefault, "");
    let privileged = v1::LinuxContainerSecurityContext { privileged: true, ..default.clone() };
    let no_new_privs = v1::LinuxContainerSecurityContext { no_new_privs: true, ..default.clone() };
    #[allow(deprecated)]
    let former = v1::LinuxContainerSecurityContext {
        seccomp_profile_path: "runtime/default".into(),
        ..Default::default()
    };
    for (name, context) in [("default", default), ("no-new-privs", no_new_privs), ("former", former)] {
        let said = seen(&mut berth, &image, name, context, script).await;
        assert!(
            said.starts_with("Seccomp:\t2\n") && said.contains("Operation not permitted"),
            "{name}: {said}"
        );
    }
    let nothing = v1::LinuxContainerSecurityContext::default();
    let unconfined = seccomp(ProfileType::Unconfined, "");
    for (name, context) in [("none", nothing), ("unconfined", unconfined), ("privileged", privileged)] {
        let said = seen(&mut berth, &image, name, context, script).await;
        assert_eq!(said, "Seccomp:\t0\nunshared\n", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_profile_of_a_file_is_in_force_in_the_container_and_in_its_execs() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let path = berth.path().join("profile.json");
    let profile = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
        { "name": "rmdir", "action": "SCMP_ACT_KILL_PROCESS" }
    ] }"#;
    std::fs::write(&path, profile).unwrap();
    let context = seccomp(ProfileType::Localhost, &path.display().to_string());
    let sandbox = pod(&berth, "file");
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = shell("killed", &image, "mkdir /tmp/x; exec rmdir /tmp");
    config.linux.as_mut().unwrap().security_context = Some(context.clone());
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    assert_eq!(berth.ended(&id).await.exit_code, 128 + 31);
    let said: String = berth.log_of("file", "killed").into_iter().map(|(_, line)| line).collect();
    assert!(said.contains("No space left on device"), "{said}");
    let said = seen(&mut berth, &image, "exec", context.clone(), "mkdir /tmp/x").await;
    assert!(said.contains("No space left on device"), "{said}");
    let capabilities = v1::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() };
    let excluded = v1::LinuxContainerSecurityContext { capabilities: Some(capabilities), ..context };
    assert_eq!(seen(&mut berth, &image, "excluded", excluded, "mkdir /tmp/x && echo made").await, "made\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_profile_that_cannot_be_is_refused_by_its_path_and_field() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "bad");
    let pod = berth.run(&sandbox).await.unwrap();
    let path = berth.path().join("profile.json");
    for (text, expected) in [
        (None, "No such file or directory"),
        (Some("{"), "EOF while parsing"),
        (Some(r#"{"defaultAction":"SCMP_ACT_FLY"}"#), r#"defaultAction "SCMP_ACT_FLY": is unknown"#),
        (Some(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#), r#""SCMP_ACT_NOTIFY": is not supported"#),
    ] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let mut config = shell("c", &image, "true");
        let context = seccomp(ProfileType::Localhost, &path.display().to_string());
        config.linux.as_mut().unwrap().security_context = Some(context);
        let refused = berth.create(&pod, &sandbox, config).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(expected), "{refused}");
    }
    let ok = shell("c", &image, "true");
    berth.create(&pod, &sandbox, ok).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_ambient_capabilities_are_kept_by_a_user_who_is_not_root() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let with = |capabilities: v1::Capability| v1::LinuxContainerSecurityContext {
        run_as_user: Some(v1::Int64Value { value: 1000 }),
        capabilities: Some(capabilities),
        ..Default::default()
    };
    let script = "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | awk '{print $2}'";
    let names = || vec!["NET_BIND_SERVICE".to_owned()];
    let added = v1::Capability { add_capabilities: names(), ..Default::default() };
    let said = seen(&mut berth, &image, "added", with(added), script).await;
    assert_eq!(said, "0000000000000000\n".repeat(4), "lost at execve");
    let ambient = v1::Capability { add_ambient_capabilities: names(), ..Default::default() };
    let said = seen(&mut berth, &image, "ambient", with(ambient.clone()), script).await;
    assert_eq!(said, "0000000000000400\n".repeat(4));
    let only = v1::Capability { drop_capabilities: vec!["ALL".into()], ..ambient };
    let no_new_privs = v1::LinuxContainerSecurityContext { no_new_privs: true, ..with(only) };
    let said = seen(&mut berth, &image, "only", no_new_privs, script).await;
    assert_eq!(said, "0000000000000400\n".repeat(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_apparmor_and_selinux_are_asked_for_is_ignored_or_refused_on_a_host_without_them() {
    let apparmor = |kind: ProfileType| {
        let profile = v1::SecurityProfile { profile_type: kind.into(), localhost_ref: "mine".into() };
        v1::LinuxContainerSecurityContext { apparmor: Some(profile), ..Default::default() }
    };
    if std::fs::exists("/sys/module/apparmor/parameters/enabled").unwrap() {
        return; // there critest asks for the same, and more
    }
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let label = v1::SeLinuxOption { level: "s0:c1,c2".into(), ..Default::default() };
    let selinux = v1::LinuxContainerSecurityContext { selinux_options: Some(label), ..Default::default() };
    for (name, context) in [
        ("default", apparmor(ProfileType::RuntimeDefault)),
        ("unconfined", apparmor(ProfileType::Unconfined)),
        ("selinux", selinux),
    ] {
        assert_eq!(seen(&mut berth, &image, name, context, "echo runs").await, "runs\n");
    }
    let sandbox = pod(&berth, "named");
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = shell("c", &image, "true");
    config.linux.as_mut().unwrap().security_context = Some(apparmor(ProfileType::Localhost));
    let refused = berth.create(&pod, &sandbox, config).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains(r#"apparmor profile "mine": this host has no AppArmor"#), "{refused}");
}
