#!/usr/bin/env python3
"""critest-summary.py REPORT: what a ginkgo JSON report says, by group; the failed specs with their causes; the counts."""
import collections
import json
import sys

COUNTED = ("passed", "failed", "skipped")
groups = collections.defaultdict(collections.Counter)
failed, skipped = [], []

for suite in json.load(open(sys.argv[1])):
    for spec in suite["SpecReports"] or []:
        if spec["LeafNodeType"] != "It" or "benchmark" in " ".join(spec["ContainerHierarchyTexts"] or []).lower():
            continue
        names = [name.removeprefix("[k8s.io] ") for name in spec["ContainerHierarchyTexts"] or []]
        state = spec["State"] if spec["State"] in ("passed", "skipped") else "failed"
        if state == "skipped" and not spec.get("Failure", {}).get("Message"):
            continue  # not selected by the flags
        groups[names[0]][state] += 1
        line = " > ".join(names + [spec["LeafNodeText"]])
        cause = " ".join(spec.get("Failure", {}).get("Message", "").split())
        if state != "passed":
            (failed if state == "failed" else skipped).append(f"{line}\n      {cause[:300]}")

for group, counts in sorted(groups.items()):
    print(f"{group:36}" + "".join(f" {counts[state]:4} {state}" for state in COUNTED))
for title, specs in (("skipped", skipped), ("failed", failed)):
    for spec in specs:
        print(f"{title}: {spec}")
total = sum(groups.values(), collections.Counter())
print(", ".join(f"{total[state]} {state}" for state in COUNTED))
