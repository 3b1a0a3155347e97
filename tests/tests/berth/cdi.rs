use std::{fs, path::Path, sync::mpsc, time::Duration};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::{pod, shell},
};
use serde_json::json;
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::bad_input::assert_says;

/// Starts a daemon with two CDI directories of its own, `first` and `second`.
async fn start() -> (Berth, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let dirs = ["first", "second"].map(|name| directory.path().join(name));
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    (Berth::start_with(&format!("[cdi]\ndirs = {dirs:?}\n")).await, directory)
}

fn describe(directory: &Path, file: &str, content: &str) {
    fs::write(directory.join(file), content).unwrap();
}

struct Making<'a> {
    berth: &'a mut Berth,
    sandbox: v1::PodSandboxConfig,
    pod: String,
    image: String,
}

impl<'a> Making<'a> {
    async fn begin(berth: &'a mut Berth) -> Self {
        let image = berth.busybox().await;
        let sandbox = pod(berth, "cdi");
        let pod = berth.run(&sandbox).await.unwrap();
        Self { berth, sandbox, pod, image }
    }

    /// Creates and starts a container with these CDI devices.
    async fn container(&mut self, name: &str, devices: &[&str]) -> Result<String, Status> {
        let mut config = shell(name, &self.image, "exec sleep 1000");
        config.cdi_devices = devices.iter().map(|name| v1::CdiDevice { name: (*name).into() }).collect();
        self.start(config).await
    }

    async fn start(&mut self, config: v1::ContainerConfig) -> Result<String, Status> {
        let id = self.berth.create(&self.pod, &self.sandbox, config).await?;
        self.berth.start_container(&id).await?;
        Ok(id)
    }
}

/// CDI spec of /dev/net/tun, a device that a container may not open by default.
const TUN: &str = r#"
cdiVersion: "0.7.0"
kind: vendor.com/net
containerEdits:
  env: [VENDOR=everyone]
devices:
- name: tun
  containerEdits:
    env: [DEVICE=tun]
    deviceNodes:
    - {path: /dev/vendor/tun, hostPath: /dev/net/tun, permissions: r, fileMode: 0640, uid: 7, gid: 8}
    - {path: /dev/vendor/shut, type: c, major: 10, minor: 229, permissions: none}
    additionalGids: [4444]
