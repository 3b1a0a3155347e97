//! The `info` maps of verbose calls: JSON, under the names that containerd uses.

use std::{collections::HashMap, path::Path};

use berth_image::Image;
use serde_json::{Value, json};

use crate::{
    container::{Container, config::ContainerConfig},
    pod::Pod,
};

/// Returns the map of a verbose answer, with `info` as its only entry.
fn info(value: &Value) -> HashMap<String, String> {
    HashMap::from([("info".to_owned(), value.to_string())])
}

/// Returns a pod's process, network namespace and configuration.
pub(super) fn pod(pod: &Pod) -> HashMap<String, String> {
    info(&json!({
        "pid": pod.shim.as_ref().map_or(0, |shim| shim.pid),
        "netNamespace": pod.netns,
        "cgroup": pod.cgroup,
        "runtimeHandler": pod.config.handler,
        "runtimeType": "io.containerd.berth.v1",
        "networkStatus": pod.attachment,
        "config": pod.config,
    }))
}

/// Returns a container's process, configuration, and the OCI runtime specification from its bundle.
pub(super) async fn container(container: &Container, bundle: &Path) -> HashMap<String, String> {
    let spec = tokio::fs::read(bundle.join("config.json")).await.unwrap_or_default();
    info(&json!({
        "sandboxID": container.pod_id,
        "pid": container.state.pid().unwrap_or(0),
        "cgroup": container.cgroup,
        "runtimeType": "io.containerd.berth.v1",
        "config": config(&container.config),
        "runtimeSpec": serde_json::from_slice(&spec).unwrap_or(Value::Null),
    }))
}

/// Returns the configuration with the environment as text: its values are bytes.
fn config(config: &ContainerConfig) -> Value {
    let mut shown = json!(config);
    let variable = |(name, value): &(String, Vec<u8>)| format!("{name}={}", String::from_utf8_lossy(value));
    shown["env"] = config.env.iter().map(variable).collect();
    shown
}

/// Returns an image's layers, and its configuration as the OCI image specification spells it.
pub(super) fn image(image: &Image) -> HashMap<String, String> {
    let config = &image.config;
    info(&json!({
        "chainID": image.layers.last().map(ToString::to_string),
        "layers": image.layers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "imageSpec": {
            "created": image.created,
            "architecture": image.architecture,
            "os": image.os,
            "variant": image.variant,
            "config": {
                "User": config.user,
                "Env": config.env,
                "Entrypoint": config.entrypoint,
                "Cmd": config.cmd,
                "WorkingDir": config.working_dir,
                "Volumes": config.volumes,
                "ExposedPorts": config.exposed_ports,
                "Labels": config.labels,
                "StopSignal": config.stop_signal,
            },
        },
    }))
}

/// Returns the daemon's configuration, the state of the network, and the pods of an earlier daemon that are not
/// recovered yet.
pub(super) fn daemon(
    config: &crate::config::Config,
    network: &Value,
    pending: &[String],
) -> HashMap<String, String> {
    let mut shown = json!(config);
    shown["rootDir"] = json!(config.root);
    shown["stateDir"] = json!(config.state);
    shown["cgroupDriver"] = json!("cgroupfs");
    let startup = json!({ "podsNotTakenUp": pending });
    let shown = [("config", &shown), ("network", network), ("startup", &startup)];
    shown.map(|(name, value)| (name.to_owned(), value.to_string())).into()
}
