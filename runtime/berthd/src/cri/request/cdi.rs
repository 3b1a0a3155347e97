//! CDI devices of a container, by name.

use std::collections::HashMap;

use berth_cri::v1;

use super::field::invalid;
use crate::{cdi::DeviceName, error::Result};

/// Prefix of annotations that name CDI devices: device plugins used them before the CRI had a field.
const ANNOTATION_PREFIX: &str = "cdi.k8s.io/";

/// Returns each device once: those of the field first, then those of the annotations.
pub(super) fn devices(
    listed: Vec<v1::CdiDevice>,
    annotations: &HashMap<String, String>,
) -> Result<Vec<DeviceName>> {
    let listed = listed.into_iter().enumerate();
    let listed = listed.map(|(index, device)| (format!("config.CDI_devices[{index}].name"), device.name));
    let mut noted: Vec<_> =
        annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)).collect();
    noted.sort();
    let noted = noted.into_iter().flat_map(|(key, names)| {
        names.split(',').map(move |name| (format!("config.annotations[{key:?}]"), name.to_owned()))
    });
    let mut devices = Vec::new();
    for (field, name) in listed.chain(noted) {
        let device: DeviceName = name.parse().map_err(|why| invalid(&field, &name, why))?;
        if !devices.contains(&device) {
            devices.push(device);
        }
    }
    Ok(devices)
}
