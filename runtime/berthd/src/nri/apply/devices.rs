//! Device nodes, and the cgroup rules that allow their use.

use berth_nri::nri::{self, LinuxDeviceCgroup, OptionalFileMode, OptionalInt64, OptionalUInt32};
use oci_spec::runtime::{self as oci, LinuxDevice, LinuxDeviceType, Spec};

use super::{linux_of, parse, removed};
use crate::{error::Result, nri::convert::Optional};

/// Removes and adds nodes; an added one may be read, written and made (mknod).
pub(super) fn adjust(spec: &mut Spec, wanted: &[nri::LinuxDevice]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let linux = linux_of(spec);
    let devices = linux.devices_mut().get_or_insert_default();
    for device in wanted {
        let place = removed(&device.path).unwrap_or(&device.path);
        devices.retain(|one| one.path().as_os_str() != place);
    }
    let mut allowed = Vec::new();
    for device in wanted.iter().filter(|device| removed(&device.path).is_none()) {
        let device = described(device)?;
        allowed.push(oci::LinuxDeviceCgroup::from(&device));
        devices.push(device);
    }
    let limits = linux.resources_mut().get_or_insert_default();
    limits.devices_mut().get_or_insert_default().extend(allowed);
    Ok(())
}

fn described(wanted: &nri::LinuxDevice) -> Result<LinuxDevice> {
    let kind: LinuxDeviceType = parse("a device's type", &wanted.type_)?;
    let mut device = LinuxDevice::default();
    device
        .set_path(wanted.path.clone().into())
        .set_typ(kind)
        .set_major(wanted.major)
        .set_minor(wanted.minor)
        .set_file_mode(OptionalFileMode::get(&wanted.file_mode))
        .set_uid(OptionalUInt32::get(&wanted.uid))
        .set_gid(OptionalUInt32::get(&wanted.gid));
    Ok(device)
}

/// Appends rules of the device controller.
pub(super) fn add_rules(spec: &mut Spec, wanted: &[LinuxDeviceCgroup]) -> Result<()> {
    let rules = wanted.iter().map(rule).collect::<Result<Vec<_>>>()?;
    let limits = linux_of(spec).resources_mut().get_or_insert_default();
    limits.devices_mut().get_or_insert_default().extend(rules);
    Ok(())
}

fn rule(wanted: &LinuxDeviceCgroup) -> Result<oci::LinuxDeviceCgroup> {
    let kind = if wanted.type_.is_empty() { "a" } else { &wanted.type_ };
    let mut rule = oci::LinuxDeviceCgroup::default();
    rule.set_allow(wanted.allow)
        .set_typ(Some(parse("a device rule's type", kind)?))
        .set_major(OptionalInt64::get(&wanted.major))
        .set_minor(OptionalInt64::get(&wanted.minor))
        .set_access(Some(wanted.access.clone()));
    Ok(rule)
}
