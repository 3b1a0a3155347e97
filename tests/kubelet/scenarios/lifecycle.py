"""Starting, ending and starting again."""
import time

from node import expect


def init_containers_in_order(node, name):
    node.place(name)
    node.wait_phase(name, "Succeeded")
    first, second = (node.container(name, one, "initContainerStatuses")["state"]["terminated"] for one in ("first", "second"))
    main = node.container(name, "main")["state"]["terminated"]
    expect(first["finishedAt"] <= second["startedAt"] <= second["finishedAt"] <= main["startedAt"], "one after the other")


def sidecar_outlives_nothing(node, name):
    node.place(name)
    node.wait_phase(name, "Succeeded")
    main = node.container(name, "main")["state"]["terminated"]
    sidecar = node.container(name, "sidecar", "initContainerStatuses")["state"]["terminated"]
    expect(main["exitCode"] == 0, "the sidecar was there first")
    expect(sidecar["exitCode"] == 0 and sidecar["finishedAt"] >= main["finishedAt"], "it ended last, as asked")


def exits_are_kept(node, name):
    node.place(name)
    node.wait_phase(name, "Failed")
    good, bad = (node.container(name, one)["state"]["terminated"] for one in ("good", "bad"))
    expect((good["exitCode"], good["reason"]) == (0, "Completed"), f"0 and Completed, not {good}")
    expect((bad["exitCode"], bad["reason"]) == (7, "Error"), f"7 and Error, not {bad}")
    expect(bad["message"].strip() == "a last word", "the termination message")
    expect(node.inspect(name, "bad")["status"]["exitCode"] == 7, "Berth knows it too")


def restarts_back_off(node, name):
    node.place(name)
    waiting = lambda: node.container(name, "main").get("state", {}).get("waiting", {}).get("reason")
    node.wait(60, "CrashLoopBackOff", lambda: waiting() == "CrashLoopBackOff")
    node.wait(60, "two restarts", lambda: node.container(name, "main").get("restartCount", 0) >= 2)
    last = node.container(name, "main")["lastState"]["terminated"]
    expect((last["exitCode"], last["reason"]) == (3, "Error"), f"3 and Error, not {last}")


def grace_period(node, name):
    node.place(name)
    node.wait_ready(name)
    asked = time.time()
    node.drop(name)
    node.wait(40, "both containers end", lambda: all(one["state"] == "CONTAINER_EXITED" for one in node.containers(name).values()))
    took = time.time() - asked
    written = {file.name: int(file.read_text()) for file in (node.directory / "grace").iterdir()}
    expect(written["prestop"] + 1 <= written["term"], "SIGTERM comes after the preStop hook")
    expect(written["alive"] >= int(asked) + 3, "the one that ignores SIGTERM has its 4 seconds")
    expect(4 <= took < 20, f"gone after 4 s and a little, not {took:.1f}")
