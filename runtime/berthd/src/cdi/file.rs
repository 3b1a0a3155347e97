//! The files that vendors write, in JSON or YAML. Everything that is wrong in the file itself is refused here.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use serde::{Deserialize, Deserializer};

use super::name::{check_device, check_kind};

/// The supported versions. A newer file is refused, as its additions could be left out unnoticed.
const VERSIONS: [&str; 9] = ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"];
const LATEST: &str = "1.1.0";
const HOOK_NAMES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `*.json`.
    Json,
    /// `*.yaml`.
    Yaml,
}

impl Format {
    /// Returns the format by the file's extension; `None` for any other file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "yaml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// One CDI file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpecFile {
    cdi_version: String,
    /// `vendor/class` of all its devices.
    pub(super) kind: String,
    #[serde(default, rename = "annotations", deserialize_with = "absent")]
    _annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Device>,
    /// Edits for every container that is given any of the devices.
    #[serde(default, deserialize_with = "absent")]
    pub(super) container_edits: ContainerEdits,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default, rename = "annotations", deserialize_with = "absent")]
    _annotations: BTreeMap<String, String>,
    pub(super) container_edits: ContainerEdits,
}

/// Changes to a container's specification.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ContainerEdits {
    #[serde(deserialize_with = "absent")]
    pub(super) env: Vec<String>,
    #[serde(deserialize_with = "absent")]
    pub(super) device_nodes: Vec<DeviceNode>,
    #[serde(deserialize_with = "absent")]
    pub(super) net_devices: Vec<serde_json::Value>,
    #[serde(deserialize_with = "absent")]
    pub(super) hooks: Vec<Hook>,
    #[serde(deserialize_with = "absent")]
    pub(super) mounts: Vec<Mount>,
    pub(super) intel_rdt: Option<serde_json::Value>,
    #[serde(deserialize_with = "absent")]
    pub(super) additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct DeviceNode {
    pub(super) path: String,
    /// Empty means `path`.
    pub(super) host_path: String,
    /// `b`, `c`, `u` or `p`; empty means the type of the host's node.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// 0 means that major and minor are those of the host's node.
    pub(super) major: i64,
    pub(super) minor: i64,
    pub(super) file_mode: Option<u32>,
    /// Some of `r`, `w` and `m`, or `none`; empty means all.
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(default, deserialize_with = "absent")]
    pub(super) options: Vec<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Hook {
    pub(super) hook_name: String,
    pub(super) path: String,
    #[serde(default, deserialize_with = "absent")]
    pub(super) args: Vec<String>,
    #[serde(default, deserialize_with = "absent")]
    pub(super) env: Vec<String>,
    #[serde(default)]
    pub(super) timeout: Option<i64>,
}

/// Reads `null` as the default: programs write it where they have nothing.
fn absent<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl SpecFile {
    /// Parses and checks a file's content.
    ///
    /// # Errors
    ///
    /// The problem and its field, in one line.
    pub fn parse(content: &[u8], format: Format) -> Result<Self, String> {
        let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let file: Self = match format {
            Format::Json => serde_json::from_slice(content).map_err(|error| one_line(error.to_string()))?,
            Format::Yaml => {
                // A file mode is often written 0660, as YAML 1.1 had it.
                let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
                let parsed = serde_saphyr::from_slice_with_options(content, options);
                parsed.map_err(|error| one_line(error.to_string()))?
            }
        };
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        let version = self.cdi_version.strip_prefix('v').unwrap_or(&self.cdi_version);
        let known = version == LATEST || VERSIONS.contains(&version);
        require(known, "cdiVersion", &self.cdi_version, &format!("must be one of 0.1.0 to {LATEST}"))?;
        check_kind(&self.kind).map_err(|why| format!("kind {:?}: {why}", self.kind))?;
        self.container_edits.check("containerEdits")?;
        require(!self.devices.is_empty(), "devices", "[]", "must hold one at least")?;
        let mut names = HashSet::new();
        for (index, device) in self.devices.iter().enumerate() {
            let at = format!("devices[{index}]");
            check_device(&device.name).map_err(|why| format!("{at}.name {:?}: {why}", device.name))?;
            require(names.insert(&device.name), &format!("{at}.name"), &device.name, "is there twice")?;
            let edits = format!("{at}.containerEdits");
            let changes = device.container_edits != ContainerEdits::default();
            require(changes, &edits, "{}", "must change something")?;
            device.container_edits.check(&edits)?;
        }
        Ok(())
    }
}

