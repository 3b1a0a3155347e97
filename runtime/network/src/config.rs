//! The `[network]` section of the daemon's configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::Subnet;

/// The `[network]` section: how pods get their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `cni` runs the plugins configured in `cni.conf_dir` (what a Kubernetes node needs);
    /// `bridge` is the built-in network for one machine without CNI.
    pub provider: Provider,
    /// Directory in which the network namespaces of pods are pinned.
    pub netns_dir: PathBuf,
    /// Used when `provider = "cni"`.
    pub cni: CniConfig,
    /// Used when `provider = "bridge"`.
    pub bridge: BridgeConfig,
}

/// The provider that attaches pods to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// CNI plugins, configured by files (Container Network Interface 1.1.0).
    #[default]
    Cni,
    /// The built-in bridge: veth pairs, IPv4, masquerade and published ports with nftables.
    Bridge,
}

/// How CNI plugins are found and run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct CniConfig {
    /// Directory of network configurations (`*.conflist`, `*.conf`, `*.json`), watched for changes. The first
    /// `max_conf_num` valid files in order of name are used.
    pub conf_dir: PathBuf,
    /// Directories with the plugins' binaries, searched in this order.
    pub bin_dirs: Vec<PathBuf>,
    /// Directory for the plugins' results, so that DEL works after a restart; empty means `<root>/cni`.
    pub cache_dir: PathBuf,
    /// Template of a network configuration, in the form of containerd's `conf_template`. When kubelet announces the
    /// node's pod addresses, it is filled in and written to `conf_dir` as `10-berth-net.conflist`, unless there is a
    /// network already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conf_template: Option<PathBuf>,
    /// Time limit of one plugin run. Then the plugin is killed with everything in its process group.
    pub plugin_timeout_seconds: u64,
    /// Number of networks a pod is attached to: the first is `eth0`, the next `eth1`, and so on.
    pub max_conf_num: usize,
}

/// The built-in bridge network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeConfig {
    /// The bridge's interface name, at most 15 bytes; the nftables table is `berth-<name>`.
    pub name: String,
    /// Subnet of the pods; its first address is the bridge's own and the pods' gateway. Unset means 10.88.0.0/16, or
    /// another free subnet when a network of the host overlaps with that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Subnet>,
    /// MTU of the bridge and of the pods' interfaces; 0 leaves the kernel's default.
    pub mtu: u32,
    /// Whether packets from pods to other networks are masqueraded: sent with the host's address.
    pub masquerade: bool,
    /// Remove the bridge and its nftables table when the last pod is detached.
    pub remove_when_empty: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            provider: Provider::Cni,
            netns_dir: "/run/netns".into(),
            cni: CniConfig::default(),
            bridge: BridgeConfig::default(),
        }
    }
}

impl Default for CniConfig {
    fn default() -> Self {
        CniConfig {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            cache_dir: PathBuf::new(),
            conf_template: None,
            plugin_timeout_seconds: 30,
            max_conf_num: 1,
        }
    }
}

impl Default for BridgeConfig {
    fn default() -> Self {
        BridgeConfig {
            name: "berth0".into(),
            subnet: None,
            mtu: 0,
            masquerade: true,
            remove_when_empty: false,
        }
    }
}

impl CniConfig {
    /// Returns the directory for results, given the daemon's root directory.
    pub fn cache_dir(&self, root: &Path) -> PathBuf {
        match self.cache_dir.as_os_str().is_empty() {
            true => root.join("cni"),
            false => self.cache_dir.clone(),
        }
    }

    /// Returns the time limit of one plugin run.
    pub fn plugin_timeout(&self) -> Duration {
        Duration::from_secs(self.plugin_timeout_seconds)
    }
}
