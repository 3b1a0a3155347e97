//! Bundles for a foreign shim: the sandbox's own, and those of containers as the daemon wrote them, completed in terms
//! of the OCI specification with what Berth's own shim would derive itself.

use crate::bootstrap::program;
use crate::init::{CONTAINER_PREFIX, DEFAULT_SHM};
use crate::record;
use crate::spec::{Namespace, Spec};
use berth_shim_proto::berth_shim::SandboxOptions;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Annotations by which containerd's shims distinguish a pod's sandbox from its containers, and match them.
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
/// Symlink in a container's bundle to its pod's bundle.
const POD_LINK: &str = "pod";
/// Uid and gid of the pause process.
const NOBODY: u32 = 65535;

/// The sandbox of a pod, as its bundle describes it.
#[derive(Debug)]
pub(super) struct SandboxBundle<'a> {
    pub(super) id: &'a str,
    pub(super) bundle: &'a Path,
    /// Path of the network namespace; empty for the host's.
    pub(super) netns: &'a str,
    pub(super) options: &'a SandboxOptions,
}

impl SandboxBundle<'_> {
    /// Writes config.json and creates what else the foreign shim expects in a bundle.
    pub(super) fn write(&self) -> io::Result<()> {
        fs::create_dir_all(self.bundle.join("rootfs"))?;
        // Shims that use containerd's library open it for writing first of all.
        match mknodat(CWD, log(self.bundle), FileType::Fifo, Mode::from_raw_mode(0o600), 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        if !self.options.host_ipc {
            self.mount_shm()?;
        }
        let program = program::on_disk()?;
        fs::write(self.bundle.join("config.json"), self.spec(&program).to_string())
    }

    fn mount_shm(&self) -> io::Result<()> {
        let shm = shm(self.bundle);
        fs::create_dir_all(&shm)?;
        let size =
            if self.options.shm_size == 0 { DEFAULT_SHM } else { self.options.shm_size.unsigned_abs() };
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let data = CString::new(format!("mode=1777,size={size}"))?;
        Ok(mount("shm", &shm, "tmpfs", flags, data.as_c_str())?)
    }

    fn spec(&self, program: &Path) -> Value {
        let options = self.options;
        let hostname = if options.host_network { "" } else { &options.hostname };
        let user = json!({"uid": NOBODY, "gid": NOBODY});
        json!({
            "ociVersion": "1.1.0",
            "process": {"args": ["/pause", "pause"], "cwd": "/", "user": user, "noNewPrivileges": true},
            "root": {"path": "rootfs", "readonly": true},
            "hostname": hostname,
            "mounts": self.mounts(program),
            "annotations": self.annotations(),
            "linux": {
                "namespaces": self.namespaces(),
                "cgroupsPath": format!("{}/{}", options.cgroup_path.trim_end_matches('/'), self.id),
                "sysctl": options.sysctls,
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            },
        })
    }

    fn namespaces(&self) -> Vec<Value> {
        let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "pid"})];
        if !self.options.host_ipc {
            namespaces.push(json!({"type": "ipc"}));
        }
        if !self.netns.is_empty() {
            namespaces.push(json!({"type": "uts"}));
            namespaces.push(json!({"type": "network", "path": self.netns}));
        }
        namespaces
    }

    fn mounts(&self, program: &Path) -> Value {
        let shm = if self.options.host_ipc { PathBuf::from("/dev/shm") } else { shm(self.bundle) };
        let safe = ["nosuid", "noexec", "nodev"];
        json!([
            {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/shm", "type": "bind", "source": shm, "options": ["rbind", "nosuid", "noexec", "nodev"]},
            {"destination": "/pause", "type": "bind", "source": program, "options": ["rbind", "ro", "nosuid", "nodev"]},
        ])
    }

    fn annotations(&self) -> Value {
        let mut annotations = json!(self.options.annotations);
        annotations[CONTAINER_TYPE] = "sandbox".into();
        annotations[SANDBOX_ID] = self.id.into();
        annotations
    }
}

