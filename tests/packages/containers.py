"""Containers in namespaces of their own: their ports and networks are not those of the real machine."""

import os
import subprocess
import sys
from pathlib import Path

from machine import eventually

# podman takes cgroups of version 2 only. The owner of a container's standard input becomes the user of the container: that must
# not be the `/dev/null` of the real machine.
SET_UP = r"""
set -eu
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /mnt
mknod -m 666 /mnt/null c 1 3
mount --bind /mnt/null /dev/null
ip link set lo up
echo ready
exec sleep infinity
"""


class Containers:
    def __init__(self):
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "sh", "-c", SET_UP]
        self.holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "ready\n"

    def _entering(self, script):
        return ["nsenter", "-t", str(self.holder.pid), "-m", "-n", "bash", "-ec", script]

    def beside(self, script):
        """Starts a script in these namespaces, without its output."""
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        return subprocess.Popen(self._entering(script), **quiet)

    def run(self, script, check=True, **environment):
        """Runs a script of commands such as `podman` and `podman-compose`."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        ended = subprocess.run(
            self._entering(script),
            input="",
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"PATH": path} | environment,
        )
        assert not check or ended.returncode == 0, f"{script}\n{ended.stdout}{ended.stderr}"
        return ended

    def output(self, script, **environment):
        return self.run(script, **environment).stdout.strip()

    def status(self, path):
        """The status of an answer of the server, 000 while there is none."""
        asked = f"curl -s -o /dev/null -w '%{{http_code}}' --max-time 5 http://127.0.0.1:8080{path}"
        return self.run(asked, check=False).stdout

    def wait_until_ready(self):
        eventually(lambda: self.status("/readyz") == "200", "an answer to /readyz")

    def close(self):
        self.run("podman rm --all --force --time 0; podman volume prune --force", check=False)
        self.holder.kill()
        self.holder.wait()
