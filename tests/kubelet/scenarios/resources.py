"""Limits, and where kubelet wants its pods' cgroups."""
import pathlib

from node import expect


def oom_has_its_reason(node, name):
    node.place(name)
    node.wait_phase(name, "Failed")
    ended = node.container(name, "main")["state"]["terminated"]
    expect((ended["reason"], ended["exitCode"]) == ("OOMKilled", 137), f"OOMKilled and 137, not {ended}")


def best_effort(node, name):
    check(node, name, "BestEffort", "kubepods/besteffort", memory=None, shares="2", quota="-1")


def burstable(node, name):
    check(node, name, "Burstable", "kubepods/burstable", memory=64 << 20, shares="102", quota="-1")


def guaranteed(node, name):
    check(node, name, "Guaranteed", "kubepods", memory=64 << 20, shares="512", quota="50000")


def check(node, name, qos, parent, memory, shares, quota):
    """The pod's class, its cgroup's place, and the container's limits: asked for, told by Berth, and in the kernel."""
    node.place(name)
    node.wait_ready(name)
    expect(node.status(name)["qosClass"] == qos, f"class {qos}")
    info = node.inspect(name, "main")
    uid = node.pod(name)["metadata"]["uid"]
    path = next(iter(node.containers(name).values()))["id"]
    cgroups = {file.parts[4]: file for file in pathlib.Path("/sys/fs/cgroup").glob(f"*{node.cgroup}/{parent}/pod{uid}/{path}")}
    if "memory" not in cgroups:  # version 2: one hierarchy
        return expect(pathlib.Path(f"/sys/fs/cgroup{node.cgroup}/{parent}/pod{uid}/{path}").is_dir(), "its cgroup")
    cpu = next(file for controllers, file in cgroups.items() if "cpu" in controllers.split(","))
    expect((cpu / "cpu.shares").read_text().strip() == shares, f"cpu.shares {shares}")
    expect((cpu / "cpu.cfs_quota_us").read_text().strip() == quota, f"cpu.cfs_quota_us {quota}")
    limit = int((cgroups["memory"] / "memory.limit_in_bytes").read_text())
    expect(limit == memory if memory else limit > 1 << 60, f"memory limit {memory}, not {limit}")
    told = int(info["status"]["resources"]["linux"].get("memoryLimitInBytes", 0))
    expect(told == (memory or 0), f"Berth tells {memory}, not {told}")
