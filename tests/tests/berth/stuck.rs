//! Containers, shims, registries and disks that hang, refuse or flood. They may delay their own pod only: its calls fail
//! with the true cause, everything else goes on, and once the cause is gone nothing has to be cleaned up by hand.

use std::{fs, path::Path};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    image::{Image, Layer, Tar},
    pod::{pod, shell},
    waiting::eventually,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
};
use tonic::Code;

use crate::restart::shim_of;

/// Longer than the longest record of a log, in bytes.
const LINE: u64 = 17 << 10;

/// Asserts that another pod can be run, logs, and can be removed.
async fn the_node_goes_on(berth: &mut Berth, image: &str, name: &str) {
    let (pod, id) = berth.run_alone(name, image, "echo fine").await;
    assert_eq!(berth.ended(&id).await.exit_code, 0);
    assert_eq!(berth.log_of(name, name), [("stdout".into(), "fine".into())]);
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_ignores_its_stop_signal_is_killed_when_its_time_is_over() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let deaf = "trap '' TERM; echo deaf; while :; do sleep 1; done";
    let (pod, id) = berth.run_alone("deaf", &image, deaf).await;
    let log = async || berth.log_of("deaf", "deaf");
    eventually(log, |lines| lines.len() == 1).await;
    berth.stop_container(&id, 1).await.unwrap();
    assert_eq!(berth.status(&id).await.unwrap().exit_code, 137);
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_stands_still_is_stopped_all_the_same() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) =
        berth.run_alone("still", &image, "sleep 1000 & kill -STOP $!; kill -STOP $$; sleep 1000").await;
    // A shell that is not stopped yet would end by SIGTERM, as it should.
    eventually(async || states_of(&id), |states| states == "TT").await;
    berth.stop_container(&id, 1).await.unwrap();
    assert_eq!(berth.status(&id).await.unwrap().exit_code, 137);
    the_node_goes_on(&mut berth, &image, "beside").await;
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_has_used_up_its_processes_is_stopped_with_all_of_them() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "forks");
    let pod = berth.run(&sandbox).await.unwrap();
    // A shell that cannot fork exits. The first process does not fork, so the container runs on.
    let endless = "(sleep 1; while :; do sleep 7654399 & done 2>/dev/null) & exec sleep 7654399";
    let id = berth.create(&pod, &sandbox, shell("forks", &image, endless)).await.unwrap();
    berth.start_container(&id).await.unwrap();
    limit_processes(&id, 32);
    let full = async || processes_of(&id);
    // The shell that could not fork has exited, which leaves room for one more process.
    eventually(full, |running| *running == 31).await;
    limit_processes(&id, 31);
    let refused = berth.exec(&id, &["sh", "-c", "true & wait"]).await;
    assert!(refused.is_err() || refused.as_ref().is_ok_and(|said| said.exit_code != 0), "{refused:?}");
    the_node_goes_on(&mut berth, &image, "beside").await;
    berth.stop_container(&id, 0).await.unwrap();
    assert_eq!(berth.status(&id).await.unwrap().exit_code, 137);
    assert_eq!(processes_of(&id), 0);
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_shim_that_never_answers_costs_its_own_pod_alone_and_is_used_again_once_it_does() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("silent", &image, "exec sleep 1000").await;
    let shim = shim_of(&pod);
    kill(shim, Signal::SIGSTOP).unwrap();
    assert_eq!(berth.status(&id).await.unwrap().state(), v1::ContainerState::ContainerRunning);
    the_node_goes_on(&mut berth, &image, "beside").await;
    let error = berth.exec(&id, &["true"]).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    kill(shim, Signal::SIGCONT).unwrap();
    assert_eq!(berth.shell(&id, "echo back").await, "back\n");
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_registry_that_stalls_holds_up_its_own_pull_alone() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let layer = Tar::default().file("large", 0o644, &vec![7; 1 << 20]);
    let stalled = berth_tests::registry::Registry::start().await;
    let reference = stalled.push("stalled:1", &Image::of([Layer::plain(layer)])).await;
    kill(stalled.pid(), Signal::SIGSTOP).unwrap();
    let request = v1::PullImageRequest {
        image: Some(v1::ImageSpec { image: reference.clone(), ..Default::default() }),
        ..Default::default()
    };
    let mut images = berth.images.clone();
    let waiting = tokio::spawn(async move { images.pull_image(request).await });
    the_node_goes_on(&mut berth, &image, "beside").await;
    let other = berth.registry.push("other:1", &Image::busybox()).await;
    berth.pull(&other).await.unwrap();
    assert!(!waiting.is_finished());
    kill(stalled.pid(), Signal::SIGCONT).unwrap();
    waiting.await.unwrap().unwrap();
    berth.pull(&reference).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_whose_log_has_no_room_left_goes_on_and_is_logged_again_once_there_is() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let small = SmallDisk::mount(&berth.path().join("small"), 1);
    let mut sandbox = pod(&berth, "full");
    sandbox.log_directory = small.0.display().to_string();
    let pod = berth.run(&sandbox).await.unwrap();
    let script = "head -c 4000000 /dev/zero | tr '\\0' x; echo; touch /done; while [ ! -e /go ]; do sleep 0.05; done; echo again";
    let id = berth.create(&pod, &sandbox, shell("full", &image, script)).await.unwrap();
    berth.start_container(&id).await.unwrap();
    // A line is written whole or not at all, so less than one line stays free.
    eventually(async || small.free(), |free| *free < LINE).await;
    // The shim reads the container's output even without room in the log: the script goes on.
    let mut client = berth.runtime.clone();
    let done = async || {
        let cmd = ["test", "-e", "/done"].map(str::to_owned).to_vec();
        let request = v1::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 10 };
        client.exec_sync(request).await.unwrap().into_inner().exit_code
    };
    eventually(done, |code| *code == 0).await;
    the_node_goes_on(&mut berth, &image, "beside").await;
    fs::File::options().write(true).open(small.0.join("full.log")).unwrap().set_len(0).unwrap();
    berth.shell(&id, "touch /go").await;
    assert_eq!(berth.ended(&id).await.exit_code, 0);
    let log = fs::read_to_string(small.0.join("full.log")).unwrap();
    assert!(log.ends_with(" stdout F again\n"), "{:?}", log.chars().rev().take(200).collect::<String>());
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_fills_the_daemons_disk_is_removed_and_the_disk_is_free_again() {
    // Declared before `berth`, so that it is unmounted after the daemon has ended.
    let disk;
    let mut berth = Berth::start().await;
    berth.kill();
    disk = SmallDisk::mount(&berth.path().join("root"), 64);
    berth.restart().await;
    let image = berth.busybox().await;
    let (small, id) = berth.run_alone("small", &image, "exec sleep 1000").await;
    let fills = "cat /dev/zero > /zeros; exec sleep 1000";
    let (large, _) = berth.run_alone("large", &image, fills).await;
    eventually(async || disk.free(), |free| *free == 0).await;

    let mut other = Image::busybox();
    other.layers.push(Layer::plain(Tar::default().file("large", 0o644, &vec![7; 1 << 20])));
    let other = berth.registry.push("other:1", &other).await;
    let error = berth.pull(&other).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    let sandbox = pod(&berth, "more");
    if let Ok(more) = berth.run(&sandbox).await {
        let error = berth.create(&more, &sandbox, shell("more", &image, "true")).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    }
    // Running containers go on, and a daemon can start.
    assert_eq!(berth.shell(&id, "echo here").await, "here\n");
    berth.kill();
    berth.restart().await;
    assert_eq!(berth.shell(&id, "echo still").await, "still\n");

    berth.remove_pod(&large).await.unwrap();
    assert!(disk.free() > 16 << 20);
    the_node_goes_on(&mut berth, &image, "beside").await;
    berth.remove_pod(&small).await.unwrap();
    berth.remove_all_pods().await;
    // The daemon's directory cannot be removed while the disk is mounted there. Stopped, not killed, the daemon has removed
    // its bridge: the next one would not know of it without the disk.
    assert!(berth.terminate().success());
    drop(disk);
}

