//! The features structure of the OCI specification. containerd's CRI reads from it which pods the shim supports.

use crate::init::{capability_names, mount_options};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::json;

/// Type URL of the structure.
const TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Members that are left out are unspecified, for instance those that depend on the kernel.
pub(super) fn features() -> Any {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "mountOptions": mount_options(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": capability_names(),
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {"enabled": true},
            "apparmor": {"enabled": true},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
    });
    Any { type_url: TYPE_URL.into(), value: features.to_string().into_bytes(), ..Default::default() }
}
