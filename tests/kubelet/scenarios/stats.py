"""What kubelet tells of a pod's use of the node."""
from node import expect


def summary(node, name):
    node.place("steady")
    node.wait_ready("steady")
    def told():
        pod = node.summary("steady")
        return pod.get("memory", {}).get("workingSetBytes") and pod.get("network", {}).get("rxBytes") and pod
    node.wait(60, "memory and network of the pod", told)
    pod = told()
    expect({one["name"] for one in pod["containers"]} == {"main", "web"}, "both containers")
    expect(pod["cpu"]["usageCoreNanoSeconds"] > 0, "time on the cpu")
    expect(pod["process_stats"]["process_count"] >= 2, "its processes")
    for container in pod["containers"]:
        expect(container["memory"]["workingSetBytes"] > 0, f"memory of {container['name']}")
        expect("usedBytes" in container["rootfs"] and "usedBytes" in container["logs"], f"disk use of {container['name']}")
    node.withdraw("steady")
