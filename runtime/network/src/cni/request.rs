//! The JSON that a plugin reads from standard input, and the arguments derived from the pod.

use serde_json::{Map, Value, json};

use super::conf::{NetworkConf, PluginConf};
use crate::{Bandwidth, Cidr, Error, PodNetwork, PortMapping};

/// A burst so large that only the rate has an effect.
const UNLIMITED_BURST: u64 = i32::MAX as u64;

/// Builds one plugin's input: its part of the file, the network's name and version, the arguments of the capabilities
/// that it declares, and the result so far.
pub(super) fn request(
    network: &NetworkConf,
    plugin: &PluginConf,
    capability_args: &Map<String, Value>,
    previous: Option<&Value>,
) -> Map<String, Value> {
    let mut body = plugin.body().clone();
    body.remove("capabilities");
    body.insert("name".into(), network.name.clone().into());
    body.insert("cniVersion".into(), network.version.as_str().into());
    let declared = capability_args.iter().filter(|(capability, _)| plugin.declares(capability));
    let runtime_config: Map<_, _> = declared.map(|(key, value)| (key.clone(), value.clone())).collect();
    if !runtime_config.is_empty() {
        body.insert("runtimeConfig".into(), runtime_config.into());
    }
    if let Some(previous) = previous {
        body.insert("prevResult".into(), previous.clone());
    }
    body
}

/// Returns CNI_ARGS as plugins for Kubernetes expect it.
pub(super) fn arguments(pod: &PodNetwork) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        pod.namespace, pod.name, pod.id, pod.uid
    )
}

/// Builds the arguments of all capabilities from the pod and the node's `ranges`; empty ones are left out.
pub(super) fn capability_args(pod: &PodNetwork, ranges: &[Cidr]) -> Result<Map<String, Value>, Error> {
    let ports: Vec<Value> =
        pod.port_mappings.iter().filter(|mapping| mapping.host_port > 0).map(port_mapping).collect();
    let present = [
        ("portMappings", (!ports.is_empty()).then(|| ports.into())),
        ("dns", (!pod.dns.is_empty()).then(|| json!(pod.dns))),
        ("bandwidth", pod.bandwidth()?.map(bandwidth)),
        ("ipRanges", (!ranges.is_empty()).then(|| ranges.iter().map(ip_range).collect())),
        ("cgroupPath", (!pod.cgroup_parent.is_empty()).then(|| json!(pod.cgroup_parent))),
        ("io.kubernetes.cri.pod-annotations", (!pod.annotations.is_empty()).then(|| json!(pod.annotations))),
    ];
    Ok(present.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
}

/// Returns a range set, from which the pod gets one address. A node has one range per family, so each is its own set.
fn ip_range(range: &Cidr) -> Value {
    json!([{ "subnet": range.to_string() }])
}

fn port_mapping(mapping: &PortMapping) -> Value {
    json!({
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": mapping.protocol,
        "hostIP": mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    })
}

fn bandwidth(limits: Bandwidth) -> Value {
    let mut value = Map::new();
    for (direction, rate) in [("ingress", limits.ingress), ("egress", limits.egress)] {
        if let Some(rate) = rate {
            value.insert(format!("{direction}Rate"), rate.into());
            value.insert(format!("{direction}Burst"), UNLIMITED_BURST.into());
        }
    }
    value.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Dns, Protocol};

    fn network(plugin: Value) -> NetworkConf {
        serde_json::from_value(json!({
            "name": "net", "version": "1.0.0", "disable_check": false, "disable_gc": false,
            "plugins": [plugin], "source": "/etc/cni/net.d/10-net.conflist",
        }))
        .unwrap()
    }

    fn pod() -> PodNetwork {
        PodNetwork {
            id: "abc".into(),
            name: "web".into(),
            namespace: "default".into(),
            uid: "u-1".into(),
            annotations: annotations(&[("a", "b"), ("kubernetes.io/ingress-bandwidth", "1k")]),
            port_mappings: vec![
                PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None },
                PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 0, host_ip: None },
            ],
            dns: Dns { servers: vec!["10.0.0.10".into()], ..Dns::default() },
            cgroup_parent: "/kubepods/pod1".into(),
            ..PodNetwork::default()
        }
    }

    fn annotations(of: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn arguments_of(pod: &PodNetwork) -> Map<String, Value> {
        capability_args(pod, &[]).unwrap()
    }

    #[test]
    fn a_plugin_gets_only_what_it_declared() {
        let plugin =
            json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true, "dns": false}});
        let network = network(plugin);
        let body = request(&network, &network.plugins[0], &arguments_of(&pod()), Some(&json!({"ips": []})));
        let expected = json!({
            "type": "portmap", "snat": true, "name": "net", "cniVersion": "1.0.0", "prevResult": {"ips": []},
            "runtimeConfig": {"portMappings":
                [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]},
        });
        assert_eq!(Value::Object(body), expected);
    }

    #[test]
    fn without_capabilities_there_is_no_runtime_config() {
        let network = network(json!({"type": "bridge"}));
        let body = request(&network, &network.plugins[0], &arguments_of(&pod()), None);
        assert_eq!(Value::Object(body), json!({"type": "bridge", "name": "net", "cniVersion": "1.0.0"}));
    }

    #[test]
    fn a_pod_that_asks_for_nothing_has_no_arguments() {
        assert!(arguments_of(&PodNetwork::default()).is_empty());
    }

    #[test]
    fn limits_dns_cgroup_and_annotations_are_passed_as_the_conventions_say() {
        let args = arguments_of(&pod());
        assert_eq!(args["bandwidth"], json!({"ingressRate": 1000, "ingressBurst": 2147483647}));
        assert_eq!(args["dns"], json!({"servers": ["10.0.0.10"]}));
        assert_eq!(args["cgroupPath"], json!("/kubepods/pod1"));
        assert_eq!(args["io.kubernetes.cri.pod-annotations"], json!(pod().annotations));
    }

    #[test]
    fn the_nodes_ranges_are_sets_of_one_and_a_wrong_limit_is_refused() {
        let ranges = ["10.1.0.0/16", "fd00::/64"].map(|range| range.parse().unwrap());
        let args = capability_args(&pod(), &ranges).unwrap();
        assert_eq!(args["ipRanges"], json!([[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00::/64"}]]));
        let wrong =
            PodNetwork { annotations: annotations(&[("kubernetes.io/egress-bandwidth", "-1")]), ..pod() };
        let error = capability_args(&wrong, &ranges).unwrap_err().to_string();
        assert!(error.contains("kubernetes.io/egress-bandwidth") && error.contains("-1"), "{error}");
    }

    #[test]
    fn kubernetes_arguments_name_the_pod() {
        assert_eq!(
            arguments(&pod()),
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u-1"
        );
    }
}
