#!/usr/bin/env python3
"""run.py DIRECTORY KUBELET BERTHD CRICTL [SCENARIO...]: runs scenarios on a node of their own, all of them when none is named.
The last line is `N passed, N failed`; the exit status is 0 when none failed."""
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from node import Expected, Node
from scenarios import ALONE, TOGETHER


def run(node, name, scenario):
    began = time.monotonic()
    try:
        scenario(node, name)
        node.withdraw(name)
        print(f"PASS {name} ({time.monotonic() - began:.1f} s)", flush=True)
        return True
    except Exception as error:  # a scenario that breaks is one that failed; the others go on
        told = f"expected {error}" if isinstance(error, Expected) else traceback.format_exc()
        print(f"FAIL {name}: {told}\n     kubelet says: {node.status(name)}", flush=True)
        node.drop(name)
        return False


def run_all(node, names):
    wanted = lambda scenarios: {name: one for name, one in scenarios.items() if not names or name in names}
    with ThreadPoolExecutor(max_workers=8) as pool:
        results = list(pool.map(lambda pair: run(node, *pair), wanted(TOGETHER).items()))
    return results + [run(node, *pair) for pair in wanted(ALONE).items()]


def main(directory, kubelet, berthd, crictl, *names):
    node = Node(directory, kubelet, berthd, crictl)
    node.start_kubelet()
    try:
        results = run_all(node, names)
        results.append(run(node, "nothing-left", lambda node, name: node.expect_nothing_left()))
    finally:
        node.stop_kubelet()
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
