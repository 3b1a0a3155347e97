//! Resolves a reference to the image for this machine: manifest, configuration, and the documents that led there.

use std::sync::Arc;

use super::{Puller, blocking, refused, unusable};
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Candidate, Configuration, Document, Manifest, ManifestError};
use crate::reference::Reference;
use crate::registry::{self, Credentials};

/// The most documents on the way from a name to an image, its manifest included: an index may lead to an index.
const MAX_DEPTH: usize = 3;

/// The most documents read for one name: an index need not state platforms, so that each entry may have to be tried.
const MAX_DOCUMENTS: usize = 32;

/// The most bytes an image configuration may have.
const MAX_CONFIGURATION_BYTES: u64 = 8 << 20;

/// A resolved reference.
pub(super) struct Resolved {
    pub(super) manifest: Manifest,
    /// Bytes of the configuration.
    pub(super) configuration: Vec<u8>,
    pub(super) diff_ids: Vec<Digest>,
    /// The documents on the way, beginning with the one the name stands for.
    pub(super) documents: Vec<registry::Manifest>,
}

/// A document still to be read, with those that led to it.
struct PendingDocument {
    candidate: Candidate,
    above: Vec<Arc<registry::Manifest>>,
}

/// Content of a document.
enum DocumentContent {
    Image(Manifest, Vec<u8>, Vec<Digest>),
    /// The documents it lists, the best first.
    Index(Vec<Candidate>),
}

impl Puller {
    /// Reads one document after the other, the best first, until one is an image for this machine. If none is, the
    /// first reason is returned.
    pub(super) async fn resolve(
        &self,
        image: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Resolved, Error> {
        let top = Arc::new(self.named(image, credentials).await?);
        let (mut unfit, mut looked_at) = (None, 1);
        let mut path = vec![top];
        let mut waiting = Vec::new();
        let mut described = String::new();
        loop {
            match self.look(image, &path, &described, credentials).await {
                Ok(DocumentContent::Image(manifest, configuration, diff_ids)) => {
                    let documents = path.into_iter().map(Arc::unwrap_or_clone).collect();
                    return Ok(Resolved { manifest, configuration, diff_ids, documents });
                }
                Ok(DocumentContent::Index(candidates)) => {
                    let next = |candidate| PendingDocument { candidate, above: path.clone() };
                    waiting.extend(candidates.into_iter().rev().map(next));
                }
                Err(error) if is_of_another_kind(&error) => {
                    unfit.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
            let Some(next) = waiting.pop().filter(|_| looked_at < MAX_DOCUMENTS) else {
                return Err(unfit.unwrap_or_else(|| nested(image, &path)));
            };
            looked_at += 1;
            let PendingDocument { candidate, above } = next;
            path = above;
            path.push(Arc::new(self.by_digest(image, &candidate.digest, credentials).await?));
            described = candidate.media_type;
        }
    }

    /// Reads the last document of `path`; `described` is the media type in the descriptor that led to it.
    async fn look(
        &self,
        image: &Reference,
        path: &[Arc<registry::Manifest>],
        described: &str,
        credentials: Option<&Credentials>,
    ) -> Result<DocumentContent, Error> {
        let Some(document) = path.last().filter(|_| path.len() <= MAX_DEPTH) else {
            return Err(nested(image, path));
        };
        let parsed = Document::parse(&document.bytes, described, &document.content_type, &self.platform)
            .map_err(|source| unusable("manifest", &document.digest, image, source))?;
        let manifest = match parsed {
            Document::Image(manifest) => manifest,
            Document::Index(candidates) => return Ok(DocumentContent::Index(candidates)),
        };
        let bytes = self.configuration(image, &manifest, credentials).await?;
        let unfit = |source| unusable("configuration", &manifest.config, image, source);
        let configuration = Configuration::parse(&bytes).map_err(unfit)?;
        let diff_ids = configuration.diff_ids(&manifest, &self.platform).map_err(unfit)?.to_vec();
        Ok(DocumentContent::Image(manifest, bytes, diff_ids))
    }

    /// Returns the document the name stands for. If it may be in the store, only its digest is asked for (HEAD), as
    /// registries count every GET as a pull. The registry is always asked, because it decides who may have the image.
    async fn named(
        &self,
        image: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<registry::Manifest, Error> {
        let may_be_here = match image.digest() {
            Some(digest) => self.stored(digest).await?.is_some(),
            None => self.store.knows_repository(image.name()),
        };
        if may_be_here {
            match self.registry.digest(image, credentials).await {
                Ok(digest) => {
                    if let Some(document) = self.stored(&digest).await? {
                        return Ok(document);
                    }
                }
                Err(error) if error.kind() == registry::Kind::Unavailable => {
                    return Err(refused("fetch the manifest", image)(error));
                }
                // Not every registry answers HEAD. The GET below reports the real error.
                Err(error) => tracing::debug!(%error, "cannot ask for the digest alone"),
            }
        }
        let fetched = self.registry.manifest(image, None, credentials).await;
        fetched.map_err(refused("fetch the manifest", image))
    }

    /// Returns a document by digest, from the store or the registry.
    async fn by_digest(
        &self,
        image: &Reference,
        digest: &Digest,
        credentials: Option<&Credentials>,
    ) -> Result<registry::Manifest, Error> {
        if let Some(document) = self.stored(digest).await? {
            return Ok(document);
        }
        let fetched = self.registry.manifest(image, Some(digest), credentials).await;
        fetched.map_err(refused("fetch the manifest", image))
    }

    async fn stored(&self, digest: &Digest) -> Result<Option<registry::Manifest>, Error> {
        let (store, named) = (Arc::clone(&self.store), digest.clone());
        let found = blocking("read manifest", move || store.manifest(&named)).await?;
        let digest = digest.clone();
        Ok(found.map(|bytes| registry::Manifest { bytes, content_type: String::new(), digest }))
    }

    /// Returns the bytes of the configuration, from the store if the image is there.
    async fn configuration(
        &self,
        image: &Reference,
        manifest: &Manifest,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<u8>, Error> {
        let (store, id) = (Arc::clone(&self.store), manifest.config.clone());
        if let Some(known) = blocking("read configuration", move || store.configuration(&id)).await? {
            return Ok(known);
        }
        let fetched =
            self.registry.blob_bytes(image, &manifest.config, MAX_CONFIGURATION_BYTES, credentials).await;
        fetched.map_err(refused("fetch the configuration", image))
    }
}

/// True if the document is sound but no image for this machine.
fn is_of_another_kind(error: &Error) -> bool {
    let Error::Manifest { source, .. } = error else { return false };
    matches!(
        **source,
        ManifestError::Platform { .. }
            | ManifestError::Artifact(_)
            | ManifestError::MediaType(_)
            | ManifestError::Nested(_)
    )
}

fn nested(image: &Reference, path: &[Arc<registry::Manifest>]) -> Error {
    let deepest = path.last().map_or_else(|| Digest::sha256(b""), |document| document.digest.clone());
    unusable("index", &deepest, image, ManifestError::Nested(MAX_DEPTH))
}
