//! Annotations that identify a container to hooks and to other runtimes' shims, under the names that containerd's CRI
//! plugin sets.

use std::collections::HashMap;

use super::Inputs;
use crate::pod::config::PodMetadata;

/// The pod's uid.
pub(crate) const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";

/// Returns the annotations of a pod, which its containers have too.
pub(crate) fn of_pod(metadata: &PodMetadata) -> [(String, String); 3] {
    [
        ("io.kubernetes.cri.sandbox-name".into(), metadata.name.clone()),
        ("io.kubernetes.cri.sandbox-namespace".into(), metadata.namespace.clone()),
        (SANDBOX_UID.into(), metadata.uid.clone()),
    ]
}

pub(super) fn build(inputs: &Inputs<'_>) -> HashMap<String, String> {
    let container = inputs.container;
    let own = [
        ("io.kubernetes.cri.container-name".to_owned(), container.metadata.name.clone()),
        ("io.kubernetes.cri.image-name".to_owned(), container.image.clone()),
    ];
    of_pod(&inputs.pod.metadata).into_iter().chain(own).collect()
}
