//! User namespaces: ids inside and outside, and owners of files.

use super::support::{Fixture, HOST, LENGTH, Running, block_on, ids, mapped_overlay, shown, wait};
use berth_shim::init::{self, Error, IdMappings, PodOptions};
use serde_json::{Value, json};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

fn fixture() -> Fixture {
    Fixture::with(|pod| pod.users = Some(ids(HOST)))
}

fn run(fixture: &Fixture, script: &str, change: impl FnOnce(&mut Value)) -> (i32, String) {
    block_on(async {
        let rootfs = mapped_overlay(fixture, "c1", &[fixture.image()]);
        let container = fixture.create_on("c1", &rootfs, &["/bin/sh", "-c", script], change).await.unwrap();
        container.finish().await.unwrap()
    })
}

fn fail(fixture: &Fixture, change: impl FnOnce(&mut Value)) -> Error {
    block_on(async {
        let rootfs = mapped_overlay(fixture, "c1", &[fixture.image()]);
        let error = fixture.create_on("c1", &rootfs, &["/bin/true"], change).await.err().unwrap();
        assert!(!fixture.has_cgroup("c1"), "something is left after {error}");
        error
    })
}

async fn sleeper(fixture: &Fixture, id: &str, change: impl FnOnce(&mut Value)) -> Running {
    let rootfs = mapped_overlay(fixture, id, &[fixture.image()]);
    fixture.create_on(id, &rootfs, &["/bin/sleep", "1000"], change).await.unwrap().start().await
}

fn add_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

fn mappings(host: u32) -> Value {
    json!([{ "containerID": 0, "hostID": host, "size": LENGTH }])
}

fn capable(spec: &mut Value, capability: &str) {
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set].as_array_mut().unwrap().push(json!(capability));
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

#[test]
fn root_root_inside_is_nobody_outside() {
    let fixture = fixture();
    block_on(async {
        let container = sleeper(&fixture, "c1", |_| {}).await;
        let status = fs::read_to_string(format!("/proc/{}/status", container.pid)).unwrap();
        assert!(status.contains(&format!("Uid:\t{HOST}\t{HOST}\t{HOST}\t{HOST}\n")), "{status}");
        assert!(status.contains(&format!("Gid:\t{HOST}\t{HOST}\t{HOST}\t{HOST}\n")), "{status}");
        let (_, output) = container.sh("cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g").await;
        let words: Vec<_> = output.split_whitespace().collect();
        assert_eq!(words, ["0", "200000", "65536", "0", "200000", "65536", "0", "0"]);
        let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours: Vec<_> =
            mounted.lines().filter(|line| line.contains(fixture.dir.path().to_str().unwrap())).collect();
        assert!(ours.len() == 1 && ours[0].contains("/netns "), "the host sees {ours:?}");
        container.end();
    });
}

#[test]
fn root_the_image_and_what_is_written_belong_to_the_pods_root() {
    let fixture = fixture();
    chown(fixture.image().join("home/me"), Some(1000), Some(1000)).unwrap();
    let script = "stat -c '%u:%g' / /etc /bin/busybox /home/me /dev /dev/null /dev/tty /dev/shm /dev/pts; \
        echo changed > /etc/passwd && touch /new && stat -c '%u:%g' /etc/passwd /new";
    let (_, output) = run(&fixture, script, |_| {});
    assert_eq!(output, format!("0:0\n0:0\n0:0\n1000:1000\n{}", "0:0\n".repeat(7)));
    assert_eq!(owner(&fixture.path("c1-upper/new")), (HOST, HOST));
    assert_eq!(owner(&fixture.path("c1-upper/etc/passwd")), (HOST, HOST));
    assert_eq!(owner(&fixture.image().join("etc/passwd")), (0, 0));
}

#[test]
fn root_the_default_mounts_devices_and_masks_are_those_of_any_container() {
    let fixture = fixture();
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
        for l in fd stdin ptmx; do readlink /dev/$l; done; echo x > /dev/null; head -c 3 /dev/zero | wc -c; \
        mount | grep -c -E ' on /(proc|sys|dev|dev/(mqueue|pts|shm)) '; \
        cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic; \
        touch /sys/x; ls -d /sys/class/net/lo; touch /sys/fs/cgroup/x";
    let (_, output) = run(&fixture, script, |_| {});
    let (expected, refused) =
        ("/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n3\n6\n0\n0\n", "Read-only file system");
    assert!(output.starts_with(expected) && output.matches(refused).count() == 3, "{output}");
    assert!(output.contains("/sys/class/net/lo\n"), "{output}");
}

