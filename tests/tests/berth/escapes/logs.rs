use std::fs;

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::{pod, shell},
};
use tonic::Code;

use super::{Host, empty_dir, symlink, volume};

/// An absolute log path, or one with `..`, that leads out of the pod's log directory.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_log_path_does_not_lead_out_of_the_pods_directory() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "path");
    let pod = berth.run(&sandbox).await.unwrap();
    for path in [host.path("secret"), "../../of-the-host/secret".into(), "a/../../../of-the-host/new".into()]
    {
        let mut config = shell("c", &image, "echo overwritten");
        config.log_path = path;
        let refused = berth.create(&pod, &sandbox, config).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    host.assert_untouched();
}

/// A container that has its pod's logs in a volume, as log collectors do, replaces a log or a directory on the way to it by
/// a link. Its output would be appended to any file of the host, by root.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_log_that_is_a_link_is_not_written_to() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "link");
    let logs = berth.path().join("logs/link");
    fs::create_dir_all(&logs).unwrap();
    let pod = berth.run(&sandbox).await.unwrap();
    symlink(host.path("secret"), logs.join("file.log")).unwrap();
    symlink(host.path("new"), logs.join("dangling.log")).unwrap();
    symlink(&host.directory, logs.join("directory")).unwrap();
    for path in ["file.log", "dangling.log", "directory/secret", "directory/new/c.log"] {
        let mut config = shell("c", &image, "echo overwritten");
        config.log_path = path.into();
        let refused = berth.create(&pod, &sandbox, config).await;
        assert!(refused.is_err(), "{path}");
        host.assert_untouched();
    }
}

/// The same while the container runs: the link would be followed when the log is reopened after its rotation.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_log_that_becomes_a_link_is_not_written_to_after_its_rotation() {
    let mut berth = Berth::start().await;
    let host = Host::new(&berth);
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "rotated");
    let pod = berth.run(&sandbox).await.unwrap();
    for (name, path, swap) in [
        (
            "file",
            "file.log",
            format!("rm /logs/file.log; busybox ln -s {} /logs/file.log", host.path("secret")),
        ),
        (
            "directory",
            "directory/secret",
            format!(
                "busybox mv /logs/directory /logs/moved; busybox ln -s {} /logs/directory",
                host.directory.display()
            ),
        ),
    ] {
        let mut config = shell(name, &image, "while :; do echo overwritten; sleep 0.01; done");
        config.log_path = path.into();
        config.mounts = vec![volume("/logs", &berth.path().join("logs/rotated"))];
        let id = berth.create(&pod, &sandbox, config).await.unwrap();
        berth.start_container(&id).await.unwrap();
        assert_eq!(berth.shell(&id, &swap).await, "");
        let request = v1::ReopenContainerLogRequest { container_id: id.clone() };
        assert!(berth.runtime.reopen_container_log(request).await.is_err(), "{name}");
        berth.stop_container(&id, 0).await.unwrap();
        host.assert_untouched();
    }
}

/// The log directory itself may be a link: it belongs to the caller, not to the container.
#[tokio::test(flavor = "multi_thread")]
async fn root_the_callers_log_directory_may_be_a_link() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let elsewhere = empty_dir(&berth, "elsewhere");
    symlink(&elsewhere, berth.path().join("logs")).unwrap();
    let (_, id) = berth.run_alone("moved", &image, "echo printed").await;
    berth.ended(&id).await;
    assert_eq!(berth.log_of("moved", "moved"), [("stdout".into(), "printed".into())]);
    assert!(elsewhere.join("moved/moved.log").is_file());
    let shown = berth.status(&id).await.unwrap().log_path;
    assert_eq!(shown, berth.path().join("logs/moved/moved.log").display().to_string());
}
