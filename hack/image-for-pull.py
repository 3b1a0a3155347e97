#!/usr/bin/env python3
"""image-for-pull.py ADDRESS NAME:TAG MEBIBYTES: pushes an image of about that size unpacked, in four layers of many small and a
few large files that compress about threefold, unless the registry has it already."""
import gzip
import io
import random
import sys
import tarfile
import urllib.error

from images import ARCHITECTURE, Repository, digest

LAYERS = 4


def layer(number, size):
    """The same pseudo-random text at every run, as a tar: 19 in 20 files of 8 KiB, the others of 512 KiB."""
    chance = random.Random(number)
    words = [chance.randbytes(chance.randrange(2, 9)).hex().encode() for _ in range(4000)]
    block = b" ".join(chance.choices(words, k=200_000))
    out, written, count = io.BytesIO(), 0, 0
    with tarfile.open(fileobj=out, mode="w") as tar:
        while written < size:
            length = 8 << 10 if count % 20 else 512 << 10
            at = chance.randrange(len(block) - length)
            entry = tarfile.TarInfo(f"data/{number}/{count % 97}/{count}")
            entry.size = length
            tar.addfile(entry, io.BytesIO(block[at:at + length]))
            written, count = written + length, count + 1
    return out.getvalue()


def main(address, reference, mebibytes):
    name, tag = reference.rsplit(":", 1)
    repository = Repository(address, name)
    try:
        repository.call("HEAD", f"{repository.base}/manifests/{tag}")
        return
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
    tars = [layer(number, mebibytes * (1 << 20) // LAYERS) for number in range(LAYERS)]
    repository.image(
        tag,
        {"architecture": ARCHITECTURE, "os": "linux", "config": {},
         "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]}},
        [gzip.compress(tar, 6, mtime=0) for tar in tars])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
