"""Every scenario is a function that takes the node and the name of its manifest."""
from . import crashes, lifecycle, logs, network, probes, resources, stats, volumes

# Run side by side: kubelet collects what has ended once a minute only.
TOGETHER = {
    "init": lifecycle.init_containers_in_order,
    "sidecar": lifecycle.sidecar_outlives_nothing,
    "never": lifecycle.exits_are_kept,
    "backoff": lifecycle.restarts_back_off,
    "grace": lifecycle.grace_period,
    "probes": probes.every_kind,
    "unhealthy": probes.failing_liveness_restarts,
    "oom": resources.oom_has_its_reason,
    "besteffort": resources.best_effort,
    "burstable": resources.burstable,
    "guaranteed": resources.guaranteed,
    "volumes": volumes.every_kind,
    "imagevolume": volumes.image,
    "hostnetwork": network.host_network,
    "hostport": network.host_port,
    "userns": network.user_namespace,
    "logs": logs.rotated_by_kubelet,
    "manylogs": logs.hundred_megabytes,
    "stats": stats.summary,
}

# Run one after the other, since what they do to the node concerns every pod.
ALONE = {
    "projected": volumes.projected,
    "kubelet-killed": crashes.kubelet_killed,
    "berthd-killed": crashes.berthd_killed,
    "both-killed": crashes.both_killed,
}