#[test]
fn root_devices_of_the_spec_can_be_used_and_no_others_made() {
    let fixture = fixture();
    let script = "stat -c '%t:%T %u %g %a' /dev/mine /dev/deep/er /elsewhere/null; cat /dev/mine; echo x > /dev/deep/er; \
        mknod /dev/sneaky c 1 3 || echo refused";
    let (_, output) = run(&fixture, script, |spec| {
        capable(spec, "CAP_MKNOD");
        spec["linux"]["devices"] = json!([
            { "path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8 },
            { "path": "/dev/deep/er", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600 },
        ]);
    });
    let lines: Vec<_> = output.lines().filter(|line| !line.contains("elsewhere")).collect();
    assert_eq!(lines[..2], ["1:3 7 8 640", "1:3 0 0 600"], "{output}");
    assert_eq!(lines.last(), Some(&"refused"), "{output}");
}

#[test]
fn root_a_mapped_volume_shows_the_ids_on_disk_and_an_unmapped_one_nobody() {
    let fixture = fixture();
    let host = fixture.path("volume");
    fs::create_dir_all(host.join("below")).unwrap();
    fs::write(host.join("roots"), "").unwrap();
    fs::write(host.join("users"), "").unwrap();
    chown(host.join("users"), Some(1000), Some(1001)).unwrap();
    let tmpfs = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("t"), &host.join("below"), Some("tmpfs"), tmpfs, None::<&str>).unwrap();
    let script = "stat -c '%u:%g' /v/roots /v/users /plain/roots; touch /v/new /v/below/new; \
        stat -c '%u:%g' /v/new /v/below /v/below/new; touch /plain/x";
    let (_, output) = run(&fixture, script, |spec| {
        add_mount(
            spec,
            json!({ "destination": "/v", "type": "bind", "source": host, "options": ["rbind", "ridmap"],
            "uidMappings": mappings(HOST), "gidMappings": mappings(HOST) }),
        );
        add_mount(
            spec,
            json!({ "destination": "/plain", "type": "bind", "source": host, "options": ["rbind"] }),
        );
    });
    let made = owner(&host.join("below/new"));
    nix::mount::umount(&host.join("below")).unwrap();
    assert!(output.starts_with("0:0\n1000:1001\n65534:65534\n0:0\n0:0\n0:0\n"), "{output}");
    assert!(output.ends_with("touch: /plain/x: Permission denied\n"), "{output}");
    assert_eq!((owner(&host.join("new")), made), ((0, 0), (0, 0)), "on disk");
}

#[test]
fn root_a_volume_may_be_mapped_by_the_containers_namespace_or_by_another() {
    let fixture = fixture();
    let host = fixture.path("volume");
    fs::create_dir_all(&host).unwrap();
    fs::write(host.join("file"), "").unwrap();
    let script = "stat -c '%u:%g' /own/file /other/file";
    let (_, output) = run(&fixture, script, |spec| {
        add_mount(
            spec,
            json!({ "destination": "/own", "type": "bind", "source": host, "options": ["rbind", "idmap"] }),
        );
        add_mount(
            spec,
            json!({ "destination": "/other", "type": "bind", "source": host, "options": ["rbind"],
            "uidMappings": mappings(HOST + 5), "gidMappings": mappings(HOST + 6) }),
        );
    });
    assert_eq!(output, "0:0\n5:6\n");
}

#[test]
fn root_a_volume_is_mapped_without_a_user_namespace_too() {
    let fixture = Fixture::new();
    let (_, output) = fixture.run("stat -c '%u:%g' /v/etc", |spec| {
        add_mount(
            spec,
            json!({ "destination": "/v", "type": "bind", "source": fixture.image(), "options": ["rbind"],
            "uidMappings": mappings(3), "gidMappings": mappings(4) }),
        );
    });
    assert_eq!(output, "3:4\n");
    let error = fixture.fail(&["/bin/true"], |spec| {
        add_mount(
            spec,
            json!({ "destination": "/v", "type": "bind", "source": fixture.image(), "options": ["idmap"] }),
        )
    });
    assert!(error.to_string().contains("needs uidMappings and gidMappings"), "{error}");
}