impl ContainerEdits {
    fn check(&self, at: &str) -> Result<(), String> {
        check_env(&format!("{at}.env"), &self.env)?;
        each(at, "deviceNodes", &self.device_nodes, DeviceNode::check)?;
        each(at, "mounts", &self.mounts, Mount::check)?;
        each(at, "hooks", &self.hooks, Hook::check)
    }
}

fn each<T>(
    at: &str,
    field: &str,
    all: &[T],
    check: impl Fn(&T, &str) -> Result<(), String>,
) -> Result<(), String> {
    all.iter().enumerate().try_for_each(|(index, one)| check(one, &format!("{at}.{field}[{index}]")))
}

impl DeviceNode {
    fn check(&self, at: &str) -> Result<(), String> {
        absolute(&format!("{at}.path"), &self.path)?;
        if !self.host_path.is_empty() {
            absolute(&format!("{at}.hostPath"), &self.host_path)?;
        }
        let known = ["", "b", "c", "u", "p"].contains(&self.kind.as_str());
        require(known, &format!("{at}.type"), &self.kind, "must be b, c, u or p")?;
        let plain =
            self.permissions == "none" || self.permissions.chars().all(|letter| "rwm".contains(letter));
        require(
            plain,
            &format!("{at}.permissions"),
            &self.permissions,
            "must be some of r, w and m, or none",
        )?;
        let numbers = self.major >= 0 && self.minor >= 0;
        let given = format!("{}:{}", self.major, self.minor);
        require(numbers, &format!("{at}.major"), &given, "must not be negative")
    }
}

impl Mount {
    fn check(&self, at: &str) -> Result<(), String> {
        require(!self.host_path.is_empty(), &format!("{at}.hostPath"), "", "must not be empty")?;
        require(
            !self.host_path.contains('\0'),
            &format!("{at}.hostPath"),
            &self.host_path,
            "holds a NUL byte",
        )?;
        absolute(&format!("{at}.containerPath"), &self.container_path)
    }
}

impl Hook {
    fn check(&self, at: &str) -> Result<(), String> {
        let known = HOOK_NAMES.contains(&self.hook_name.as_str());
        require(
            known,
            &format!("{at}.hookName"),
            &self.hook_name,
            &format!("must be one of {HOOK_NAMES:?}"),
        )?;
        absolute(&format!("{at}.path"), &self.path)?;
        check_env(&format!("{at}.env"), &self.env)?;
        let given = self.timeout.unwrap_or(1);
        require(given > 0, &format!("{at}.timeout"), &given.to_string(), "must be greater than 0")
    }
}

fn check_env(field: &str, env: &[String]) -> Result<(), String> {
    let is_variable = |text: &String| text.find('=').is_some_and(|at| at > 0) && !text.contains('\0');
    match env.iter().position(|text| !is_variable(text)) {
        // The text is not shown: it may be a secret.
        Some(index) => Err(format!("{field}[{index}]: must be NAME=VALUE")),
        None => Ok(()),
    }
}

fn absolute(field: &str, path: &str) -> Result<(), String> {
    let usable = path.starts_with('/') && !path.contains('\0');
    require(usable, field, path, "must be an absolute path")
}

fn require(holds: bool, field: &str, value: &str, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{field} {value:?}: {why}")) }
}

#[cfg(test)]
mod tests;