/// A small tmpfs. Dropping it unmounts it.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u32) -> Self {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
        Self(at.into())
    }

    /// Free space in bytes.
    fn free(&self) -> u64 {
        let found = nix::sys::statvfs::statvfs(&self.0).unwrap();
        found.blocks_available() * found.block_size()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// Sets pids.max of a container's cgroup, as kubelet's pod limit would.
fn limit_processes(id: &str, most: u32) {
    let group = cgroup_of(id, "pids");
    fs::write(group.join("pids.max"), most.to_string()).unwrap();
}

fn processes_of(id: &str) -> usize {
    pids_of(id).len()
}

fn pids_of(id: &str) -> Vec<String> {
    let group = find(Path::new("/sys/fs/cgroup/pids"), id);
    let listed = group.and_then(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
    listed.unwrap_or_default().lines().map(Into::into).collect()
}

/// State letters of a container's processes: proc_pid_stat(5).
fn states_of(id: &str) -> String {
    let stats =
        pids_of(id).into_iter().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect()
}

fn cgroup_of(id: &str, controller: &str) -> std::path::PathBuf {
    let hierarchy = Path::new("/sys/fs/cgroup").join(controller);
    find(&hierarchy, id).unwrap_or_else(|| panic!("no cgroup of {id} below {}", hierarchy.display()))
}

fn find(below: &Path, name: &str) -> Option<std::path::PathBuf> {
    let groups = fs::read_dir(below).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    groups.into_iter().find_map(|path| match path.file_name()?.to_str()?.contains(name) {
        true => Some(path),
        false => find(&path, name),
    })
}