- name: described
  containerEdits:
    deviceNodes:
    - {path: /dev/described, type: c, major: 10, minor: 200}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn root_a_device_is_seen_in_the_container_as_its_vendor_describes_it() {
    let (mut berth, directory) = start().await;
    describe(directory.path(), "first/net.yaml", TUN);
    let library = directory.path().join("library");
    fs::create_dir(&library).unwrap();
    fs::write(library.join("version"), "1.2.3\n").unwrap();
    let mount = json!({"hostPath": library, "containerPath": "/opt/vendor", "options": ["ro", "rbind"]});
    let library = json!({
        "cdiVersion": "1.0.0", "kind": "vendor.com/library",
        "devices": [{"name": "all", "containerEdits": {"mounts": [mount]}}],
    });
    describe(directory.path(), "second/library.json", &library.to_string());

    let mut making = Making::begin(&mut berth).await;
    let bare = making.container("bare", &[]).await.unwrap();
    let id = making.container("given", &["vendor.com/net=tun", "vendor.com/library=all"]).await.unwrap();
    let said = berth
        .shell(&id, "ls -ln /dev/vendor/tun; id -G; echo $VENDOR $DEVICE; cat /opt/vendor/version")
        .await;
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words[..6], ["crw-r-----", "1", "7", "8", "10,", "200"], "{said}");
    assert!(said.contains("4444\n") && said.ends_with("everyone tun\n1.2.3\n"), "{said}");
    assert!(berth.shell(&id, "touch /opt/vendor/new").await.contains("Read-only"));

    // The device cgroup lets `tun` only be read, and `shut` not even that.
    let open = "for node in tun shut; do true < /dev/vendor/$node && echo $node read; \
                true > /dev/vendor/$node && echo $node written; done 2>/dev/null";
    assert_eq!(berth.shell(&id, open).await, "tun read\n");
    assert_eq!(berth.shell(&bare, "echo $VENDOR$DEVICE; ls /dev/vendor 2>/dev/null").await, "\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_devices_may_be_named_by_annotations_too_and_files_are_read_anew() {
    let (mut berth, directory) = start().await;
    let mut making = Making::begin(&mut berth).await;
    assert!(making.container("early", &["vendor.com/net=described"]).await.is_err());
    describe(directory.path(), "first/net.yaml", TUN);
    let mut config = shell("noted", &making.image, "exec sleep 1000");
    let names = "vendor.com/net=described,vendor.com/net=tun".into();
    config.annotations.insert("cdi.k8s.io/vendor_0".into(), names);
    let id = making.start(config).await.unwrap();
    let open = "true < /dev/described && true > /dev/described && ls /dev/vendor/tun";
    assert_eq!(making.berth.shell(&id, open).await, "/dev/vendor/tun\n");

    // The later directory wins, for each device by itself.
    describe(directory.path(), "second/net.yaml", &TUN.replace("DEVICE=tun", "DEVICE=other"));
    let id = making.container("later", &["vendor.com/net=tun"]).await.unwrap();
    assert_eq!(making.berth.shell(&id, "echo $DEVICE").await, "other\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_device_that_cannot_be_given_is_named_with_where_it_was_looked_for() {
    let (mut berth, directory) = start().await;
    describe(directory.path(), "first/net.yaml", TUN);
    describe(directory.path(), "first/broken.json", r#"{"cdiVersion": "1.0.0", "kind": "vendor.com/other"}"#);
    let unsupported = json!({
        "cdiVersion": "1.1.0", "kind": "vendor.com/rdt", "devices": [
            {"name": "rdt", "containerEdits": {"intelRdt": {"closID": "a"}}},
            {"name": "gone", "containerEdits": {"deviceNodes": [{"path": "/dev/no-such"}]}},
        ],
    });
    describe(directory.path(), "second/rdt.json", &unsupported.to_string());
    let mut making = Making::begin(&mut berth).await;
    let wanted: [(&str, Code, &[&str]); 5] = [
        ("vendor.com/other=0", Code::NotFound, &["first", "second", "broken.json", "devices"]),
        ("vendor.com/net=none", Code::NotFound, &["vendor.com/net=none"]),
        ("vendor.com/rdt=rdt", Code::FailedPrecondition, &["intelRdt", "rdt.json"]),
        ("vendor.com/rdt=gone", Code::FailedPrecondition, &["/dev/no-such", "rdt.json"]),
        ("/dev/null", Code::InvalidArgument, &["CDI_devices[0]"]),
    ];
    for (device, code, words) in wanted {
        assert_says(
            &making.container("wrong", &[device]).await.unwrap_err(),
            code,
            &[&[device], words].concat(),
        );
    }
    // Nothing is left of the refused containers, and a broken file does not affect devices of other files.
    making.container("wrong", &["vendor.com/net=tun"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_file_that_never_opens_does_not_hold_up_the_end_of_the_daemon() {
    let (mut berth, directory) = start().await;
    let fifo = directory.path().join("first/hangs.json");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut making = Making::begin(&mut berth).await;
    let devices = making.container("c", &["vendor.com/net=tun"]);
    assert!(tokio::time::timeout(Duration::from_secs(1), devices).await.is_err(), "it is waited for");
    let (ended, ending) = mpsc::channel();
    let let_go = std::thread::spawn(move || {
        let late = ending.recv_timeout(Duration::from_secs(12)).is_err();
        // Opening the other end of the FIFO lets the daemon's open return.
        drop(fs::File::options().read(true).write(true).open(fifo));
        late
    });
    assert!(berth.terminate().success());
    let _ = ended.send(());
    assert!(!let_go.join().unwrap(), "the daemon waited for the file");
    drop(directory);
    berth.restart().await;
}
