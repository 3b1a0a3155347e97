//! The daemon's configuration: one TOML file. Every key has a default, and the doc comment of its field is what
//! `berthd config default` prints.

mod mode;
mod print;
mod streaming;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use berth_image::reference::Reference;
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::EnvFilter;

pub use mode::Mode;
pub use print::default_text;
pub use streaming::Streaming;

use crate::{handlers, nri};

/// Read when no file is named; it need not exist.
pub const DEFAULT_PATH: &str = "/etc/berth/config.toml";

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory that outlives a reboot: images, writable layers, records. Only one daemon can use it at a time.
    pub root: PathBuf,
    /// Directory that a reboot clears: sockets, bundles, exit records. On a tmpfs.
    pub state: PathBuf,
    /// The socket that kubelet and crictl connect to.
    pub socket: Socket,
    /// The daemon's own log, on standard error.
    pub log: Log,
    /// Where images come from.
    pub images: Images,
    /// How pods and containers are run.
    pub pods: Pods,
    /// Devices that their vendors describe in files (Container Device Interface 1.1).
    pub cdi: Cdi,
    /// How pods get their addresses.
    pub network: berth_network::Config,
    /// The server that clients of exec, attach and port-forward are sent to.
    pub streaming: Streaming,
    /// Plugins that watch and adjust pods and containers (Node Resource Interface).
    pub nri: nri::Config,
    /// Shims besides Berth's own, each in a section `[handlers.NAME]`. A RuntimeClass names one by its handler. Unset: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub handlers: BTreeMap<String, handlers::Config>,
}

/// Devices that their vendors describe in files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Cdi {
    /// Directories with `*.json` and `*.yaml`, later ones winning over earlier ones; read again for every container
    /// that asks for a device. An empty list switches CDI off.
    pub dirs: Vec<PathBuf>,
}

/// The CRI socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Socket {
    /// Unset: `berth.sock` in the state directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// File mode in octal. Write permission on the socket amounts to root.
    pub mode: Mode,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
}

/// The daemon's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, also per module: `info,berth_network=debug`.
    pub level: String,
    /// `text` for people, `json` for machines: one object a line.
    pub format: LogFormat,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Where images come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Images {
    /// Directories with one `<host>/hosts.toml` per registry, in containerd's format: mirrors, certificates. The first
    /// directory that knows a host counts; the files are read again for every pull.
    pub hosts_dirs: Vec<PathBuf>,
    /// How many layers are fetched and unpacked from one registry at the same time.
    pub max_parallel_layers: usize,
    /// Images that kubelet is told never to remove to free space, by name with tag or digest.
    pub pinned: Vec<String>,
}

/// How pods and containers are run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Pods {
    /// The shim's binary. Unset: `containerd-shim-berth-v1` beside the daemon's own, then in `PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shim: Option<PathBuf>,
    /// cgroup of the pods that name no parent.
    pub cgroup_root: String,
    /// Whether a container's oom_score_adj is raised to the daemon's own where it asks for less: `always`, `never`, or
    /// `auto`, which does so when the daemon has no CAP_SYS_RESOURCE and so could not lower it.
    pub restrict_oom_score_adj: Restrict,
    /// How many processes and threads one container may have; 0 is no limit. kubelet limits whole pods by itself.
    pub pids_limit: u32,
    /// Longest line of a container's log in bytes; longer ones are split as the CRI log format defines.
    pub max_log_line: usize,
}

