"""One node: a berthd, a kubelet without an API server on top of it, and what can be asked of both."""
import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.error
import urllib.request

MANIFESTS = pathlib.Path(__file__).parent / "manifests"


class Expected(AssertionError):
    """What a scenario expected and did not find."""


def expect(holds, what):
    if not holds:
        raise Expected(what)


class Node:
    """`directory` is one that hack/start filled; kubelet's configuration is in it as kubelet.yaml."""

    def __init__(self, directory, kubelet, berthd, crictl):
        self.directory = pathlib.Path(directory)
        self.binaries = {"kubelet": kubelet, "berthd": berthd, "crictl": crictl}
        self.readonly = self._configured("readOnlyPort")
        self.cgroup = self._configured("cgroupRoot")
        self.ports = [int(port) for port in (self.directory / "ports").read_text().split()]
        self.kubelet = None
        self.berthd_pid = int((self.directory / "daemon.pid").read_text())

    def _configured(self, key):
        for line in (self.directory / "kubelet.yaml").read_text().splitlines():
            if line.startswith(key + ":"):
                return line.split(":", 1)[1].strip()
        raise KeyError(key)

    # The daemons.

    def start_kubelet(self, *arguments):
        self.start_kubelet_unanswered(*arguments)
        self.wait_kubelet()

    def start_kubelet_unanswered(self, *arguments):
        self.kubelet_arguments = arguments
        command = [self.binaries["kubelet"], "--config", self.directory / "kubelet.yaml", "--hostname-override", "node",
                   "--root-dir", self.directory / "kubelet", "--cert-dir", self.directory / "kubelet/pki", "--v", "2", *arguments]
        with open(self.directory / "kubelet.log", "ab") as log:
            self.kubelet = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_kubelet(self):
        self.wait(60, "kubelet answers", self.kubelet_answers)

    def kubelet_answers(self):
        # It ends where it is sooner than the runtime's socket, and its unit on a node starts it again.
        if self.kubelet.poll() is not None:
            self.start_kubelet_unanswered(*self.kubelet_arguments)
        return self.pods() is not None

    def kill_kubelet(self):
        self.kubelet.kill()
        self.kubelet.wait()

    def stop_kubelet(self):
        if self.kubelet and self.kubelet.poll() is None:
            self.kubelet.send_signal(signal.SIGTERM)
            self.kubelet.wait(30)

    def kill_berthd(self):
        os.kill(self.berthd_pid, signal.SIGKILL)
        self.wait(10, "berthd is gone", lambda: not alive(self.berthd_pid))

    def start_berthd(self):
        with open(self.directory / "daemon.log", "ab") as log:
            command = [self.binaries["berthd"], "--config", self.directory / "config.toml"]
            daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.berthd_pid = daemon.pid
        (self.directory / "daemon.pid").write_text(str(daemon.pid))
        self.wait(30, "berthd answers", lambda: self.crictl("version") is not None)

    # Manifests.

    def place(self, name):
        """Gives kubelet the pod of manifests/NAME.yaml."""
        text = (MANIFESTS / (name + ".yaml")).read_text().replace("@dir@", str(self.directory))
        for number, port in enumerate(self.ports, 1):
            text = text.replace(f"@port{number}@", str(port))
        partial = self.directory / (name + ".partial")
        partial.write_text(text)
        partial.rename(self.directory / "manifests" / (name + ".yaml"))

    def drop(self, name):
        """Takes the manifest away."""
        (self.directory / "manifests" / (name + ".yaml")).unlink(missing_ok=True)

    def withdraw(self, name):
        """Takes the manifest away and waits until nothing of the pod is left; kubelet removes what ended once a minute."""
        pod = self.pod(name)
        self.drop(name)
        self.wait(90, f"{name} is gone from kubelet", lambda: self.pod(name) is None)
        self.wait(150, f"{name} is gone from berthd", lambda: not self.sandboxes(name))
        if pod:
            self.wait(60, f"cgroup of {name} is gone", lambda: not self.cgroups(pod["metadata"]["uid"]))

    def expect_nothing_left(self):
        """Once every manifest is gone, so is every trace of a pod."""
        for manifest in (self.directory / "manifests").iterdir():
            manifest.unlink()
        self.wait(150, "every pod is gone", lambda: not self.pods() and not self.sandboxes())
        self.wait(60, "every pod's cgroup is gone", lambda: not self.cgroups("*"))
        mounts = pathlib.Path("/proc/mounts").read_text()
        expect(str(self.directory / "kubelet/pods") not in mounts, "no volume stays mounted")
        expect(not any(alive(pid) for pid in self.shims()), "no shim lives on")
        for kind in ("state/sandboxes", "state/containers", "root/containers"):
            left = list((self.directory / kind).iterdir())
            expect(not left, f"{kind} is empty, not {left}")

    # What kubelet says.

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.readonly}{path}", timeout=10) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def pods(self):
        answer = self.get("/pods")
        return None if answer is None else answer.get("items") or []

    def pod(self, name):
        """A static pod's name gets the node's appended."""
        return next((pod for pod in self.pods() or [] if pod["metadata"]["name"] == name + "-node"), None)

    def status(self, name):
        return (self.pod(name) or {}).get("status", {})

    def container(self, name, container, kind="containerStatuses"):
        """Status of one container, or an empty one."""
        return next((one for one in self.status(name).get(kind, []) if one["name"] == container), {})

    def ready(self, name):
        return any(c["type"] == "Ready" and c["status"] == "True" for c in self.status(name).get("conditions", []))

    def wait_ready(self, name, seconds=60):
        self.wait(seconds, f"{name} is ready", lambda: self.ready(name))

    def wait_phase(self, name, phase, seconds=60):
        self.wait(seconds, f"{name} is {phase}", lambda: self.status(name).get("phase") == phase)

    def summary(self, name):
        """The pod's part of /stats/summary, or an empty one."""
        pods = (self.get("/stats/summary") or {}).get("pods", [])
        return next((pod for pod in pods if pod["podRef"]["name"] == name + "-node"), {})

    # What Berth says.

    def crictl(self, *arguments):
        endpoint = f"unix://{self.directory}/runtime.sock"
        command = [self.binaries["crictl"], "--runtime-endpoint", endpoint, "--timeout", "20s", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else None

    def sandboxes(self, name=None):
        """Sandboxes of one pod, or all."""
        listed = self.crictl("pods", "-o", "json")
        expect(listed is not None, "berthd lists its pods")
        items = json.loads(listed).get("items") or []
        return [one for one in items if name is None or one["metadata"]["name"] == name + "-node"]

    def containers(self, name):
        """Every container of the pod, also those that ended, by name, the newest of each."""
        sandboxes = {one["id"] for one in self.sandboxes(name)}
        listed = json.loads(self.crictl("ps", "-a", "-o", "json") or '{"containers": []}').get("containers") or []
        mine = [one for one in listed if one["podSandboxId"] in sandboxes]
        return {one["metadata"]["name"]: one for one in sorted(mine, key=lambda one: int(one["createdAt"]))}

    def inspect(self, name, container):
        return json.loads(self.crictl("inspect", self.containers(name)[container]["id"]))

    def execute(self, name, container, *command):
        """What a command in a container prints; fails when the command does."""
        identity = self.containers(name)[container]["id"]
        said = self.crictl("exec", "-s", identity, *command)
        expect(said is not None, f"exec {command} in {name}/{container}")
        return said.strip()

    # What the host says.

    def cgroups(self, uid):
        """Every cgroup directory of a pod, over all hierarchies."""
        return [path for path in pathlib.Path("/sys/fs/cgroup").glob(f"**{self.cgroup}/**/pod{uid}")]

    def shims(self):
        """Pids of the shims that were started for this node."""
        processes = (path for path in pathlib.Path("/proc").iterdir() if path.name.isdigit())
        return [int(path.name) for path in processes if f"-address\0{self.directory}/".encode() in command_line(path)]

    def log(self, name, container):
        """A container's log files, the current one first."""
        pattern = f"*_{name}-node_*/{container}/*.log*"
        return sorted((self.directory / "pod-logs").glob(pattern), key=lambda path: (path.name != "0.log", path.name))

    @staticmethod
    def wait(seconds, what, holds):
        deadline = time.monotonic() + seconds
        while not holds():
            expect(time.monotonic() < deadline, f"{what}, within {seconds} s")
            time.sleep(0.2)


def alive(pid):
    """A zombie has no binary any more."""
    try:
        os.readlink(f"/proc/{pid}/exe")
        return True
    except OSError:
        return False


def command_line(process):
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
