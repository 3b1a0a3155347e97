//! What becomes of any profile of a file.

use oci_spec::runtime::Capability;

use super::*;

/// Reads a profile and chooses its rules for a container that may do nothing, and one that may do much. What there
/// is then is what their shim is told, as JSON.
pub fn seccomp(text: &str) -> Vec<String> {
    let Ok(profile) = Profile::parse(text) else { return Vec::new() };
    let much = Capabilities::from([Capability::SysAdmin, Capability::NetAdmin, Capability::SysPtrace]);
    let containers = [
        Container { capabilities: Capabilities::default(), kernel: (3, 10) },
        Container { capabilities: much, kernel: (6, 18) },
    ];
    containers.iter().filter_map(|one| serde_json::to_string(&profile.chosen_for(one)).ok()).collect()
}
