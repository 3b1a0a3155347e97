//! The root filesystem and what is mounted below it.

use super::support::{Fixture, block_on, build_rootfs};
use berth_shim::init::RootfsMount;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

fn add_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn root_the_default_mounts_devices_and_links_are_there() {
    let fixture = Fixture::new();
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
        for l in fd stdin ptmx; do readlink /dev/$l; done; echo x > /dev/null; head -c 3 /dev/zero | wc -c; \
        mount | grep -c -E ' on /(proc|sys|dev/(mqueue|pts|shm)) '";
    let (code, output) = fixture.run(script, |_| {});
    assert_eq!((code, output.as_str()), (0, "/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n3\n5\n"));
}

#[test]
fn root_masked_paths_are_empty_and_read_only_paths_cannot_be_written() {
    let fixture = Fixture::new();
    let script = "cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; touch /sys/firmware/x; echo 1 > /proc/sys/kernel/panic; echo 1 > /proc/irq/default_smp_affinity";
    let (code, output) = fixture.run(script, |_| {});
    assert_ne!(code, 0);
    assert!(output.starts_with("0\n0\n"), "{output}");
    assert_eq!(output.matches("Read-only file system").count(), 3, "{output}");
}

#[test]
fn root_a_read_only_root_can_still_be_written_on_other_mounts() {
    let fixture = Fixture::new();
    let (_, output) = fixture.run("touch /x; touch /dev/shm/ok && ls /dev/shm", |spec| {
        spec["root"]["readonly"] = json!(true);
    });
    assert!(output.contains("/x: Read-only file system") && output.ends_with("ok\n"), "{output}");
}

#[test]
fn root_binds_are_made_of_files_and_directories_with_their_options() {
    let fixture = Fixture::new();
    let host = fixture.path("host");
    fs::create_dir_all(host.join("sub")).unwrap();
    fs::write(host.join("file"), "from the host\n").unwrap();
    let script =
        "cat /data/file /etc/one; touch /data/x; touch /rw/x; grep -E ' /(data|rw) ' /proc/self/mountinfo";
    let (_, output) = fixture.run(script, |spec| {
        add_mount(spec, json!({ "destination": "/data", "type": "bind", "source": host, "options": ["rbind", "ro", "nosuid", "nodev", "noexec"] }));
        add_mount(spec, json!({ "destination": "/etc/one", "source": host.join("file"), "options": ["bind", "ro"] }));
        add_mount(spec, json!({ "destination": "/rw", "type": "bind", "source": host.join("sub"), "options": ["rbind", "rw", "rslave"] }));
    });
    assert!(
        output.starts_with("from the host\nfrom the host\ntouch: /data/x: Read-only file system\n"),
        "{output}"
    );
    assert!(output.contains("/data ro,nosuid,nodev,noexec"), "{output}");
    assert!(host.join("sub/x").exists());
}

#[test]
fn root_recursive_read_only_reaches_submounts_and_plain_read_only_does_not() {
    let fixture = Fixture::new();
    let host = fixture.path("host");
    fs::create_dir_all(host.join("sub")).unwrap();
    nix::mount::mount(
        Some("t"),
        &host.join("sub"),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let (_, output) =
        fixture.run("touch /ro/sub/a && echo plain; touch /rro/sub/b || echo recursive", |spec| {
            add_mount(
                spec,
                json!({ "destination": "/ro", "type": "bind", "source": host, "options": ["rbind", "ro"] }),
            );
            add_mount(
                spec,
                json!({ "destination": "/rro", "type": "bind", "source": host, "options": ["rbind", "rro"] }),
            );
        });
    nix::mount::umount(&host.join("sub")).unwrap();
    assert_eq!(output, "plain\ntouch: /rro/sub/b: Read-only file system\nrecursive\n");
}

#[test]
fn root_propagation_reaches_the_container_only_where_asked_for() {
    let fixture = Fixture::new();
    let host = fixture.path("host");
    fs::create_dir_all(host.join("late")).unwrap();
    nix::mount::mount(Some(&host), &host, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
    nix::mount::mount(None::<&str>, &host, None::<&str>, nix::mount::MsFlags::MS_SHARED, None::<&str>)
        .unwrap();
    let output = block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |spec| {
            for kind in ["rprivate", "rslave", "rshared"] {
                add_mount(spec, json!({ "destination": format!("/{kind}"), "type": "bind", "source": host, "options": ["rbind", kind] }));
            }
        });
        let running = running.await.unwrap().start().await;
        nix::mount::mount(
            Some("t"),
            &host.join("late"),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        let (_, output) = running.sh("grep -o ' /r[a-z]*/late ' /proc/self/mountinfo | sort").await;
        running.end();
        output
    });
    nix::mount::umount(&host.join("late")).unwrap();
    nix::mount::umount(&host).unwrap();
    assert_eq!(output, " /rshared/late \n /rslave/late \n");
}