#[test]
fn root_volumes_that_cannot_be_mapped_are_named() {
    let fixture = fixture();
    let error = fail(&fixture, |spec| {
        add_mount(
            spec,
            json!({ "destination": "/v", "type": "bind", "source": "/proc/sys", "options": ["rbind"],
            "uidMappings": mappings(HOST), "gidMappings": mappings(HOST) }),
        )
    });
    assert_eq!(
        error.to_string(),
        r#"mount: map the ids of "/proc/sys" at "/v": its file system, or one mounted below it, cannot do that"#
    );
    let error = fail(&fixture, |spec| {
        add_mount(
            spec,
            json!({ "destination": "/v", "type": "tmpfs", "source": "t", "uidMappings": mappings(HOST) }),
        )
    });
    assert_eq!(error.to_string(), r#"ids of "tmpfs" at "/v" mapped not supported yet"#);
}

#[test]
fn root_layers_that_cannot_be_mapped_are_named() {
    let fixture = fixture();
    let layer = fixture.path("elsewhere/layer");
    fs::create_dir_all(&layer).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("t"), &layer, Some("tmpfs"), flags, None::<&str>).unwrap();
    let error = |layers: &[PathBuf]| {
        let rootfs = mapped_overlay(&fixture, "c1", layers);
        block_on(fixture.create_on("c1", &rootfs, &["/bin/true"], |_| {})).err().unwrap().to_string()
    };
    let several = error(&[layer.clone(), fixture.image()]);
    nix::mount::umount(&layer).unwrap();
    assert!(
        several.starts_with("mapped layers on several mounts, as ") && several.contains("elsewhere/layer")
    );
    let unmappable = error(&["/proc/sys/net".into()]);
    assert!(unmappable.starts_with("rootfs: map the ids of the layers in /proc/sys"), "{unmappable}");
}

#[test]
fn root_a_user_without_a_number_outside_is_refused() {
    let fixture = fixture();
    for user in [
        json!({ "uid": LENGTH, "gid": 0 }),
        json!({ "uid": 0, "gid": LENGTH }),
        json!({ "uid": 0, "gid": 0, "additionalGids": [LENGTH] }),
    ] {
        let error = fail(&fixture, |spec| spec["process"]["user"] = user);
        assert!(error.to_string().ends_with("65536 is not mapped into the user namespace"), "{error}");
    }
}

#[test]
fn root_streams_can_be_opened_again_by_whoever_runs() {
    let fixture = fixture();
    for uid in [0, 1000] {
        let (_, output) =
            run(&fixture, "echo out > /dev/stdout; echo err > /proc/self/fd/2; id -u", |spec| {
                spec["process"]["user"] = json!({ "uid": uid, "gid": 1000 });
            });
        assert_eq!(output, format!("out\nerr\n{uid}\n"));
    }
}

#[test]
fn root_an_exec_is_in_the_user_namespace_as_whom_it_asks_for() {
    let fixture = fixture();
    block_on(async {
        let container = sleeper(&fixture, "c1", |spec| {
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [7] });
        })
        .await;
        let script = "id -u; id -G; echo again > /dev/stdout; readlink /proc/self/ns/user; touch /tmp/mine; \
            grep CapEff /proc/self/status";
        chown(fixture.image().join("tmp"), Some(1000), None).unwrap();
        let (_, output) = container.sh(script).await;
        let own = fs::read_link(format!("/proc/{}/ns/user", container.pid)).unwrap();
        assert!(
            output.starts_with(&format!("1000\n1001 7\nagain\n{}\n", own.display()))
                && output.contains("CapEff:\t0000000000000000"),
            "{output}"
        );
        assert_eq!(owner(&fixture.path("c1-upper/tmp/mine")), (HOST + 1000, HOST + 1001));
        container.end();
    });
}

