//! What the shim can do as an OCI runtime, in the form of the OCI specification's features structure. containerd's CRI tells
//! by it which pods it may ask for.

use crate::init::{capability_names, mount_options};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::json;

/// Under which containerd knows the structure.
const TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// What is left out is not said, for instance what the kernel decides.
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
