use std::{fs, path::Path};

use berth_cri::v1;
use berth_tests::{berth::Berth, pod::pod};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::{
    ESCAPED, Entry, Host, ROUNDS, Swapping, assert_held, attempt, empty_dir, entries, ordinary, symlink,
    volume,
};

/// Script that reports masked paths that can be read and read-only paths that can be written.
const PROBE_SCRIPT: &str = "
    for path in /proc/keys /proc/timer_list; do
        [ -n \"$(head -c 1 $path)\" ] && echo ESCAPED: $path can be read
    done
    [ -n \"$(ls /sys/firmware)\" ] && echo ESCAPED: /sys/firmware can be read
    for path in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/keys; do
        [ -c $path ] || ! (: >> $path) || echo ESCAPED: $path can be written to
    done
    true";

/// Fails if the host lacks the files that PROBE_SCRIPT tries to read, since PROBE_SCRIPT would then find nothing wrong.
fn check_host() {
    for path in ["/proc/keys", "/proc/timer_list"] {
        assert!(!fs::read(path).unwrap().is_empty(), "{path} of this host is empty");
    }
}

fn null(path: &Path) {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3)).unwrap();
}

/// CVE-2025-31133: files are masked by a bind mount of `/dev/null`, which is taken from the container's own `/dev`. An image
/// or a volume makes it a link, so that the link's target is mounted, writable, on a masked path; or leaves it out, and
/// nothing is masked at all.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2025_31133_paths_are_hidden_whatever_dev_null_is() {
    check_host();
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "null");
    let pod = berth.run(&sandbox).await.unwrap();
    for kind in ["absent", "file", "directory", "parameter", "trigger", "dangling", "/dev"] {
        let dev = empty_dir(&berth, &format!("dev-{}", kind.trim_matches('/')));
        match kind {
            "file" => fs::write(dev.join("null"), "").unwrap(),
            "directory" => fs::create_dir(dev.join("null")).unwrap(),
            "parameter" => symlink("/proc/sys/kernel/core_pattern", dev.join("null")).unwrap(),
            "trigger" => symlink("/proc/sysrq-trigger", dev.join("null")).unwrap(),
            "dangling" => symlink("/nowhere", dev.join("null")).unwrap(),
            "/dev" => symlink("/dev", dev.join("null")).unwrap(),
            _ => {}
        }
        let mut config = ordinary("c", &image, PROBE_SCRIPT);
        config.mounts = vec![volume("/dev", &dev)];
        let outcome = attempt(&mut berth, &sandbox, &pod, config).await;
        assert_held(kind, &outcome);
    }
}

/// CVE-2025-31133, as a race: `/dev/null` is the device when it is checked, and a link when it is mounted.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2025_31133_paths_are_hidden_while_dev_null_is_swapped() {
    check_host();
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let dev = empty_dir(&berth, "dev");
    null(&dev.join("null"));
    symlink("/proc/sys/kernel/core_pattern", dev.join("other")).unwrap();
    let sandbox = pod(&berth, "swapped");
    let pod = berth.run(&sandbox).await.unwrap();
    let _neighbour = Swapping::between(dev.join("null"), dev.join("other"));
    for round in 0..ROUNDS {
        let mut config = ordinary("c", &image, PROBE_SCRIPT);
        config.mounts = vec![volume("/dev", &dev)];
        let outcome = attempt(&mut berth, &sandbox, &pod, config).await;
        assert_held(&format!("round {round}"), &outcome);
    }
}

