use std::{
    fs,
    path::{Path, PathBuf},
};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::{pod, shell},
    waiting::eventually,
};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{Pid, Resource, Rlimit, prlimit},
};
use tonic::{Code, Status};

/// Makes every kind of call that can run out of something: a pod, a container, an exec, and their removal.
async fn whole_life(berth: &mut Berth, image: &str, name: &str) -> Result<(), Status> {
    let sandbox = pod(berth, name);
    let id = berth.run(&sandbox).await?;
    let container = berth.create(&id, &sandbox, shell("c", image, "sleep 1000")).await?;
    berth.start_container(&container).await?;
    berth.exec(&container, &["true"]).await?;
    berth.stop_container(&container, 0).await?;
    berth.remove_container(&container).await?;
    berth.stop_pod(&id).await?;
    berth.remove_pod(&id).await
}

/// Directories of pods and containers on disk.
fn left(berth: &Berth) -> Vec<PathBuf> {
    let inside = |directory: &str| {
        let entries = fs::read_dir(berth.path().join(directory)).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with("filler"))
            .collect::<Vec<_>>()
    };
    ["run/containers", "run/sandboxes", "root/containers"].into_iter().flat_map(inside).collect()
}

async fn nothing_is_left(berth: &mut Berth) {
    berth.remove_all_pods().await;
    let listed = berth.runtime.list_containers(v1::ListContainersRequest::default()).await.unwrap();
    assert!(listed.into_inner().containers.is_empty());
    // The daemon tries again what it could not undo at once.
    eventually(async || left(berth), Vec::is_empty).await;
}

fn limit_descriptors(berth: &Berth, soft: Option<u64>) -> Rlimit {
    let pid = Pid::from_raw(berth.pid().try_into().unwrap());
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: soft.or(hard), maximum: hard }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_without_descriptors_calls_fail_with_the_cause_and_leave_nothing() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    whole_life(&mut berth, &image, "before").await.unwrap();
    let open = fs::read_dir(format!("/proc/{}/fd", berth.pid())).unwrap().count() as u64;
    let mut failed = 0;
    for spare in (0..12).chain([16, 24]) {
        limit_descriptors(&berth, Some(open + spare));
        let lived = whole_life(&mut berth, &image, &format!("spare-{spare}")).await;
        limit_descriptors(&berth, None);
        if let Err(error) = lived {
            failed += 1;
            assert!(error.message().contains("Too many open files"), "{spare} to spare: {error}");
        }
        nothing_is_left(&mut berth).await;
    }
    assert!(failed > 0, "it never ran out of descriptors");
    whole_life(&mut berth, &image, "after").await.unwrap();
}

/// A full file system: a tmpfs of one page, which is in use. Dropping it unmounts it.
struct Full(PathBuf);

impl Full {
    fn at(path: &Path) -> Self {
        mount("full", path, "tmpfs", MountFlags::empty(), Some(c"size=4096,mode=700")).unwrap();
        fs::write(path.join("filler"), [0; 4096]).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_on_a_full_disk_calls_fail_with_the_cause_and_leave_nothing() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    for (place, pods) in [("run/sandboxes", false), ("run/containers", true)] {
        let full = Full::at(&berth.path().join(place));
        let error = whole_life(&mut berth, &image, "full").await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{place}: {error}");
        assert!(error.message().contains("No space left on device"), "{place}: {error}");
        let listed = berth.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().items.len(), usize::from(pods), "{place}");
        nothing_is_left(&mut berth).await;
        drop(full);
        whole_life(&mut berth, &image, "again").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_containers_get_the_limit_of_descriptors_that_the_daemon_was_given() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("limits", &image, "sleep 1000").await;
    let given = rustix::process::getrlimit(Resource::Nofile);
    let of_daemon = limit_descriptors(&berth, None);
    assert_eq!(of_daemon, Rlimit { current: given.maximum, ..given }, "raised to the hard limit");
    let soft = given.current.unwrap().to_string();
    assert_eq!(berth.shell(&id, "ulimit -Sn").await.trim(), soft);
    berth.remove_all_pods().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_command_that_prints_more_than_an_answer_holds_is_cut() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("loud", &image, "sleep 1000").await;
    let script = "head -c 17000000 /dev/zero; head -c 17000000 /dev/zero >&2";
    let request = v1::ExecSyncRequest {
        container_id: id,
        cmd: ["sh", "-c", script].map(str::to_owned).into(),
        timeout: 60,
    };
    let mut client = berth.runtime.clone().max_decoding_message_size(16 << 20);
    let said = client.exec_sync(request).await.unwrap().into_inner();
    assert_eq!(said.exit_code, 0);
    assert!(said.stdout.len() > 8_000_000 && said.stderr.len() > 8_000_000);
    berth.remove_all_pods().await;
}
