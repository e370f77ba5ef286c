"""A Debian machine with systemd as process 1, in namespaces of its own: nothing that happens in it changes the real one.

Its files lie in an overlay over a base that debootstrap makes once. Its network is a loopback, so every port is free.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

# Longest wait for something that takes seconds.
PATIENCE = 60

BOOT = r"""
set -eu
ip link set lo up
hostname debian
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
cd "$FOLDER/root"
mount -t proc proc proc
# Settings of the kernel belong to the real machine.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
  touch "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
ln -s /proc/self/fd dev/fd
mkdir dev/pts dev/shm
echo "127.0.0.1 localhost debian" > etc/hosts
ln -s pts/ptmx dev/ptmx
pivot_root . mnt
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . sh -c '
  umount -l /mnt
  exec /lib/systemd/systemd --unit=basic.target --log-target=journal
'
"""


def eventually(fact, what):
    """Waits until `fact()` is true, and returns what it returned."""
    deadline = time.monotonic() + PATIENCE
    while not (found := fact()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.05)
    return found


def cgroup_folder():
    """Where the kernel shows the cgroups of version 2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return Path(next(mount[1] for mount in mounts if mount[2] == "cgroup2"))


class Machine:
    """Boots at once; `close` ends all that runs in it."""

    def __init__(self, base, folder):
        self.cgroup = cgroup_folder() / f"aldaba-test-{os.getpid()}-{folder.name}"
        self.cgroup.mkdir()
        for name in ("upper", "work", "root"):
            (folder / name).mkdir()
        (folder / "boot.sh").write_text(BOOT)
        namespaces = "--mount --pid --fork --kill-child --ipc --uts --net --cgroup"
        start = f'echo $$ > "$CGROUP/cgroup.procs"; exec setpriv --pdeathsig KILL unshare {namespaces} sh "$FOLDER/boot.sh"'
        around = {"CGROUP": str(self.cgroup), "FOLDER": str(folder), "BASE": str(base)}
        self.log = folder / "boot.log"
        with self.log.open("w") as log:
            self.outer = subprocess.Popen(
                ["sh", "-c", start], env=os.environ | around, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.pid = eventually(self._first_process, "the first process")
        eventually(self._has_booted, "the boot")

    def _first_process(self):
        assert self.outer.poll() is None, self.log.read_text()
        children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def _has_booted(self):
        assert self.outer.poll() is None, self.log.read_text()
        if Path(f"/proc/{self.pid}/comm").read_text().strip() != "systemd":
            return False
        return self.run("systemctl is-active basic.target", check=False).stdout.strip() == "active"

    def _entering(self, script, whole):
        namespaces = ["-m", "-p", "-i", "-u", "-n", "-C", "-r", "-w"] if whole else ["-n"]
        return ["nsenter", "-t", str(self.pid), *namespaces, "bash", "-ec", script]

    def run(self, script, check=True):
        """Runs a script as root in the machine."""
        command = self._entering(script, whole=True)
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        assert not check or ended.returncode == 0, f"{script}\n{ended.stdout}{ended.stderr}"
        return ended

    def output(self, script):
        return self.run(script).stdout.strip()

    def beside(self, script, **options):
        """Starts a script with the programs and files of the real machine, in the network of this one."""
        return subprocess.Popen(self._entering(script, whole=False), text=True, **options)

    def copy(self, path):
        """Copies a file into the folder /root."""
        shutil.copy(path, f"/proc/{self.pid}/root/root/")

    def close(self):
        self.outer.send_signal(signal.SIGKILL)
        self.outer.wait()
        eventually(lambda: not (self.cgroup / "cgroup.procs").exists() or self._remove_cgroup(), "the end of the machine")

    def _remove_cgroup(self):
        with contextlib.suppress(OSError):
            for folder in sorted(self.cgroup.rglob("*"), reverse=True):
                if folder.is_dir():
                    folder.rmdir()
            self.cgroup.rmdir()
            return True
        return False