/// When to raise a value to what the host allows instead of failing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Restrict {
    /// When the daemon lacks CAP_SYS_RESOURCE.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Why the configuration could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read configuration {}", path.display())]
    Read {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML, has an unknown key, or a value of the wrong type. The cause names line and key.
    #[error("configuration {}", path.display())]
    Parse {
        /// The file's path.
        path: PathBuf,
        /// The cause, with line and key.
        #[source]
        source: toml::de::Error,
    },
    /// A value that cannot work.
    #[error("configuration key {key} = {value:?}: {why}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// The value.
        value: String,
        /// The rule that the value breaks.
        why: &'static str,
    },
    /// A runtime handler that cannot be used.
    #[error("configuration section [handlers.{name}]")]
    Handler {
        /// The handler's name.
        name: String,
        /// The cause.
        #[source]
        source: handlers::Invalid,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let config: Self =
            toml::from_str(&text).map_err(|source| Error::Parse { path: path.into(), source })?;
        config.checked()
    }

    /// Reads the file at [`DEFAULT_PATH`], or takes the defaults when there is none.
    pub fn load_default() -> Result<Self, Error> {
        match Self::load(Path::new(DEFAULT_PATH)) {
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            other => other,
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// `Value` or `Handler` for the first value that cannot work.
    pub fn checked(self) -> Result<Self, Error> {
        for (key, path) in self.paths() {
            require(path.is_absolute(), key, path.display(), "must be an absolute path")?;
        }
        require(EnvFilter::try_new(&self.log.level).is_ok(), "log.level", &self.log.level, "is no level")?;
        require(self.images.max_parallel_layers > 0, "images.max_parallel_layers", 0, "must be at least 1")?;
        for name in &self.images.pinned {
            require(name.parse::<Reference>().is_ok(), "images.pinned", name, "is no image's name")?;
        }
        let root = &self.pods.cgroup_root;
        let clean = root.len() > 1 && root.starts_with('/') && !root.split('/').any(|part| part == "..");
        require(clean, "pods.cgroup_root", root, "must begin with / and name a cgroup")?;
        let line = self.pods.max_log_line;
        require((256..=1 << 20).contains(&line), "pods.max_log_line", line, "must be from 256 to 1048576")?;
        let Streaming { tls_certificate, tls_key, .. } = &self.streaming;
        let key = tls_key.as_deref().unwrap_or(Path::new("")).display();
        let both = tls_certificate.is_some() == tls_key.is_some();
        require(both, "streaming.tls_key", key, "must be set together with tls_certificate")?;
        let seconds = self.streaming.idle_timeout_seconds;
        let a_year = 365 * 24 * 60 * 60;
        let sane = (1..=a_year).contains(&seconds);
        require(
            sane,
            "streaming.idle_timeout_seconds",
            seconds,
            "must be from 1 to 31536000, which is a year",
        )?;
        self.nri.check()?;
        for (name, handler) in &self.handlers {
            handler.check(name).map_err(|source| Error::Handler { name: name.clone(), source })?;
        }
        Ok(self)
    }

    fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let fixed =
            [("root", &self.root), ("state", &self.state), ("network.netns_dir", &self.network.netns_dir)];
        let socket = self.socket.path.as_ref().map(|path| ("socket.path", path));
        let nri = [
            ("nri.socket", &self.nri.socket),
            ("nri.plugin_dir", &self.nri.plugin_dir),
            ("nri.plugin_config_dir", &self.nri.plugin_config_dir),
        ];
        let shim = self.pods.shim.as_ref().map(|path| ("pods.shim", path));
        let certificate =
            self.streaming.tls_certificate.as_ref().map(|path| ("streaming.tls_certificate", path));
        let key = self.streaming.tls_key.as_ref().map(|path| ("streaming.tls_key", path));
        let template = self.network.cni.conf_template.as_ref();
        let template = template.map(|path| ("network.cni.conf_template", path));
        let cdi = self.cdi.dirs.iter().map(|path| ("cdi.dirs", path));
        let hosts = self.images.hosts_dirs.iter().map(|path| ("images.hosts_dirs", path));
        fixed
            .into_iter()
            .chain(nri)
            .chain(socket)
            .chain(shim)
            .chain(certificate)
            .chain(key)
            .chain(template)
            .chain(cdi)
            .chain(hosts)
            .map(|(key, path)| (key, path.as_path()))
    }

    /// Returns the directory of the image store.
    pub fn image_root(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Returns the path of the CRI socket.
    pub fn socket_path(&self) -> PathBuf {
        self.socket.path.clone().unwrap_or_else(|| self.state.join("berth.sock"))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/berth".into(),
            state: "/run/berth".into(),
            socket: Socket::default(),
            log: Log::default(),
            images: Images::default(),
            pods: Pods::default(),
            cdi: Cdi::default(),
            network: berth_network::Config::default(),
            streaming: Streaming::default(),
            nri: nri::Config::default(),
            handlers: BTreeMap::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self {
            hosts_dirs: vec!["/etc/berth/certs.d".into(), "/etc/containerd/certs.d".into()],
            max_parallel_layers: 4,
            pinned: Vec::new(),
        }
    }
}

impl Images {
    /// Returns the pinned images by the full names under which images are listed.
    pub fn pinned_names(&self) -> Vec<String> {
        self.pinned
            .iter()
            .filter_map(|name| name.parse().ok())
            .map(|name: Reference| name.to_string())
            .collect()
    }
}

impl Default for Cdi {
    fn default() -> Self {
        Self { dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()] }
    }
}

impl Default for Pods {
    fn default() -> Self {
        Self {
            shim: None,
            cgroup_root: "/berth".into(),
            restrict_oom_score_adj: Restrict::Auto,
            pids_limit: 0,
            max_log_line: 16384,
        }
    }
}

pub(crate) fn require(
    holds: bool,
    key: &'static str,
    value: impl ToString,
    why: &'static str,
) -> Result<(), Error> {
    match holds {
        true => Ok(()),
        false => Err(Error::Value { key, value: value.to_string(), why }),
    }
}
