//! Image references as Docker's users write them, normalized while they are parsed.
//!
//! `busybox` means `docker.io/library/busybox:latest`. The grammar is that of the distribution project: the part before
//! the first slash is a registry only if it contains a dot, a colon or an upper-case letter, or is `localhost`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{self, Digest};

#[cfg(test)]
mod tests;

/// The registry of a name without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Former name of Docker Hub in references; the same registry.
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";
/// The namespace of Docker Hub's official images, left out by users.
const OFFICIAL_NAMESPACE: &str = "library";
/// The tag of a reference with neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// The most bytes a normalized name (registry and repository) may have.
const MAX_NAME_BYTES: usize = 255;
/// The most bytes a tag may have.
const MAX_TAG_BYTES: usize = 128;

/// A normalized image reference: registry, repository, and a tag or a digest or both.
///
/// With both, the digest says which content is meant and the tag is only kept for display.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// `registry/repository`
    name: String,
    /// Length of the registry's part of `name`.
    registry_len: usize,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns the registry's host and port as written, `docker.io` if the reference names none.
    pub fn registry(&self) -> &str {
        &self.name[..self.registry_len]
    }

    /// Returns the repository within the registry, such as `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.name[self.registry_len + 1..]
    }

    /// Returns the tag; absent only if the reference is by digest alone.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if the reference pins one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns registry and repository, such as `docker.io/library/busybox`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the reference as short as `docker` prints it: without `docker.io/` and `library/`, unless the short form
    /// would parse as something else.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/");
        let shorter = short.and_then(|short| short.strip_prefix("library/"));
        let means_this = |text: &&str| text.parse().as_ref() == Ok(self);
        let familiar = shorter.into_iter().chain(short).find(means_this).map(str::to_owned);
        familiar.unwrap_or(full)
    }

    /// Returns the same name with this tag and no digest (an entry of CRI's `repo_tags`). Fails on a malformed tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ParseError> {
        check_tag(tag)?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// Returns the same name with this digest and no tag (an entry of CRI's `repo_digests`).
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG),
        };
        tag.map_or(Ok(()), check_tag)?;
        let (registry, repository) = split_registry(name);
        let (registry, name) = normalize(registry, repository)?;
        Ok(Self { registry_len: registry.len(), name, tag: tag.map(str::to_owned), digest })
    }
}

impl TryFrom<String> for Reference {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// Reasons why a text is no image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There is no name at all.
    #[error("the image reference has no name")]
    Empty,
    /// The name is too long.
    #[error("the image name has {0} bytes, {MAX_NAME_BYTES} are allowed")]
    TooLong(usize),
    /// The registry is not a host name with an optional port.
    #[error("invalid registry {0:?} in the image reference: expected host or host:port")]
    Registry(String),
    /// A part of the repository's path is malformed.
    #[error(
        "invalid part {0:?} of the image name: lower-case letters and digits, separated by one dot, one or two \
         underscores, or dashes"
    )]
    Component(String),
    /// The tag is malformed.
    #[error(
        "invalid tag {0:?}: 1 to {MAX_TAG_BYTES} letters, digits, underscores, dots and dashes, not beginning with a dot or dash"
    )]
    Tag(String),
    /// 64 hexadecimal digits are an image's id, not a name.
    #[error("{0:?} looks like an image id; it cannot be the name of an image")]
    ImageId(String),
    /// The text after `@` is no digest.
    #[error("invalid digest in the image reference")]
    Digest(#[from] digest::ParseError),
}

/// Splits `name[:tag]`: a colon before the last slash belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// Splits off the registry by the rule in the module comment.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest)) if names_registry(first) => (Some(first), rest),
        _ => (None, name),
    }
}

fn names_registry(first: &str) -> bool {
    first == "localhost" || first.bytes().any(|byte| matches!(byte, b'.' | b':') || byte.is_ascii_uppercase())
}

/// Returns the registry to ask and the full name, both checked.
fn normalize<'a>(registry: Option<&'a str>, repository: &str) -> Result<(&'a str, String), ParseError> {
    if repository.is_empty() {
        return Err(ParseError::Empty);
    }
    if registry.is_none() && is_image_id(repository) {
        return Err(ParseError::ImageId(repository.to_owned()));
    }
    let registry = match registry {
        None | Some(LEGACY_DEFAULT_REGISTRY) => DEFAULT_REGISTRY,
        Some(registry) => registry,
    };
    check_registry(registry)?;
    repository.split('/').try_for_each(check_component)?;
    let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let name = match official {
        true => format!("{registry}/{OFFICIAL_NAMESPACE}/{repository}"),
        false => format!("{registry}/{repository}"),
    };
    if name.len() > MAX_NAME_BYTES {
        return Err(ParseError::TooLong(name.len()));
    }
    Ok((registry, name))
}

fn is_image_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_registry(registry: &str) -> Result<(), ParseError> {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let host_is_valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_host_label),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    match host_is_valid && port.is_none_or(is_port) {
        true => Ok(()),
        false => Err(ParseError::Registry(excerpt(registry))),
    }
}

fn is_host_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
}

fn check_component(component: &str) -> Result<(), ParseError> {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well =
        bytes.first().copied().is_some_and(alphanumeric) && bytes.last().copied().is_some_and(alphanumeric);
    let separators = component.split(|c: char| u8::try_from(c).is_ok_and(alphanumeric));
    match ends_well && separators.into_iter().all(is_separator) {
        true => Ok(()),
        false => Err(ParseError::Component(excerpt(component))),
    }
}

/// True if `between` may stand between two letters or digits; empty means that they are neighbours.
fn is_separator(between: &str) -> bool {
    matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-')
}

fn check_tag(tag: &str) -> Result<(), ParseError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins_well = tag.bytes().next().is_some_and(word);
    let rest_is_well = tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    match begins_well && rest_is_well && tag.len() <= MAX_TAG_BYTES {
        true => Ok(()),
        false => Err(ParseError::Tag(excerpt(tag))),
    }
}

/// Cuts a user's text to a length fit for an error message.
fn excerpt(text: &str) -> String {
    text.chars().take(MAX_NAME_BYTES).collect()
}
