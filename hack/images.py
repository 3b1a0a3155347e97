#!/usr/bin/env python3
"""images.py ADDRESS ROOTFS: makes the images critest asks for from the directories below ROOTFS and pushes them to the
registry at ADDRESS. `images.py ADDRESS DIRECTORY NAME:TAG [ENTRYPOINT...]` pushes one image of the directory, with busybox's shell
if nothing else is its entry point."""
import gzip
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
import urllib.request

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
EPOCH = "1970-01-01T00:00:00Z"
SHELL = {"Cmd": ["sh"]}
E2E, CRITOOLS = "e2e-test-images/", "k8s-staging-cri-tools/"

# What critest 1.36.0 asks for: (directory below ROOTFS, references without the registry, configuration).
# test-image-digest is missing: critest knows it by the digest of public bytes.
IMAGES = [
    ("busybox", [E2E + "busybox:1.29-2", "library/busybox:latest"], SHELL),
    ("nginx", [E2E + "nginx:1.14-2"], {"Entrypoint": ["nginx"], "ExposedPorts": {"80/tcp": {}}}),
    ("httpd", [E2E + "httpd:2.4.39-4"], {"Cmd": ["sh", "/httpd"], "ExposedPorts": {"80/tcp": {}}}),
    ("hostnet-nginx", [CRITOOLS + "hostnet-nginx-" + ARCHITECTURE + ":latest"], {"Entrypoint": ["nginx"]}),
    ("nonewprivs", [E2E + "nonewprivs:1.3"], {"Entrypoint": ["/nonewprivs"]}),
    ("pause", ["pause:3.9"], {"Entrypoint": ["/pause"], "Labels": {"version": "3.9"}}),
    ("pause", ["pause:3.10"], {"Entrypoint": ["/pause"], "Labels": {"version": "3.10"}}),
    ("predefined-group", [CRITOOLS + "test-image-predefined-group:latest"], {**SHELL, "User": "1000"}),
    ("busybox", [CRITOOLS + f"test-image-tags:{n}" for n in (1, 2, 3)], {**SHELL, "Labels": {"test": "tags"}}),
] + [
    ("busybox", [CRITOOLS + reference], {**SHELL, "Labels": {"test": reference}})
    for reference in ("test-image-latest:latest", "test-image-tag:test", "test-image-tag:all",
                      "test-image-1:latest", "test-image-2:latest", "test-image-3:latest")
] + [
    ("busybox", [CRITOOLS + "test-image-user-" + name + ":latest"], {**SHELL, "User": user})
    for name, user in (("uid", "1002"), ("username", "www-data"),
                       ("uid-group", "1003:users"), ("username-group", "www-data:100"))
]


def layer(directory):
    """The directory as a tar: hard links and modes kept, owner root, the same bytes at every run."""
    def plain(entry):
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(os.listdir(directory)):
            tar.add(os.path.join(directory, name), name, filter=plain)
    return out.getvalue()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Repository:
    """One repository of a registry, by the distribution API."""

    def __init__(self, address, name):
        self.base = f"http://{address}/v2/{name}"

    def call(self, method, url, data=None, kind="application/octet-stream"):
        request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
        with urllib.request.urlopen(request) as answer:
            return answer.headers

    def blob(self, data, kind):
        """Uploads a blob and returns its descriptor."""
        location = self.call("POST", self.base + "/blobs/uploads/", b"")["Location"]
        self.call("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest(data)}", data)
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    def image(self, tag, config, layers):
        """Uploads an image's configuration and compressed layers, then the manifest that names them."""
        kind = "application/vnd.oci.image."
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind + "manifest.v1+json",
            "config": self.blob(json.dumps(config).encode(), kind + "config.v1+json"),
            "layers": [self.blob(layer, kind + "layer.v1.tar+gzip") for layer in layers],
        }
        self.call("PUT", f"{self.base}/manifests/{tag}", json.dumps(manifest).encode(), manifest["mediaType"])


def push(address, directory, references, config, layers={}):
    """Pushes the directory as an image of one layer under all the references."""
    if directory not in layers:
        tar = layer(directory)
        layers[directory] = (digest(tar), gzip.compress(tar, 6, mtime=0))
    diff_id, compressed = layers[directory]
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    image = {"architecture": ARCHITECTURE, "os": "linux", "created": EPOCH, "config": {"Env": [path], **config},
             "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    for reference in references:
        name, tag = reference.rsplit(":", 1)
        Repository(address, name).image(tag, image, [compressed])
        print(reference)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        push(sys.argv[1], sys.argv[2], [sys.argv[3]], {"Entrypoint": sys.argv[4:]} if sys.argv[4:] else SHELL)
    else:
        for name, references, config in IMAGES:
            push(sys.argv[1], os.path.join(sys.argv[2], name), references, config)
