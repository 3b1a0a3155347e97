"""Networks, and the namespaces that matter to others."""
import urllib.request

from node import expect


def host_network(node, name):
    node.place(name)
    node.wait_ready(name)
    expect(not node.inspect(name, "main")["status"].get("reason"), "runs")
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports[0]}/hostname", timeout=5) as answer:
        expect(answer.status == 200, "answers on the host's own port")


def host_port(node, name):
    node.place(name)
    node.wait_ready(name)
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports[1]}/hostname", timeout=5) as answer:
        expect(answer.read().decode() == name + "-node", "the pod answers on the host's port")
    expect(node.status(name)["podIP"] not in ("", "127.0.0.1"), "and has an address of its own")


def user_namespace(node, name):
    node.place(name)
    node.wait_ready(name)
    inside, outside, length = node.execute(name, "main", "cat", "/proc/self/uid_map").split()
    expect(inside == "0" and int(outside) >= 65536 and int(length) >= 65536, "root is mapped to somebody else")
    expect(node.execute(name, "main", "id", "-u") == "0", "who is root inside")
    expect(node.execute(name, "main", "stat", "-c", "%u", "/empty/mine") == "0", "and owns what it made in a volume")
    uid = node.pod(name)["metadata"]["uid"]
    made = node.directory / f"kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/empty/mine"
    expect(made.stat().st_uid == 0, "which is nobody's but root's on the host, by an idmapped mount")
