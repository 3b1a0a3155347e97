//! The daemon: version, readiness and features.

use berth_cri::v1;

use berth_network::NotReady;

use crate::spec::HostFeatures;

/// Version of the CRI that is served.
const API_VERSION: &str = "v1";

/// Returns name and version.
pub(crate) fn version() -> v1::VersionResponse {
    v1::VersionResponse {
        version: "0.1.0".to_owned(), // version of kubelet's runtime API, never changed
        runtime_name: "berth".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: API_VERSION.to_owned(),
    }
}

/// Returns the two conditions that kubelet requires. A `disturbance` is reported with the network's condition and does
/// not make it false.
pub(crate) fn runtime_status(network: Option<NotReady>, disturbance: Option<NotReady>) -> v1::RuntimeStatus {
    let condition = |r#type: &str, status: bool, about: Option<NotReady>| v1::RuntimeCondition {
        r#type: r#type.to_owned(),
        status,
        reason: about.as_ref().map(|about| about.reason.to_owned()).unwrap_or_default(),
        message: about.map(|about| about.message).unwrap_or_default(),
    };
    let is_ready = network.is_none();
    v1::RuntimeStatus {
        conditions: vec![
            condition("RuntimeReady", true, None),
            condition("NetworkReady", is_ready, network.or(disturbance)),
        ],
    }
}

/// Returns the features of pods under each runtime handler.
pub(crate) fn handlers<'a>(
    handlers: impl Iterator<Item = (&'a str, HostFeatures)>,
) -> Vec<v1::RuntimeHandler> {
    let handler = |(name, features): (&str, HostFeatures)| v1::RuntimeHandler {
        name: name.to_owned(),
        features: Some(v1::RuntimeHandlerFeatures {
            recursive_read_only_mounts: features.recursive_readonly,
            user_namespaces: features.user_namespaces,
        }),
    };
    handlers.map(handler).collect()
}

/// Returns the features that pods have under any handler.
pub(crate) fn features(host: HostFeatures) -> v1::RuntimeFeatures {
    v1::RuntimeFeatures {
        supplemental_groups_policy: true,
        user_namespaces_host_network: host.user_namespaces,
        mount_options: true,
    }
}

/// Names the cgroup driver; kubelet must use the same one.
pub(crate) fn runtime_config() -> v1::RuntimeConfigResponse {
    let cgroup_driver = v1::CgroupDriver::Cgroupfs.into();
    v1::RuntimeConfigResponse { linux: Some(v1::LinuxRuntimeConfiguration { cgroup_driver }) }
}
