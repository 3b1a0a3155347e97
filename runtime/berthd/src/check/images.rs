//! The image store: its own consistency, and the layers that containers hold.

use super::{Finding, Inventory, remedy::Remedy};
use crate::{
    container::container_of,
    error::{Result, of_image},
};

/// Finds directories that the index does not know, missing layers, and leases whose container does not exist.
pub(super) fn disagreements(inventory: &Inventory) -> Result<Vec<Finding>> {
    let root = inventory.config.image_root();
    let found = berth_image::inspect(&root).map_err(|error| of_image("inspect the images", error))?;
    let mut findings: Vec<_> = found.broken.into_iter().map(Finding::new).collect();
    findings.extend(found.unknown.into_iter().map(|path| {
        let what = format!("the image index does not know {}", path.display());
        Finding::repairable(what, Remedy::RemoveDirectory(path))
    }));
    let lost = found.holders.iter().filter(|holder| !inventory.records.has_container(container_of(holder)));
    findings.extend(
        lost.map(|holder| Finding::new(format!("layers are held for {holder}, which is not on record"))),
    );
    let holds = |id: &str| found.holders.iter().any(|holder| holder == id);
    let with_layers = inventory
        .records
        .containers
        .iter()
        .filter(|(_, container)| found.layered.contains(&container.image_id));
    let lacking = with_layers.filter(|(id, _)| !holds(id));
    findings.extend(
        lacking.map(|(id, _)| Finding::new(format!("container {id} does not hold the layers of its image"))),
    );
    Ok(findings)
}
