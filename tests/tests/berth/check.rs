//! `berthd check` against a daemon's real directories, mounts, cgroups and leases.

use std::{
    fs,
    path::{Path, PathBuf},
};

use berth_tests::berth::Berth;
use nix::mount::{MsFlags, mount};

/// An id that no pod has.
const NOBODY: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

/// A file or directory that was moved away.
struct Moved {
    from: PathBuf,
    to: PathBuf,
}

impl Moved {
    fn away(from: PathBuf, to: PathBuf) -> Self {
        fs::rename(&from, &to).unwrap();
        Self { from, to }
    }

    fn back(self) {
        fs::rename(self.to, self.from).unwrap();
    }
}

fn only_entry(directory: &Path) -> PathBuf {
    let entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [only] = entries.as_slice() else { panic!("not one in {}: {entries:?}", directory.display()) };
    only.clone()
}

/// The daemon's cgroup, in a hierarchy where it has one.
fn group_of(berth: &Berth) -> PathBuf {
    let name = berth.path().file_name().unwrap();
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    hierarchies.map(|hierarchy| hierarchy.join(name)).find(|group| group.is_dir()).expect("a group of pods")
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_does_not_agree_is_named_and_what_is_safe_is_mended() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("checked", &image, "exec sleep 1000").await;
    assert_eq!(berth.check(&[]), [""; 0], "beside a daemon that runs");
    berth.kill();

    let path = berth.path().to_owned();
    let leases = only_entry(&path.join("root/network"));
    let layers = path.join("root/images/layers");
    let layer = Moved::away(only_entry(&layers), path.join("layer"));
    let lease = Moved::away(leases.join(format!("{pod}.json")), path.join("lease"));
    let stray_lease = leases.join(format!("{NOBODY}.json"));
    fs::write(&stray_lease, "{}").unwrap();
    let stray_layer = layers.join(NOBODY);
    let staged = path.join("root/images/staging/1000");
    let stray_group = group_of(&berth).join(NOBODY);
    let mounted = path.join("run/containers").join(&id).join("mounted");
    for directory in [&stray_layer, &staged, &stray_group, &mounted] {
        fs::create_dir(directory).unwrap();
    }
    mount(Some("tmpfs"), &mounted, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();

    let found = berth.check(&[]);
    let shown = |path: &Path| path.display().to_string();
    let expected = [
        format!("the image index does not know {}", shown(&stray_layer)),
        format!("the image index does not know {}", shown(&staged)),
        "is in the index and has no directory".into(),
        format!("pod {NOBODY} has addresses and is not on record"),
        format!("pod {pod} is ready and has no address"),
        "without a lease".into(),
        format!("control group of pod {NOBODY}, which is not on record: {}", shown(&stray_group)),
        format!("mounted on the host: {}", shown(&mounted)),
    ];
    for part in &expected {
        assert!(found.iter().any(|line| line.contains(part)), "{part}: {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");

    layer.back();
    lease.back();
    fs::remove_file(stray_lease).unwrap();
    let mended = berth.check(&["--repair"]);
    assert!(mended.len() == 4 && mended.iter().all(|line| line.ends_with("(mended)")), "{mended:#?}");
    assert_eq!(berth.check(&[]), [""; 0]);
    berth.restart().await;
    assert_eq!(berth.shell(&id, "echo here").await, "here\n");
    berth.remove_pod(&pod).await.unwrap();
}