#[test]
fn root_links_in_the_image_never_lead_a_mount_to_the_host() {
    let fixture = Fixture::new();
    let outside = fixture.path("outside");
    fs::create_dir_all(&outside).unwrap();
    let image = fixture.image();
    let up = format!("{}{}", "../".repeat(20), outside.display());
    symlink(&up, image.join("relative")).unwrap();
    symlink(&outside, image.join("absolute")).unwrap();
    symlink(outside.join("deeper/file"), image.join("dangling")).unwrap();
    let source = fixture.path("source");
    fs::write(&source, "bound\n").unwrap();
    let (_, output) = fixture.run("cat /relative/a /absolute/b /dangling", |spec| {
        for destination in ["/relative/a", "/absolute/b", "/dangling", "/../../up"] {
            add_mount(
                spec,
                json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind"] }),
            );
        }
    });
    assert_eq!(output, "bound\n".repeat(3));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn root_proc_is_not_mounted_where_a_link_leads() {
    let fixture = Fixture::new();
    fs::remove_dir(fixture.image().join("proc")).unwrap();
    symlink("/tmp", fixture.image().join("proc")).unwrap();
    let error = fixture.fail(&["/bin/true"], |_| {});
    assert!(error.to_string().contains("which a symlink leads to"), "{error}");
}

#[test]
fn root_an_overlay_of_sixty_layers() {
    let fixture = Fixture::new();
    let mut layers = vec![];
    for number in 0..60 {
        // Together longer than one page.
        let layer = fixture.path(&format!("{:0>64}", number));
        fs::create_dir_all(layer.join("layers")).unwrap();
        fs::write(layer.join(format!("layers/{number}")), "").unwrap();
        layers.push(layer);
    }
    build_rootfs(&layers[59]);
    let rootfs = fixture.overlay("c1", &layers);
    let (code, output) = block_on(async {
        let container =
            fixture.create_on("c1", &rootfs, &["/bin/sh", "-c", "ls /layers | wc -l"], |_| {}).await.unwrap();
        container.finish().await.unwrap()
    });
    assert_eq!((code, output.as_str()), (0, "60\n"));
}

#[test]
fn root_a_rootfs_can_be_a_bind_or_a_directory_of_the_bundle() {
    let fixture = Fixture::new();
    let bind = RootfsMount {
        kind: "bind".into(),
        source: fixture.image().display().to_string(),
        options: vec!["rbind".into(), "ro".into()],
        ..RootfsMount::default()
    };
    let image = fixture.image();
    block_on(async {
        let script = ["/bin/sh", "-c", "touch /x || echo read-only"];
        let container = fixture.create_on("c1", &[bind], &script, |_| {}).await.unwrap();
        let (_, output) = container.finish().await.unwrap();
        assert!(output.ends_with("read-only\n"), "{output}");
        let container =
            fixture.create_on("c2", &[], &script, |spec| spec["root"]["path"] = json!(image)).await.unwrap();
        assert_eq!(container.finish().await.unwrap(), (0, String::new()));
    });
    assert!(image.join("x").exists());
}

#[test]
fn root_devices_of_the_spec_are_made_with_owner_and_mode() {
    let fixture = Fixture::new();
    let (_, output) = fixture.run("stat -c '%t:%T %u %g %a' /dev/mine; cat /dev/mine", |spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8 }]);
    });
    assert_eq!(output, "1:3 7 8 640\n");
}

#[test]
fn root_cgroups_are_seen_from_the_containers_own_and_cannot_be_written() {
    let fixture = Fixture::new();
    let (_, output) = fixture.run("ls /sys/fs/cgroup; cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null; touch /sys/fs/cgroup/x", |_| {});
    assert!(output.contains("\n1\n"), "{output}");
    assert!(output.ends_with("touch: /sys/fs/cgroup/x: Read-only file system\n"), "{output}");
}
