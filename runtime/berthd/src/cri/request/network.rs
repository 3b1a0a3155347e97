//! UpdateRuntimeConfig.

use berth_cri::v1;

use super::field::invalid;
use berth_network::Cidr;

use crate::error::Result;

/// Returns the address ranges of the node's pods, the main one first; may be empty.
pub(crate) fn pod_ranges(request: v1::UpdateRuntimeConfigRequest) -> Result<Vec<Cidr>> {
    let network = request.runtime_config.and_then(|config| config.network_config).unwrap_or_default();
    let range = |text: &str| {
        let text = text.trim();
        text.parse().map_err(|why| invalid("runtime_config.network_config.pod_cidr", text, why))
    };
    match network.pod_cidr.trim() {
        "" => Ok(Vec::new()),
        ranges => ranges.split(',').map(range).collect(),
    }
}
