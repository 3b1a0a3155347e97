//! Where the cgroups of pods are made, and which ones Berth must not remove.

use std::{fs, path::PathBuf};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::{pod, shell},
    waiting::until,
};
use nix::sys::signal::{Signal, kill};

use crate::restart::shim_of;

/// A cgroup made for a pod by the caller, as kubelet does. Dropping it removes it if it is empty.
struct Parent(String);

impl Parent {
    fn new(name: &str) -> Self {
        let parent = Self(format!("/berth-tests-{}-{name}", std::process::id()));
        parent.directories().iter().for_each(|directory| fs::create_dir(directory).unwrap());
        parent
    }

    /// Directories of the cgroup, in each hierarchy with controllers.
    fn directories(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let of_kind = |kind: &str| -> Vec<String> {
            let lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            lines.filter(|fields| fields[2] == kind).map(|fields| fields[1].to_owned()).collect()
        };
        let v1 = of_kind("cgroup");
        let roots = if v1.is_empty() { of_kind("cgroup2") } else { v1 };
        roots.iter().map(|root| PathBuf::from(format!("{root}{}", self.0))).collect()
    }

    /// Number of hierarchies in which a container's cgroup is directly below this one.
    fn groups_of(&self, container: &str) -> usize {
        self.directories().iter().filter(|directory| directory.join(container).exists()).count()
    }

    /// Runs a pod below this cgroup, with a running container. Returns the ids of both.
    async fn pod(&self, berth: &mut Berth, name: &str, image: &str) -> (String, String) {
        let mut sandbox = pod(berth, name);
        sandbox.linux =
            Some(v1::LinuxPodSandboxConfig { cgroup_parent: self.0.clone(), ..Default::default() });
        let pod = berth.run(&sandbox).await.unwrap();
        let id = berth.create(&pod, &sandbox, shell(name, image, "exec sleep 1000")).await.unwrap();
        berth.start_container(&id).await.unwrap();
        (pod, id)
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for directory in self.directories() {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pods_end_leaves_the_callers_group_and_its_neighbours() {
    let parent = Parent::new("stop");
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (first, a) = parent.pod(&mut berth, "first", &image).await;
    let (second, b) = parent.pod(&mut berth, "second", &image).await;
    let hierarchies = parent.directories().len();
    assert_eq!((parent.groups_of(&a), parent.groups_of(&b)), (hierarchies, hierarchies));
    berth.stop_pod(&first).await.unwrap();
    berth.remove_pod(&first).await.unwrap();
    assert_eq!(parent.groups_of(&a), 0);
    assert_eq!(berth.shell(&b, "echo lives").await, "lives\n");
    berth.remove_pod(&second).await.unwrap();
    assert_eq!(parent.groups_of(&b), 0);
    assert!(parent.directories().iter().all(|directory| directory.exists()), "kubelet's group is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_clean_up_after_a_dead_shim_leaves_the_callers_group_and_its_neighbours() {
    let parent = Parent::new("death");
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (first, a) = parent.pod(&mut berth, "first", &image).await;
    let (_, b) = parent.pod(&mut berth, "second", &image).await;
    kill(shim_of(&first), Signal::SIGKILL).unwrap();
    berth.ended(&a).await;
    until("the dead shim's group is removed", || parent.groups_of(&a) == 0).await;
    berth.remove_pod(&first).await.unwrap();
    assert_eq!(berth.shell(&b, "echo lives").await, "lives\n");
    berth.remove_all_pods().await;
    assert!(parent.directories().iter().all(|directory| directory.exists()), "kubelet's group is gone");
}
