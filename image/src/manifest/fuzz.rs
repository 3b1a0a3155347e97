//! Invariants of the parser for any document of a registry.

use super::*;

const TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Takes two documents with a zero byte between them: a manifest or an index, and an image configuration.
pub fn manifest(data: &[u8]) {
    let mut documents = data.splitn(2, |byte| *byte == 0);
    let (first, second) = (documents.next().unwrap_or_default(), documents.next().unwrap_or_default());
    let wanted = Platform::new("linux", "arm64", "v8");
    let parsed = TYPES.map(|media_type| Document::parse(first, media_type, "", &wanted).ok());
    let configuration = Configuration::parse(second).ok();
    for document in parsed.into_iter().flatten() {
        match document {
            Document::Index(fitting) => assert!(!fitting.is_empty()),
            Document::Image(manifest) => check_image(&manifest, configuration.as_ref(), &wanted),
        }
    }
}

fn check_image(manifest: &Manifest, configuration: Option<&Configuration>, wanted: &Platform) {
    assert!(manifest.layers.len() <= MAX_LAYERS);
    assert!(manifest.layers.iter().all(|layer| layer.size <= manifest.size()));
    let Some(Ok(diff_ids)) = configuration.map(|it| it.diff_ids(manifest, wanted)) else { return };
    let chain = chain_ids(diff_ids);
    assert_eq!(chain.len(), manifest.layers.len());
    assert_eq!(chain.first(), diff_ids.first());
}