/// What a container takes from its pod.
#[derive(Debug)]
pub(super) struct PodAttributes<'a> {
    pub(super) id: &'a str,
    pub(super) bundle: &'a Path,
    /// First process of the sandbox.
    pub(super) pid: u32,
    pub(super) host_network: bool,
    pub(super) host_ipc: bool,
    /// The container whose PID namespace is joined, and its first process.
    pub(super) target: Option<(&'a str, u32)>,
}

/// Id of the container whose PID namespace a config.json joins.
pub(super) fn target_of(bundle: &Path) -> io::Result<Option<String>> {
    let spec: Spec = serde_json::from_slice(&fs::read(bundle.join("config.json"))?)?;
    let named = |namespace: &Namespace| namespace.path.strip_prefix(CONTAINER_PREFIX).map(str::to_owned);
    Ok(spec.linux.namespaces.iter().find_map(named))
}

impl PodAttributes<'_> {
    /// Adds the pod's namespaces, memory and annotations to a container's config.json, and links its bundle to the pod's.
    pub(super) fn complete(&self, bundle: &Path) -> io::Result<()> {
        let path = bundle.join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&path)?)?;
        self.name_target(&mut spec["linux"]["namespaces"]);
        self.join_namespaces(&mut spec["linux"]["namespaces"]);
        self.share_memory(&mut spec["mounts"]);
        spec["annotations"][CONTAINER_TYPE] = "container".into();
        spec["annotations"][SANDBOX_ID] = self.id.into();
        record::write(&path, &spec)?;
        match symlink(self.bundle, bundle.join(POD_LINK)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Replaces `container:ID`, which only Berth's own shim understands, by a path.
    fn name_target(&self, listed: &mut Value) {
        let Some((id, pid)) = self.target else { return };
        for namespace in listed.as_array_mut().into_iter().flatten() {
            if namespace["path"] == format!("{CONTAINER_PREFIX}{id}") {
                namespace["path"] = format!("/proc/{pid}/ns/pid").into();
            }
        }
    }

    /// Namespaces that are not listed are the pod's.
    fn join_namespaces(&self, listed: &mut Value) {
        let Some(listed) = listed.as_array_mut() else { return };
        let of_pod = [
            ("network", "net", self.host_network),
            ("uts", "uts", self.host_network),
            ("ipc", "ipc", self.host_ipc),
        ];
        for (kind, file, of_host) in of_pod {
            if !of_host && !listed.iter().any(|namespace| namespace["type"] == kind) {
                listed.push(json!({"type": kind, "path": format!("/proc/{}/ns/{file}", self.pid)}));
            }
        }
    }

    fn share_memory(&self, mounts: &mut Value) {
        for mount in mounts.as_array_mut().into_iter().flatten().filter(|mount| mount["type"] == "pod-shm") {
            let source = if self.host_ipc { PathBuf::from("/dev/shm") } else { shm(self.bundle) };
            *mount = json!({
                "destination": mount["destination"], "type": "bind", "source": source,
                "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev"],
            });
        }
    }
}

/// The pod's bundle, by a container's; `None` if it was never given to a foreign shim.
pub(super) fn pod_of(bundle: &Path) -> Option<PathBuf> {
    fs::read_link(bundle.join(POD_LINK)).ok()
}

/// The FIFO for a foreign shim's log.
pub(super) fn log(bundle: &Path) -> PathBuf {
    bundle.join("log")
}

fn shm(bundle: &Path) -> PathBuf {
    bundle.join("shm")
}

/// Unmounts everything that this process or a foreign shim mounted in a bundle. No error if there is nothing.
pub(super) fn unmount_all(bundle: &Path) {
    for path in [shm(bundle), bundle.join("rootfs")] {
        while unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    }
}

