//! Container escapes known from other runtimes, each attempted in full. A container may be refused, or run and see only its
//! own files; the tests fail only if something of the host was read or changed.

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

/// Working directories and commands that lead through the runtime's descriptors.
mod descriptors;
/// The shim's own binary.
mod executable;
/// Symlinks in images and volumes, also swapped while a container is made.
mod links;
/// Log paths that lead out of the log directory.
mod logs;
/// Masked paths in /proc and /sys, and the runtime's own writes to procfs.
mod masks;
/// Limits of local users of the host and of users in the container.
mod privileges;

/// Content of the host's file that an attack tries to read.
const SECRET: &str = "only the host knows this";
/// Word that an attack prints when it has worked.
const ESCAPED: &str = "ESCAPED";
/// Containers made while a neighbour swaps their files.
const ROUNDS: u32 = 20;

/// A directory of the host that no container is given. An attack that works would read or change it.
struct Host {
    directory: PathBuf,
    before: BTreeMap<PathBuf, Entry>,
}

/// Metadata and content of a file or directory.
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

    /// Absolute path of a file in the directory, which need not exist.
    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Fails if anything in the directory has changed.
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

/// A neighbour that shares a volume: exchanges two names in it (RENAME_EXCHANGE) in a loop, until dropped.
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

/// Makes a directory that stands for a pod's emptyDir.
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

/// Config of a container with the masked and read-only paths that kubelet asks for by default.
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

/// Runs a container to its end, removes it, and returns its output, or why it was refused.
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

/// Fails if an attack has worked or has read the host's file. A refused container has not.
fn assert_held(attack: &str, outcome: &Result<String, Status>) {
    if let Ok(said) = outcome {
        assert!(!said.contains(ESCAPED) && !said.contains(SECRET), "{attack}: {said}");
    }
}