#[test]
fn root_the_pods_namespaces_belong_to_its_user_namespace() {
    let fixture = fixture();
    let script = "ip link set lo down && echo net; hostname other && echo uts; mount -t tmpfs t /tmp && echo mount; \
        mount -t proc proc /home && echo pid; dmesg -n 8 2>/dev/null && echo host";
    let (_, output) = run(&fixture, script, |spec| {
        capable(spec, "CAP_NET_ADMIN");
        capable(spec, "CAP_SYS_ADMIN");
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    assert_eq!(output, "net\nuts\nmount\npid\n");
    assert_ne!(rustix::system::uname().nodename().to_str().unwrap(), "other");
}

#[test]
fn root_sysctls_of_the_pod_hold_and_can_be_set_from_inside() {
    let fixture = Fixture::with(|pod| {
        pod.users = Some(ids(HOST));
        pod.shm_size = 1 << 20;
        pod.sysctls = vec![
            ("net.ipv4.ip_unprivileged_port_start".into(), "80".into()),
            ("kernel.msgmax".into(), "4096".into()),
            ("fs.mqueue.msg_max".into(), "11".into()),
        ];
    });
    let script = "cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/msgmax fs/mqueue/msg_max; \
        echo 81 > net/ipv4/ip_unprivileged_port_start; echo 5000 > kernel/msgmax; \
        cat net/ipv4/ip_unprivileged_port_start kernel/msgmax; grep -o size=1024k /proc/self/mountinfo";
    let (_, output) = run(&fixture, script, |spec| {
        capable(spec, "CAP_NET_ADMIN");
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    assert_eq!(output, "80\n4096\n11\n81\n5000\nsize=1024k\n");
}

#[test]
fn root_a_terminal_belongs_to_the_user() {
    let fixture = fixture();
    block_on(async {
        let script = "tty; test -t 0 && test -t 2 && echo all; echo x > /dev/tty; stat -c %u /dev/pts/0; test -c /dev/console && echo console";
        let rootfs = mapped_overlay(&fixture, "c1", &[fixture.image()]);
        let args = ["/bin/sh", "-c", script];
        let created = fixture.create_on_terminal(&rootfs, &args, |spec| {
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        });
        let created = created.await.unwrap();
        created.barrier.start().await.unwrap();
        assert_eq!(shown(created.console), "/dev/pts/0\nall\nx\n1000\nconsole\n");
        assert_eq!(wait(created.pidfd.as_fd()), 0);
        created.cgroup.remove().unwrap();
    });
}

#[test]
fn root_containers_share_processes_and_memory_of_their_user_namespace() {
    let mut fixture = Fixture::with(|pod| {
        pod.users = Some(ids(HOST));
        pod.shared_pid = true;
    });
    let init = fixture.pod.init_pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    assert!(
        status.contains(&format!("Uid:\t{HOST}")) && status.contains("CapEff:\t0000000000000000"),
        "{status}"
    );
    let join = move |spec: &mut Value| {
        spec["linux"]["namespaces"] =
            json!([{ "type": "mount" }, { "type": "pid", "path": format!("/proc/{init}/ns/pid") }]);
    };
    block_on(async {
        let (first, second) = (sleeper(&fixture, "c1", join).await, sleeper(&fixture, "c2", join).await);
        let (_, output) = second.sh("ps -o pid,args; kill -9 1; ls /proc/1/root/").await;
        assert!(output.matches("sleep 1000").count() == 2 && !output.contains("etc"), "{output}");
        first.sh("echo shared > /dev/shm/x").await;
        assert_eq!(
            second.sh("cat /dev/shm/x; stat -c %a:%u /dev/shm /dev/shm/x").await.1,
            "shared\n1777:0\n644:0\n"
        );
        first.end();
        second.end();
    });
    fixture.pod.destroy().unwrap();
    assert!(!fs::exists(format!("/proc/{init}")).unwrap());
}

#[test]
fn root_a_pod_on_the_hosts_network_keeps_its_own_users() {
    let fixture = Fixture::with(|pod| {
        pod.users = Some(ids(HOST));
        pod.host_network = true;
        pod.netns_path = None;
    });
    let sys = |spec: &mut Value| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "sysfs");
        let bind = json!({ "destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "rro", "nosuid", "nodev", "noexec"] });
        mounts.insert(4, bind);
    };
    let script = "readlink /proc/self/ns/net; id -u; touch /sys/x; touch /sys/fs/cgroup/x; hostname no; cat /proc/self/uid_map";
    let (_, output) = run(&fixture, script, sys);
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(output.starts_with(&format!("{}\n0\n", own.display())) && output.contains("200000"), "{output}");
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
}

#[test]
fn root_a_container_may_have_a_user_namespace_of_its_own_or_join_one() {
    let fixture = Fixture::new();
    let own = |spec: &mut Value, path: &str| {
        let kinds = ["pid", "mount", "ipc", "uts", "network", "cgroup"];
        let mut namespaces: Vec<_> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        namespaces.push(json!({ "type": "user", "path": path }));
        spec["linux"]["namespaces"] = json!(namespaces);
        spec["linux"]["uidMappings"] = mappings(HOST);
        spec["linux"]["gidMappings"] = mappings(HOST);
        spec["hostname"] = json!("mine");
        capable(spec, "CAP_NET_ADMIN");
    };
    block_on(async {
        let first = sleeper(&fixture, "c1", |spec| own(spec, "")).await;
        let script = "hostname; ip link set lo up && echo net; id -u; stat -c %u /bin/busybox /dev/shm";
        assert_eq!(first.sh(script).await.1, "mine\nnet\n0\n0\n65534\n");
        let path = format!("/proc/{}/ns/user", first.pid);
        let second = sleeper(&fixture, "c2", |spec| own(spec, &path)).await;
        let same = "readlink /proc/self/ns/user";
        assert_eq!(first.sh(same).await, second.sh(same).await);
        first.end();
        second.end();
    });
}

#[test]
fn root_mappings_that_cannot_be_are_refused() {
    let fixture = Fixture::new();
    let layers = mapped_overlay(&fixture, "c1", &[fixture.image()]);
    let error = block_on(fixture.create_on("c1", &layers, &["/bin/true"], |_| {})).err().unwrap();
    assert_eq!(error.to_string(), "rootfs: uidmap of an overlay without a user namespace");
    let with = |uids: Value, gids: Value, kind: Option<&str>| {
        fixture.fail(&["/bin/true"], |spec| {
            let listed = kind.map(|kind| json!({ "type": kind }));
            spec["linux"]["namespaces"].as_array_mut().unwrap().extend(listed);
            spec["linux"]["uidMappings"] = uids;
            spec["linux"]["gidMappings"] = gids;
        })
    };
    let error = with(mappings(HOST), mappings(HOST), None);
    assert_eq!(error.to_string(), "namespace: uidMappings without a user namespace");
    let error = with(mappings(HOST), json!([]), Some("user"));
    assert_eq!(error.to_string(), "namespace: a user namespace needs uidMappings and gidMappings");
    let twice = json!([mappings(HOST)[0], mappings(HOST)[0]]);
    let error = with(twice, mappings(HOST), Some("user"));
    assert!(error.to_string().starts_with("namespace: write uid_map "), "{error}");
}

#[test]
fn root_a_pod_whose_users_cannot_be_mapped_leaves_nothing() {
    let fixture = Fixture::new();
    let mut twice = ids(HOST);
    twice.gids.extend(ids(HOST).gids);
    let netns = fixture.path("other");
    for users in [twice, IdMappings { gids: Vec::new(), ..ids(HOST) }] {
        let options =
            PodOptions { netns_path: Some(netns.clone()), users: Some(users), ..PodOptions::default() };
        let error = init::PodNamespaces::create(&options).unwrap_err();
        assert!(error.to_string().starts_with("namespace: ") && !netns.exists(), "{error}");
    }
    let children = fs::read_to_string("/proc/thread-self/children").unwrap();
    assert_eq!(children, "", "a process is left");
}

#[test]
fn root_a_system_call_filter_is_in_force_for_the_container_and_its_execs() {
    let fixture = fixture();
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }]
    });
    let script = "busybox mkdir /tmp/x; grep -E 'CapPrm|Seccomp:' /proc/self/status";
    let expected = "mkdir: can't create directory '/tmp/x': No space left on device\nCapPrm:\t0000000000000000\nSeccomp:\t2\n";
    for no_new_privileges in [true, false] {
        let change = |spec: &mut Value| {
            spec["linux"]["seccomp"] = filter.clone();
            spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            spec["process"].as_object_mut().unwrap().remove("capabilities");
        };
        assert_eq!(run(&fixture, script, change).1, expected);
        block_on(async {
            let container = sleeper(&fixture, "c2", change).await;
            assert_eq!(container.sh(script).await.1, expected);
            container.end();
        });
    }
}
