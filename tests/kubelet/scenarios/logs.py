"""Container logs."""
import re

from node import expect

LINE = re.compile(rb"^\S+ (stdout|stderr) ([FP]) (.*)$")


def texts(node, name):
    """Every log that is not compressed; kubelet renames them as it pleases."""
    while True:
        try:
            return [path.read_bytes() for path in node.log(name, "main") if path.suffix not in (".gz", ".tmp")]
        except FileNotFoundError:
            pass


def lines(text):
    for line in text.splitlines():
        found = LINE.match(line)
        expect(found, f"a line of the CRI format, not {line[:80]!r}")
        yield found


def rotated_by_kubelet(node, name):
    node.place(name)
    node.wait_ready(name)
    node.wait(90, "kubelet rotates the log", lambda: len(node.log(name, "main")) >= 2)
    node.wait(60, "the log in use is small again", lambda: len(b"".join(texts(node, name)[:1])) < 2 << 20)
    node.wait(30, "the last line", lambda: any(b"39999-" in text for text in texts(node, name)))


def hundred_megabytes(node, name):
    node.place(name)
    node.wait_phase(name, "Succeeded", 120)
    # Rotation keeps three files; what is there must be whole lines.
    for text in texts(node, name):
        for line in lines(text):
            expect(len(line[3]) <= 100, "lines of 100 bytes")
    node.wait(10, "a log in use", lambda: texts(node, name))
