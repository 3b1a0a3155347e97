//! The configuration of one handler.

use std::path::{Path, PathBuf};

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::{OWN_SHIM_HANDLERS, options};

/// A section `[handlers.NAME]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The shim: its absolute path, or its name as in containerd. `io.containerd.runc.v2` is `containerd-shim-runc-v2`
    /// in `PATH`.
    pub shim: String,
    /// Options for the shim. That of runc has `BinaryName`, `Root`, `SystemdCgroup`, `NoPivotRoot`, `NoNewKeyring`,
    /// `ShimCgroup`, `IoUid` and `IoGid`, all others have `TypeUrl`, `ConfigPath` and `ConfigBody`.
    #[serde(default)]
    pub options: Table,
    /// Annotations of a pod that its sandbox gets: names, or prefixes followed by `*`. A shim may act on annotations,
    /// so list only those that users may set.
    #[serde(default)]
    pub pod_annotations: Vec<String>,
}

/// Why a handler's configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The name is taken or has invalid characters.
    #[error("must be a name of letters, digits, '-', '_' and '.', and is none of Berth's own shim's")]
    Name,
    /// The shim is neither an absolute path nor a name as in containerd.
    #[error("shim = {0:?}: neither an absolute path nor of the form io.containerd.NAME.VERSION")]
    Shim(String),
    /// An option is unknown to the shim, or of the wrong type.
    #[error("options")]
    Options(#[from] toml::de::Error),
}

impl Config {
    /// Fails on a configuration that cannot work on any machine.
    pub fn check(&self, name: &str) -> Result<(), Invalid> {
        let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if OWN_SHIM_HANDLERS.contains(&name) || !name.chars().all(letter) {
            return Err(Invalid::Name);
        }
        if file_name(&self.shim).is_none() {
            return Err(Invalid::Shim(self.shim.clone()));
        }
        self.options().map(drop)
    }

    /// Whether the shim gets a pod's annotation of this name.
    pub(super) fn passes(&self, annotation: &str) -> bool {
        self.pod_annotations.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => annotation.starts_with(beginning),
            None => pattern == annotation,
        })
    }

    /// Encodes the options for the shim; `None` when there are none.
    pub(super) fn options(&self) -> Result<Option<options::Options>, Invalid> {
        let is_runc = file_name(&self.shim).as_deref() == Some("containerd-shim-runc-v2");
        Ok(options::encode(is_runc, &self.options)?)
    }
}

/// Finds the binary; `None` if it is not on this machine.
pub(super) fn find(shim: &str) -> Option<PathBuf> {
    if Path::new(shim).is_absolute() {
        return Some(PathBuf::from(shim)).filter(|path| path.is_file());
    }
    let name = file_name(shim)?;
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(&name)).find(|path| path.is_file())
}

/// Returns the file name of a shim's binary; `None` if `shim` is neither a path nor a name as in containerd.
fn file_name(shim: &str) -> Option<String> {
    let path = Path::new(shim);
    if path.is_absolute() {
        return Some(path.file_name()?.to_str()?.to_owned());
    }
    let (kind, version) = shim.strip_prefix("io.containerd.")?.rsplit_once('.')?;
    let plain = !kind.is_empty() && !version.is_empty() && !shim.contains('/');
    plain.then(|| format!("containerd-shim-{}-{version}", kind.replace('.', "-")))
}
