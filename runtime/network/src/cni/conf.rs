//! Network configurations: the files of a directory, parsed into chains of plugins.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::version::Version;

/// One network: a chain of plugins that run in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct NetworkConf {
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) disable_check: bool,
    pub(super) disable_gc: bool,
    pub(super) plugins: Vec<PluginConf>,
    pub(super) source: PathBuf,
}

/// One plugin's part of a network configuration, as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct PluginConf(Map<String, Value>);

/// Contents of a configuration directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Loaded {
    /// The valid networks in order of file name.
    pub(super) networks: Vec<NetworkConf>,
    /// Files that cannot be used, and why.
    pub(super) broken: Vec<(PathBuf, String)>,
}

impl Loaded {
    /// Reads every configuration in `directory`; a broken file does not affect the others.
    pub(super) fn from_directory(directory: &Path) -> Loaded {
        let mut loaded = Loaded::default();
        let files = match files(directory, &["conflist", "conf", "json"]) {
            Ok(files) => files,
            Err(error) => {
                loaded.broken.push((directory.to_owned(), error.to_string()));
                return loaded;
            }
        };
        for file in files {
            match NetworkConf::from_file(&file) {
                Ok(network) => loaded.networks.push(network),
                Err(why) => loaded.broken.push((file, why)),
            }
        }
        loaded
    }
}

/// Lists the files of `directory` with one of `extensions`, in order of name.
fn files(directory: &Path, extensions: &[&str]) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| extensions.contains(&extension)) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl NetworkConf {
    /// Reads a configuration file: a list of plugins (with `plugins`) or a single plugin (without).
    pub(super) fn from_file(path: &Path) -> Result<NetworkConf, String> {
        let mut body = object(path)?;
        let name = network_name(&body)?;
        let mut plugins = match body.remove("plugins") {
            Some(Value::Array(plugins)) => {
                plugins.into_iter().map(PluginConf::from_value).collect::<Result<_, _>>()?
            }
            Some(_) => return Err("plugins is no list".into()),
            None if body.contains_key("type") => vec![PluginConf::from_value(Value::Object(body.clone()))?],
            None => vec![],
        };
        if !flag(&body, "loadOnlyInlinedPlugins")? && !body.contains_key("type") {
            plugins.extend(plugins_in_subdirectory(path, &name)?);
        }
        if plugins.is_empty() {
            return Err("it has no plugins".into());
        }
        Ok(NetworkConf {
            version: version(&body)?,
            disable_check: flag(&body, "disableCheck")?,
            disable_gc: flag(&body, "disableGC")?,
            source: path.to_owned(),
            name,
            plugins,
        })
    }
}

/// Reads the plugins of a list that are in files of their own, in a directory named like the network.
fn plugins_in_subdirectory(path: &Path, name: &str) -> Result<Vec<PluginConf>, String> {
    let directory = path.with_file_name(name);
    if !directory.is_dir() {
        return Ok(vec![]);
    }
    let files = files(&directory, &["conf"]).map_err(|error| format!("{}: {error}", directory.display()))?;
    files.iter().map(|file| PluginConf::from_value(Value::Object(object(file)?))).collect()
}

fn object(path: &Path) -> Result<Map<String, Value>, String> {
    let content = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&content).map_err(|error| format!("it is no JSON object: {error}"))
}

/// Reads the network's name. Its characters are restricted, as plugins use it in file names and interface aliases.
fn network_name(body: &Map<String, Value>) -> Result<String, String> {
    let name = text(body, "name")?.ok_or("it has no name")?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    match name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && name.bytes().all(plain) {
        true => Ok(name.to_owned()),
        false => {
            Err(format!("name {name:?} must be letters, digits, '_', '.' or '-' after a letter or digit"))
        }
    }
}

/// Picks the newest version that the configuration offers and Berth supports.
fn version(body: &Map<String, Value>) -> Result<Version, String> {
    let mut offered: Vec<&str> = text(body, "cniVersion")?.into_iter().collect();
    if let Some(Value::Array(more)) = body.get("cniVersions") {
        offered.extend(more.iter().filter_map(Value::as_str));
    }
    match offered.iter().filter_map(|text| Version::parse(text)).max() {
        Some(version) => Ok(version),
        None if offered.is_empty() => Err("it has no cniVersion".into()),
        None => Err(format!("cniVersion {offered:?} is not between 0.3.0 and 1.1.0")),
    }
}

fn text<'a>(body: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match body.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key} is no text but {other}")),
    }
}

/// Reads a boolean, which may also be a string, as libcni allows; absent means false.
fn flag(body: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match body.get(key) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(value)) if value.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(value)) if value.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(format!("{key} is neither true nor false but {other}")),
    }
}

impl PluginConf {
    fn from_value(value: Value) -> Result<PluginConf, String> {
        let Value::Object(body) = value else { return Err("a plugin is no JSON object".into()) };
        match text(&body, "type")? {
            None | Some("") => Err("a plugin has no type".into()),
            Some(kind) if kind.contains('/') => Err(format!("plugin type {kind:?} contains a slash")),
            Some(_) => Ok(PluginConf(body)),
        }
    }

    /// Returns the plugin's type, which is the name of its binary.
    pub(super) fn kind(&self) -> &str {
        self.0.get("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether the plugin declares the runtime's `capability`.
    pub(super) fn declares(&self, capability: &str) -> bool {
        self.0.get("capabilities").and_then(|all| all.get(capability)) == Some(&Value::Bool(true))
    }

    /// Returns the configuration as written in the file.
    pub(super) fn body(&self) -> &Map<String, Value> {
        &self.0
    }
}

#[cfg(test)]
#[path = "conf_tests.rs"]
mod tests;