/// Removes the pod's cgroup, if empty, from hierarchies where the foreign runtime made it and Berth did not. A cgroup
/// not named after the pod belongs to the caller and stays.
pub(super) fn remove_cgroup(path: &str, id: &str) {
    let path = path.trim_matches('/');
    if !Path::new(path).ends_with(id) {
        return;
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        // Fails for cgroups in use and for entries that are no hierarchy; both stay.
        let _ = fs::remove_dir(hierarchy.path().join(path));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn pod_attributes(bundle: &Path) -> PodAttributes<'_> {
        PodAttributes { id: "p", bundle, pid: 7, host_network: false, host_ipc: false, target: None }
    }

    fn completed(pod: &PodAttributes<'_>, spec: &Value) -> Value {
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
        pod.complete(bundle.path()).unwrap();
        assert_eq!(pod_of(bundle.path()).as_deref(), Some(pod.bundle));
        let mode = fs::metadata(bundle.path().join("config.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds secrets");
        serde_json::from_slice(&fs::read(bundle.path().join("config.json")).unwrap()).unwrap()
    }

    #[test]
    fn a_container_joins_what_it_has_not_of_its_own() {
        let spec = json!({"linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}]}, "mounts": []});
        let namespaces = |pod: &PodAttributes<'_>| completed(pod, &spec)["linux"]["namespaces"].clone();
        let pod = pod_attributes(Path::new("/pod"));
        assert_eq!(
            namespaces(&pod),
            json!([
                {"type": "mount"}, {"type": "uts"},
                {"type": "network", "path": "/proc/7/ns/net"}, {"type": "ipc", "path": "/proc/7/ns/ipc"},
            ])
        );
        let host = PodAttributes { host_network: true, host_ipc: true, ..pod };
        assert_eq!(namespaces(&host), spec["linux"]["namespaces"]);
    }

    #[test]
    fn a_container_that_is_joined_is_named_by_its_process() {
        let spec = json!({"linux": {"namespaces": [{"type": "pid", "path": "container:abc"}]}, "mounts": []});
        let pod = PodAttributes { target: Some(("abc", 99)), ..pod_attributes(Path::new("/pod")) };
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
        assert_eq!(target_of(bundle.path()).unwrap().as_deref(), Some("abc"));
        let completed = completed(&pod, &spec);
        assert_eq!(completed["linux"]["namespaces"][0], json!({"type": "pid", "path": "/proc/99/ns/pid"}));
    }

    #[test]
    fn shared_memory_and_annotations_are_the_pods() {
        let mounts = json!([{"destination": "/dev/shm", "type": "pod-shm", "source": "shm"}, {"destination": "/x", "type": "tmpfs"}]);
        let spec = json!({"linux": {"namespaces": []}, "mounts": mounts, "annotations": {"own": "kept"}});
        let spec = completed(&pod_attributes(Path::new("/pod")), &spec);
        assert_eq!(spec["mounts"][0]["source"], "/pod/shm");
        assert_eq!(spec["mounts"][1], mounts[1]);
        assert_eq!(spec["annotations"], json!({"own": "kept", CONTAINER_TYPE: "container", SANDBOX_ID: "p"}));
    }

    #[test]
    fn the_sandbox_has_the_pods_network_and_new_namespaces_beside_it() {
        let options = SandboxOptions { hostname: "h".into(), cgroup_path: "/a".into(), ..Default::default() };
        let sandbox =
            SandboxBundle { id: "p", bundle: Path::new("/pod"), netns: "/run/netns/n", options: &options };
        let spec = sandbox.spec(Path::new("/bin/shim"));
        assert_eq!(spec["linux"]["cgroupsPath"], "/a/p");
        assert_eq!(spec["hostname"], "h");
        assert_eq!(spec["annotations"][CONTAINER_TYPE], "sandbox");
        let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
        assert!(namespaces.contains(&json!({"type": "network", "path": "/run/netns/n"})));
        assert!(namespaces.contains(&json!({"type": "ipc"})));
        let on_host = SandboxOptions { host_network: true, host_ipc: true, ..options.clone() };
        let sandbox = SandboxBundle { netns: "", options: &on_host, ..sandbox };
        assert_eq!(sandbox.namespaces(), [json!({"type": "mount"}), json!({"type": "pid"})]);
    }
}
