//! Fuzzing of profiles in files.

use oci_spec::runtime::Capability;

use super::*;

/// Parses a profile and chooses its rules for a container without capabilities and for one with several. Returns the
/// filters as JSON.
pub fn seccomp(text: &str) -> Vec<String> {
    let Ok(profile) = Profile::parse(text) else { return Vec::new() };
    let much = Capabilities::from([Capability::SysAdmin, Capability::NetAdmin, Capability::SysPtrace]);
    let containers = [
        Container { capabilities: Capabilities::default(), kernel: (3, 10) },
        Container { capabilities: much, kernel: (6, 18) },
    ];
    containers.iter().filter_map(|one| serde_json::to_string(&profile.chosen_for(one)).ok()).collect()
}
