"""Probes of each kind."""
from node import expect


def every_kind(node, name):
    node.place(name)
    node.wait_ready(name)
    for container in node.status(name)["containerStatuses"]:
        expect(container["ready"] and container["restartCount"] == 0, f"{container['name']} is ready and was not restarted")


def failing_liveness_restarts(node, name):
    node.place(name)
    node.wait(60, "a restart", lambda: node.container(name, "main").get("restartCount", 0) >= 1)
    last = node.container(name, "main")["lastState"]["terminated"]
    expect(last["exitCode"] == 137, f"killed, not {last}")
