//! The ways out of containers that are known from other runtimes, each gone as it was gone there, to the end. What decides is the host:
//! a container may be refused, or run in a world of its own making, but nothing of the host's is read or changed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    image::{Image, Layer, Tar},
    pod::shell,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tonic::Status;

/// Working directories and commands that lead through descriptors.
mod descriptors;
/// The shim's own program.
mod executable;
/// Symlinks in images and volumes, and those that are swapped while a container is made.
mod links;
/// Logs that lead elsewhere.
mod logs;
/// What is hidden in /proc and /sys, and who writes there.
mod masks;
/// What local users and the container's own users may do.
mod privileges;

/// What the host's file holds that an attack tries to read.
const SECRET: &str = "only the host knows this";
/// What an attack prints that has got through.
const ESCAPED: &str = "ESCAPED";
/// How often a container is made while somebody swaps what it is made of.
const ROUNDS: u32 = 20;

/// A directory of the host that no container is given: what an attack that works would read, or leave something in.
struct Host {
    directory: PathBuf,
    before: BTreeMap<PathBuf, Entry>,
}

/// A file or directory as it is.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    changed: (i64, i64),
    content: Vec<u8>,
}

impl Host {
    fn new(berth: &Berth) -> Self {
        let directory = berth.path().join("of-the-host");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("secret"), SECRET).unwrap();
        fs::write(directory.join("program"), format!("#!/bin/sh\necho {ESCAPED}\n")).unwrap();
        fs::set_permissions(directory.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
        let before = entries(&directory);
        Self { directory, before }
    }

    /// The absolute path of one of its files, or of one that is not there.
    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Fails when anything about it is not as it was.
    fn assert_untouched(&self) {
        assert_eq!(entries(&self.directory), self.before, "the host's files were changed");
    }
}

fn entries(directory: &Path) -> BTreeMap<PathBuf, Entry> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.chain([directory.to_owned()]).map(|path| (path.clone(), Entry::of(&path))).collect()
}

impl Entry {
    fn of(path: &Path) -> Self {
        let found = fs::symlink_metadata(path).unwrap();
        Self {
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            changed: (found.mtime(), found.mtime_nsec()),
            content: fs::read(path).unwrap_or_default(),
        }
    }
}

/// The neighbour that shares a volume: exchanges two names in it as fast as can be, until dropped.
struct Swapping {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Swapping {
    fn between(one: PathBuf, other: PathBuf) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut swaps = 0;
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let swaps = self.thread.take().map(|thread| thread.join().unwrap_or(0));
        assert!(std::thread::panicking() || swaps > Some(0), "nobody swapped anything");
    }
}

/// A directory that stands for a pod's emptyDir.
fn empty_dir(berth: &Berth, name: &str) -> PathBuf {
    let path = berth.path().join(name);
    fs::create_dir(&path).unwrap();
    path
}

fn volume(container_path: &str, host_path: &Path) -> v1::Mount {
    v1::Mount {
        container_path: container_path.into(),
        host_path: host_path.display().to_string(),
        ..Default::default()
    }
}

/// Pushes and pulls busybox with one more layer.
async fn image_with(berth: &mut Berth, name: &str, layer: Tar) -> String {
    let mut image = Image::busybox();
    image.layers.push(Layer::gzip(layer));
    pushed(berth, name, &image).await
}

async fn pushed(berth: &mut Berth, name: &str, image: &Image) -> String {
    let reference = berth.registry.push(&format!("{name}:1"), image).await;
    berth.pull(&reference).await.unwrap()
}

/// A container as the kubelet asks for it: with the paths hidden and read-only that Kubernetes has by default.
fn ordinary(name: &str, image: &str, script: &str) -> v1::ContainerConfig {
    let paths = |words: &str| words.split_whitespace().map(str::to_owned).collect();
    let mut config = shell(name, image, script);
    config.linux.as_mut().unwrap().security_context = Some(v1::LinuxContainerSecurityContext {
        masked_paths: paths(
            "/proc/asound /proc/acpi /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list \
             /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware",
        ),
        readonly_paths: paths("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"),
        ..Default::default()
    });
    config
}

/// Runs a container to its end and returns what it printed, or why there was none. It is removed again.
async fn attempt(
    berth: &mut Berth,
    sandbox: &v1::PodSandboxConfig,
    pod: &str,
    config: v1::ContainerConfig,
) -> Result<String, Status> {
    let name = config.metadata.as_ref().unwrap().name.clone();
    let id = berth.create(pod, sandbox, config).await?;
    let started = berth.start_container(&id).await;
    if started.is_ok() {
        berth.ended(&id).await;
    }
    let lines = berth.log_of(&sandbox.metadata.as_ref().unwrap().name, &name);
    berth.remove_container(&id).await.unwrap();
    started.map(|()| lines.into_iter().map(|(_, line)| line + "\n").collect())
}

/// Fails when an attack has got through, or has read the host's file. One that was refused has not.
fn assert_held(attack: &str, outcome: &Result<String, Status>) {
    if let Ok(said) = outcome {
        assert!(!said.contains(ESCAPED) && !said.contains(SECRET), "{attack}: {said}");
    }
}
