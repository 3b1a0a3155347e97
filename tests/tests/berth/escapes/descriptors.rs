use std::os::unix::fs::symlink;

use berth_tests::{
    berth::Berth,
    pod::{pod, shell},
};

use super::{ESCAPED, Host, SECRET, assert_held, attempt, empty_dir, volume};

/// Numbers that descriptors of the host may have in the process that becomes a container.
const DESCRIPTORS: std::ops::Range<u32> = 3..32;

/// Script that reaches the host's files from a working directory outside the container's root.
fn climb(host: &Host) -> String {
    let up = "../".repeat(12);
    format!(
        "cat ./{up}{secret}; {up}{program}",
        secret = &host.path("secret")[1..],
        program = &host.path("program")[1..]
    )
}

/// CVE-2024-21626: a working directory of `/proc/self/fd/N` is a directory of the host, if the runtime still has one open
/// as N when it changes to it.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2024_21626_a_working_directory_does_not_lead_through_a_descriptor() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "directory");
    let pod = berth.run(&sandbox).await.unwrap();
    for number in DESCRIPTORS {
        let mut config = shell("c", &image, &climb(&host));
        config.working_dir = format!("/proc/self/fd/{number}");
        let outcome = attempt(&mut berth, &sandbox, &pod, config).await;
        assert_held(&format!("descriptor {number}"), &outcome);
    }
    host.assert_untouched();
}

/// CVE-2024-21626, in runtimes that create a missing working directory: through a descriptor of the host's `/proc` and the
/// `root` link of a process in it, the directory is created at any place of the host.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2024_21626_a_missing_working_directory_is_not_made_on_the_host() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "made");
    let pod = berth.run(&sandbox).await.unwrap();
    for number in DESCRIPTORS {
        for way in
            [format!("{}/root{}", std::process::id(), host.path("made")), host.path("made")[1..].to_owned()]
        {
            let mut config = shell("c", &image, &climb(&host));
            config.working_dir = format!("/proc/self/fd/{number}/{way}");
            let outcome = attempt(&mut berth, &sandbox, &pod, config).await;
            assert_held(&format!("descriptor {number}"), &outcome);
            host.assert_untouched();
        }
    }
}

/// CVE-2024-21626, by exec: the container's working directory is replaced by a link to a descriptor before an exec, or the
/// path of the command leads through one.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2024_21626_an_exec_is_not_led_through_a_descriptor() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    let image = berth.busybox().await;
    let shared = empty_dir(&berth, "shared");
    let sandbox = pod(&berth, "exec");
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = shell("c", &image, "exec sleep 1000");
    config.working_dir = "/shared/directory".into();
    config.mounts = vec![volume("/shared", &shared)];
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    let directory = shared.join("directory");
    std::fs::remove_dir(&directory).unwrap();
    let climb = climb(&host);
    for number in DESCRIPTORS {
        symlink(format!("/proc/self/fd/{number}"), &directory).unwrap();
        let program = format!("/proc/self/fd/{number}/{}/root{}", std::process::id(), host.path("program"));
        for command in [vec!["sh", "-c", climb.as_str()], vec![program.as_str()]] {
            let Ok(done) = berth.exec(&id, &command).await else { continue };
            let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
            assert!(!said.contains(ESCAPED) && !said.contains(SECRET), "descriptor {number}: {said}");
        }
        std::fs::remove_file(&directory).unwrap();
    }
    host.assert_untouched();
}
