"""Container logs."""
import re

from node import expect

LINE = re.compile(rb"^\S+ (stdout|stderr) ([FP]) (.*)$")


def lines(path):
    for line in path.read_bytes().splitlines():
        found = LINE.match(line)
        expect(found, f"a line of the CRI format, not {line[:80]!r}")
        yield found


def rotated_by_kubelet(node, name):
    node.place(name)
    node.wait_ready(name)
    node.wait(90, "kubelet rotates the log", lambda: len(node.log(name, "main")) >= 2)
    node.wait(60, "the log in use is small again", lambda: node.log(name, "main")[0].stat().st_size < 2 << 20)
    node.wait(30, "the last line", lambda: any(b"39999-" in path.read_bytes() for path in node.log(name, "main")
                                               if path.suffix != ".gz"))


def hundred_megabytes(node, name):
    node.place(name)
    node.wait_phase(name, "Succeeded", 120)
    # Rotation keeps three files; what is there must be whole lines.
    for path in node.log(name, "main"):
        if path.suffix not in (".gz", ".tmp"):
            for line in lines(path):
                expect(len(line[3]) <= 100, "lines of 100 bytes")