/// CVE-2025-52565: the terminal is bind-mounted on `/dev/console`, by name and before paths are masked. If the container's
/// `/dev` or `/dev/pts` is a volume, either end may be a link to a kernel parameter, or to files of the host.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2025_52565_the_console_is_a_terminal_or_there_is_no_container() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "console");
    let pod = berth.run(&sandbox).await.unwrap();
    let secret = host.path("secret");
    for (name, target) in [("parameter", "/proc/sys/kernel/core_pattern"), ("host", secret.as_str())] {
        let (dev, pts) =
            (empty_dir(&berth, &format!("dev-{name}")), empty_dir(&berth, &format!("pts-{name}")));
        symlink(target, dev.join("console")).unwrap();
        symlink("/dev/pts/ptmx", dev.join("ptmx")).unwrap();
        fs::create_dir(dev.join("pts")).unwrap();
        for directory in [&dev.join("pts"), &pts] {
            mknodat(
                CWD,
                directory.join("ptmx"),
                FileType::CharacterDevice,
                Mode::from_raw_mode(0o666),
                makedev(5, 2),
            )
            .unwrap();
            (0..10).for_each(|number| symlink(target, directory.join(number.to_string())).unwrap());
        }
        let console = format!(
            "for path in /dev/console /proc/sys/kernel/core_pattern; do \
                 [ -c $path ] || ! (: >> $path) || echo {ESCAPED}: $path can be written to; \
             done; true"
        );
        for mounts in [vec![volume("/dev", &dev)], vec![volume("/dev/pts", &pts)]] {
            let mut config = ordinary("c", &image, &console);
            config.tty = true;
            config.mounts = mounts;
            let outcome = attempt(&mut berth, &sandbox, &pod, config).await;
            assert_held(name, &outcome);
            host.assert_untouched();
        }
    }
}

/// CVE-2019-16884 and CVE-2025-52881: the runtime's writes to procfs for a container (labels, sysctls, oom_score_adj) go to
/// a volume that the image or the caller has put at `/proc`: they have no effect, or, through links in that volume, another
/// file is written. Here the volume is shared with a neighbour that also swaps two of its links.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2025_52881_writes_to_procfs_are_not_led_elsewhere() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    let image = berth.busybox().await;
    let proc = empty_dir(&berth, "proc");
    for (directory, file) in [
        ("sys/net/ipv4", "ip_unprivileged_port_start"),
        ("self", "oom_score_adj"),
        ("self/attr", "exec"),
        ("self/attr/apparmor", "exec"),
        ("swapped", "oom_score_adj"),
    ] {
        fs::create_dir_all(proc.join(directory)).unwrap();
        symlink(host.path("secret"), proc.join(directory).join(file)).unwrap();
    }
    let parts = ["sys/net/ipv4", "self/attr"].map(|part| proc.join(part));
    let before = parts.each_ref().map(|part| entries(part));
    let mut sandbox = pod(&berth, "written");
    let sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "81".to_owned())];
    sandbox.linux.as_mut().unwrap().sysctls = sysctls.into();
    let pod = berth.run(&sandbox).await.unwrap();
    let swapping = Swapping::between(proc.join("self/oom_score_adj"), proc.join("swapped/oom_score_adj"));
    for round in 0..ROUNDS / 2 {
        let mut config = ordinary("c", &image, "true");
        let resources = v1::LinuxContainerResources { oom_score_adj: 500, ..Default::default() };
        config.linux.as_mut().unwrap().resources = Some(resources);
        config.mounts = vec![volume("/proc", &proc)];
        let outcome = attempt(&mut berth, &sandbox, &pod, config).await;
        assert_held(&format!("round {round}"), &outcome);
        host.assert_untouched();
    }
    drop(swapping);
    assert_eq!(parts.each_ref().map(|part| entries(part)), before);
    let said = attempt(
        &mut berth,
        &sandbox,
        &pod,
        ordinary("c", &image, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"),
    );
    assert_eq!(said.await.unwrap(), "81\n");
}

/// CVE-2019-16884, by the image: it declares a volume at `/proc`, which a runtime that honours it mounts over procfs, so
/// that masks find nothing to cover. procfs must stay, and the host's parameters be unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2019_16884_a_volume_that_the_image_declares_does_not_replace_proc() {
    check_host();
    let mut berth = Berth::start().await;
    let mut image = berth_tests::image::Image::busybox();
    image.config["Volumes"] =
        serde_json::json!({ "/proc": {}, "/proc/self/attr": {}, "/sys": {}, "/dev": {} });
    let image = super::pushed(&mut berth, "declares", &image).await;
    let sandbox = pod(&berth, "declares");
    let pod = berth.run(&sandbox).await.unwrap();
    let parameter = Path::new("/proc/sys/kernel/core_pattern");
    let before = Entry::of(parameter).content;
    let script = format!("grep -c '^proc /proc ' /proc/mounts; {PROBE_SCRIPT}");
    let outcome = attempt(&mut berth, &sandbox, &pod, ordinary("c", &image, &script)).await;
    let said = outcome.unwrap();
    assert!(said.lines().any(|line| line == "1") && !said.contains(ESCAPED), "{said}");
    assert_eq!(Entry::of(parameter).content, before);
}
