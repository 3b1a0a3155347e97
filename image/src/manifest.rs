//! Manifests, indexes and image configurations, parsed once into what a pull needs. The structures are our own, not
//! those of `oci-spec`: Docker's documents have `null` for empty lists and fields outside the specification, and other
//! fields are required here.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::digest::{Digest, Hasher};
use crate::image::ImageConfig;
use crate::platform::Platform;

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;

/// The most layers one image may have: overlay takes no more than 500 lower directories.
const MAX_LAYERS: usize = 500;

/// Reasons why a manifest or configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not the JSON expected.
    #[error("parse {what}")]
    Json {
        /// Kind of document.
        what: &'static str,
        #[source]
        /// Error of the parser.
        source: serde_json::Error,
    },
    /// Docker's old format, which names no configuration and cannot be verified.
    #[error("Docker schema 1 manifests are not supported; push the image again with a current tool")]
    Schema1,
    /// Both `manifests` and `config` or `layers`: readers could disagree on what the document is (CVE-2021-41190).
    #[error("the document is both an index and an image manifest")]
    Ambiguous,
    /// The media type contradicts the content.
    #[error("media type {said:?} is not that of this document, which is {found}")]
    Contradiction {
        /// Media type in the document, or in the descriptor that led to it.
        said: String,
        /// Form of the content.
        found: &'static str,
    },
    /// The document is neither a known manifest nor a known index.
    #[error("media type {0:?} is neither an image manifest nor an index")]
    MediaType(String),
    /// The manifest is not of an image.
    #[error("config media type {0:?}: this is an artifact, not a container image")]
    Artifact(String),
    /// A layer has a media type that cannot be unpacked.
    #[error("layer {digest} has media type {media_type:?}, which cannot be unpacked")]
    LayerType {
        /// The layer.
        digest: Digest,
        /// Its media type in the manifest.
        media_type: String,
    },
    /// A layer's content is not in the registry (foreign or nondistributable).
    #[error("layer {0} is foreign: it is only to be had from its vendor")]
    Foreign(Digest),
    /// The index has no image for this machine, or the image is for another one.
    #[error("no image for {wanted}; there is one for {}", list(.offered))]
    Platform {
        /// This machine's platform.
        wanted: Platform,
        /// Platforms in the index, or the image's own.
        offered: Vec<Platform>,
    },
    /// Indexes are nested too deep.
    #[error("index within index beyond depth {0}")]
    Nested(usize),
    /// Manifest and configuration list different numbers of layers.
    #[error("the manifest has {layers} layers, the configuration {diff_ids}")]
    LayerCount {
        /// Layers in the manifest.
        layers: usize,
        /// Diff ids in the configuration.
        diff_ids: usize,
    },
    /// More layers than can be mounted.
    #[error("{0} layers are more than can be mounted")]
    TooManyLayers(usize),
}

fn list(platforms: &[Platform]) -> String {
    let named: Vec<_> = platforms.iter().map(Platform::to_string).collect();
    if named.is_empty() { "no platform".to_owned() } else { named.join(", ") }
}

/// How a layer's blob is compressed, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A layer's blob.
#[derive(Debug, Clone)]
pub(crate) struct LayerBlob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) compression: Compression,
}

/// An image manifest.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Digest,
    pub(crate) config_size: u64,
    pub(crate) layers: Vec<LayerBlob>,
}

/// A parsed manifest or index.
#[derive(Debug)]
pub(crate) enum Document {
    Image(Manifest),
    /// Manifests that may fit the platform, the best first.
    Index(Vec<Candidate>),
}

/// A document listed in an index.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) digest: Digest,
    /// Media type in the index's descriptor; may be empty.
    pub(crate) media_type: String,
}

/// Form of a document, decided by the document alone so that all readers agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Image,
    Index,
}

/// The fields of a document that decide its form.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: std::collections::HashMap<String, String>,
}

#[derive(Deserialize)]
struct RawManifest {
    config: Descriptor,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct RawIndex {
    #[serde(default, deserialize_with = "or_default")]
    manifests: Vec<Descriptor>,
}

/// An image configuration: defaults for containers, and the digests of the unpacked layers.
#[derive(Debug, Deserialize)]
pub(crate) struct Configuration {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) created: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) config: ImageConfig,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<Digest>,
}

/// Reads `null` as the default: Go writes it for empty values.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

impl Document {
    /// Parses a document. Its content decides its form, and its own media type and the one in the descriptor that led
    /// to it (`described`, may be empty) must agree. The registry's Content-Type (`served`) is used for messages only.
    pub(crate) fn parse(
        bytes: &[u8],
        described: &str,
        served: &str,
        wanted: &Platform,
    ) -> Result<Self, ManifestError> {
        let shape: Shape = json("manifest", bytes)?;
        let form = shape.form(served)?;
        for said in [shape.media_type.as_str(), described] {
            form.must_be(said)?;
        }
        match form {
            Form::Image => Manifest::parse(bytes).map(Document::Image),
            Form::Index => choose(json("index", bytes)?, wanted).map(Document::Index),
        }
    }
}

