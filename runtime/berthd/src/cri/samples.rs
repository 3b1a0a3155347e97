//! Fixtures for tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use berth_image::Images;
use tempfile::TempDir;

use super::Cri;
use crate::{
    config::Config,
    container::{Container, ContainerState, config::ContainerConfig},
    nri,
    pod::{
        Pod, PodState,
        config::{PodConfig, PodMetadata},
    },
    runtime::{Options, Runtime},
    spec::{Defaults, Host, HostFeatures, user::ResolvedUser},
    streaming::Tokens,
};
use berth_network::{Attachment, Network};

/// Returns the CRI services over a runtime in a temporary directory.
pub(crate) async fn cri() -> (Cri, TempDir) {
    let (runtime, config, directory) = open().await;
    (Cri::new(runtime, config, HostFeatures::default(), Tokens::new("http://127.0.0.1:1")), directory)
}

/// Returns a runtime in a temporary directory.
pub(crate) async fn runtime() -> (Runtime, TempDir) {
    let (runtime, _, directory) = open().await;
    (runtime, directory)
}

async fn open() -> (Runtime, Config, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mut config = Config { root: at("root"), state: at("state"), ..Config::default() };
    config.network.netns_dir = at("netns");
    config.network.cni.conf_dir = at("net.d");
    let images = Images::open(images_in(&config, &at("certs.d"))).await.unwrap();
    let network = Network::open(config.network.clone(), &config.root).await.unwrap();
    let options = Options {
        root: config.root.clone(),
        state: config.state.clone(),
        netns: config.network.netns_dir.clone(),
        shim: at("no-shim"),
        handlers: Default::default(),
        cgroup_root: config.pods.cgroup_root.clone(),
        max_log_line: config.pods.max_log_line,
        cdi_dirs: Vec::new(),
        host: Host::default(),
        defaults: Defaults::default(),
        nri: nri::Config { enabled: false, ..nri::Config::default() },
    };
    let runtime = Runtime::open(options, images, network).await.unwrap();
    (runtime, config, directory)
}

/// Returns a configuration in which no registry answers.
fn images_in(config: &Config, hosts: &Path) -> berth_image::Config {
    std::fs::create_dir_all(hosts.join("_default")).unwrap();
    std::fs::write(hosts.join("_default/hosts.toml"), "server = 'http://127.0.0.1:1'").unwrap();
    let mut images = berth_image::Config::new(config.image_root());
    images.registry.hosts_dirs = vec![hosts.to_owned()];
    images.registry.retry.limit = 0;
    images
}

pub(crate) fn pod(id: &str, state: PodState) -> Pod {
    let metadata =
        PodMetadata { name: "web".into(), uid: "u1".into(), namespace: "default".into(), attempt: 3 };
    Pod {
        id: id.into(),
        config: PodConfig { metadata, ..PodConfig::default() },
        created_at: 42,
        state,
        attachment: None,
        netns: None,
        shim: None,
        cgroup: format!("/berth/{id}"),
    }
}

pub(super) fn attachment(ips: &[&str]) -> Attachment {
    let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    Attachment { ips, interfaces: Vec::new(), record: serde_json::Value::Null }
}

pub(crate) fn container(id: &str, pod_id: &str, state: ContainerState) -> Container {
    Container {
        id: id.into(),
        pod_id: pod_id.into(),
        config: ContainerConfig { image: "busybox".into(), ..ContainerConfig::default() },
        image_id: "sha256:1".into(),
        image_ref: "docker.io/library/busybox@sha256:1".into(),
        created_at: 42,
        state,
        log_path: None,
        user: ResolvedUser { uid: 0, gid: 0, additional_gids: vec![0], home: "/root".into() },
        stop_signal: 15,
        cgroup: format!("/berth/{pod_id}/{id}"),
    }
}
