"""kubelet, berthd, or both killed with SIGKILL: the pods must not notice."""
import time

from node import expect

SETTLING = 15  # seconds in which kubelet looks at every pod at least once


def kubelet_killed(node, name):
    undisturbed(node, lambda: (node.kill_kubelet(), node.start_kubelet()))


def berthd_killed(node, name):
    undisturbed(node, lambda: (node.kill_berthd(), node.start_berthd()))


def both_killed(node, name):
    undisturbed(node, lambda: (node.kill_berthd(), node.kill_kubelet(), node.start_berthd(), node.start_kubelet()))
    undisturbed(node, lambda: (node.kill_kubelet(), node.kill_berthd(), node.start_kubelet_unanswered(), node.start_berthd(),
                               node.wait_kubelet()))


def undisturbed(node, disturb):
    node.place("steady")
    node.wait_ready("steady")
    before, beat = identity(node), beats(node)
    disturb()
    node.wait_ready("steady")
    # Nothing to wait for: that nothing happens is the point.
    time.sleep(SETTLING)
    expect(identity(node) == before, f"the same containers, started at the same time: {before}, now {identity(node)}")
    times = beats(node)
    expect(times[: len(beat)] == beat, "the pod's volume is what it was")
    expect(all(later - earlier <= 3 for earlier, later in zip(times, times[1:])), "it never stood still")
    node.withdraw("steady")


def identity(node):
    return {name: (one["id"], one["createdAt"], node.container("steady", name)["restartCount"])
            for name, one in node.containers("steady").items()}


def beats(node):
    return [int(line) for line in node.execute("steady", "main", "cat", "/empty/beat").split()]