impl Shape {
    fn form(&self, served: &str) -> Result<Form, ManifestError> {
        if self.fs_layers.is_some() {
            return Err(ManifestError::Schema1);
        }
        match (self.manifests.is_some(), self.config.is_some() || self.layers.is_some()) {
            (true, true) => Err(ManifestError::Ambiguous),
            (true, false) => Ok(Form::Index),
            (false, true) => Ok(Form::Image),
            // Go writes `null` for an empty list: the document's own media type decides.
            (false, false) => Form::called(&self.media_type).ok_or_else(|| {
                let said = if self.media_type.is_empty() { served } else { &self.media_type };
                ManifestError::MediaType(said.to_owned())
            }),
        }
    }
}

impl Form {
    /// Returns the form of documents of this media type.
    fn called(media_type: &str) -> Option<Form> {
        match media_type {
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => Some(Form::Image),
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => Some(Form::Index),
            _ => None,
        }
    }

    /// Fails unless `media_type` is empty or names this form.
    fn must_be(self, media_type: &str) -> Result<(), ManifestError> {
        let found = match self {
            Form::Image => "an image manifest",
            Form::Index => "an index",
        };
        match Form::called(media_type) {
            None if media_type.is_empty() => Ok(()),
            None => Err(ManifestError::MediaType(media_type.to_owned())),
            Some(said) if said == self => Ok(()),
            Some(_) => Err(ManifestError::Contradiction { said: media_type.to_owned(), found }),
        }
    }
}

fn choose(index: RawIndex, wanted: &Platform) -> Result<Vec<Candidate>, ManifestError> {
    // Attestations are listed beside the images they describe, under the platform unknown/unknown.
    let images = index.manifests.iter().filter(|entry| !is_attestation(entry) && may_be_an_image(entry));
    let rank = |entry: &Descriptor| match &entry.platform {
        Some(platform) => wanted.suits(platform),
        // The platform is known only from the configuration: try it last.
        None => Some(usize::MAX),
    };
    let mut fitting: Vec<_> = images.clone().filter_map(|entry| Some((rank(entry)?, entry))).collect();
    if fitting.is_empty() {
        let offered = images.filter_map(|entry| entry.platform.clone()).collect();
        return Err(ManifestError::Platform { wanted: wanted.clone(), offered });
    }
    fitting.sort_by_key(|(rank, _)| *rank);
    let candidate =
        |entry: &Descriptor| Candidate { digest: entry.digest.clone(), media_type: entry.media_type.clone() };
    Ok(fitting.into_iter().map(|(_, entry)| candidate(entry)).collect())
}

/// True for an empty or known media type: indexes also list signatures and other artifacts.
fn may_be_an_image(entry: &Descriptor) -> bool {
    entry.media_type.is_empty() || Form::called(&entry.media_type).is_some()
}

fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.type")
}

impl Manifest {
    fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let raw: RawManifest = json("manifest", bytes)?;
        if !is_image_config(&raw.config.media_type) {
            return Err(ManifestError::Artifact(raw.config.media_type));
        }
        if raw.layers.len() > MAX_LAYERS {
            return Err(ManifestError::TooManyLayers(raw.layers.len()));
        }
        Ok(Manifest {
            config: raw.config.digest,
            config_size: raw.config.size,
            layers: raw.layers.into_iter().map(LayerBlob::from_descriptor).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the size in bytes of all blobs of the image.
    pub(crate) fn size(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| layer.size);
        layers.fold(self.config_size, u64::saturating_add)
    }
}

/// True for known types, with those that old builders used; any other type is of an artifact.
fn is_image_config(media_type: &str) -> bool {
    const KNOWN: [&str; 5] = [
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
        "application/octet-stream",
        "text/html",
        "",
    ];
    KNOWN.contains(&media_type)
}

impl LayerBlob {
    fn from_descriptor(descriptor: Descriptor) -> Result<Self, ManifestError> {
        let Descriptor { media_type, digest, size, .. } = descriptor;
        if media_type.contains("foreign") || media_type.contains("nondistributable") {
            return Err(ManifestError::Foreign(digest));
        }
        let compression = match media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Compression::None
            }
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
            _ => return Err(ManifestError::LayerType { digest, media_type }),
        };
        Ok(LayerBlob { digest, size, compression })
    }
}

impl Configuration {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        json("configuration", bytes)
    }

    /// Returns the digests of the unpacked layers. Fails if the manifest has another number, or on an image not for
    /// `wanted`.
    pub(crate) fn diff_ids(
        &self,
        manifest: &Manifest,
        wanted: &Platform,
    ) -> Result<&[Digest], ManifestError> {
        let own = Platform::new(&self.os, &self.architecture, &self.variant);
        if wanted.suits(&own).is_none() {
            return Err(ManifestError::Platform { wanted: wanted.clone(), offered: vec![own] });
        }
        let (layers, diff_ids) = (manifest.layers.len(), self.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(ManifestError::LayerCount { layers, diff_ids });
        }
        Ok(&self.rootfs.diff_ids)
    }
}

/// Returns the chain id of each layer: the digest that names it together with all layers below it.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => {
                let mut hasher = Hasher::new(below.algorithm());
                hasher.update(format!("{below} {diff_id}").as_bytes());
                hasher.finish()
            }
        };
        chain.push(next);
    }
    chain
}

fn json<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|source| ManifestError::Json { what, source })
}
