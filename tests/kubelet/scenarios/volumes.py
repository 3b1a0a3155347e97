"""What is mounted into containers."""
import json

from node import expect


def every_kind(node, name):
    node.place(name)
    node.wait_ready(name)
    (node.directory / "host-directory/from-host").write_text("hello")
    run = lambda *command: node.execute(name, "main", *command)
    expect(run("cat", "/directory/from-host") == "hello", "the host's directory")
    expect(node.crictl("exec", "-s", node.containers(name)["main"]["id"], "touch", "/directory/x") is None, "is read-only")
    expect((node.directory / "host-missing").is_dir(), "a missing host path becomes a directory")
    expect((node.directory / "host-file").is_file(), "a missing host file becomes a file")
    expect(run("sh", "-c", "echo x > /empty/sub/file && cat /sub/file") == "x", "a part of a volume")
    expect(run("stat", "-c", "%g", "/empty/sub/file") == "4321", "the volume's group")
    expect(run("sh", "-c", "df -k /memory | tail -1 | awk '{print $2}'") == "1024", "a tmpfs of 1 MiB")
    expect(run("cat", "/downward/name") == name + "-node", "the downward API")
    expect(run("id", "-u") == "1234", "the user")
    expect("0.0.0.0" not in run("cat", "/etc/hosts") and name in run("cat", "/etc/hosts"), "kubelet's /etc/hosts")


def projected(node, name):
    """kubelet makes such volumes only when it was told of an API server, were it one that nobody has ever seen."""
    unanswered = node.directory / "unanswered.kubeconfig"
    unanswered.write_text(json.dumps({
        "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
        "users": [{"name": "none", "user": {}}],
        "current-context": "none",
    }))
    node.stop_kubelet()
    node.start_kubelet("--kubeconfig", unanswered)
    try:
        node.place(name)
        node.wait_ready(name)
        run = lambda *command: node.execute(name, "main", *command)
        expect(run("cat", "/projected/limits/cpu") == "1", "the limit")
        expect(run("cat", "/projected/labels") == 'of="label"', "the labels")
        expect(run("cat", "/labels") == 'of="label"', "the labels by themselves")
        expect(run("stat", "-Lc", "%a", "/projected/labels") == "400", "the mode")
    finally:
        # A kubelet that waits for its API server's pods removes none.
        node.stop_kubelet()
        node.start_kubelet()


def image(node, name):
    node.place(name)
    node.wait_ready(name)
    expect(node.execute(name, "main", "test", "-x", "/image/pause") == "", "the image's file")
    expect("root" in node.execute(name, "main", "cat", "/part/passwd"), "a directory of an image")
    for target in ("/image/x", "/part/x"):
        refused = node.crictl("exec", "-s", node.containers(name)["main"]["id"], "touch", target) is None
        expect(refused, f"{target} is read-only")
