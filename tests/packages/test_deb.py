"""The .deb on a Debian with systemd as process 1: installed, used, upgraded under load, removed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from machine import eventually

UNIT = ROOT / "packaging/aldaba.service"
ALDABA = "sudo -u aldaba aldaba --config /etc/aldaba/aldaba.toml"
# A type that every new catalog has.
EVENT = "validation.completed"


def install(machine, package, check=True):
    machine.copy(package)
    return machine.run(f"DEBIAN_FRONTEND=noninteractive dpkg -i /root/{package.name}", check)


def status(machine, path):
    asked = f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:8080{path}"
    return machine.beside(asked, stdout=subprocess.PIPE).communicate()[0]


def shown(machine, name):
    return machine.output(f"systemctl show -P {name} aldaba")


def test_the_unit_is_valid_and_its_exposure_is_below_2():
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", UNIT], capture_output=True, text=True, check=True
    ).stdout
    exposure = float(re.search(r"Overall exposure level for aldaba.service: ([0-9.]+)", told)[1])
    assert exposure < 2.0, told
    print(f"exposure of the unit: {exposure}")


def test_an_installed_package_serves_under_its_own_user_and_keeps_its_data_when_it_is_removed(machine, deb):
    install(machine, deb)
    assert shown(machine, "ActiveState") == "active"
    assert shown(machine, "UnitFileState") == "enabled"
    assert machine.run("systemd-analyze verify --man=no /lib/systemd/system/aldaba.service").stderr == ""
    assert status(machine, "/readyz") == "200"
    pid = shown(machine, "MainPID")
    process = dict(line.split(":\t", 1) for line in machine.output(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    assert process["Uid"].split() == [machine.output("id -u aldaba")] * 4
    assert (process["NoNewPrivs"], process["Seccomp"], int(process["CapEff"], 16)) == ("1", "2", 0)
    assert machine.output("stat -c '%a %U:%G' /var/lib/aldaba") == "700 aldaba:aldaba"
    assert machine.output("stat -c '%a %U:%G' /etc/aldaba/aldaba.toml") == "640 root:aldaba"
    assert machine.output("stat -c '%a %U:%G' /var/lib/aldaba/aldaba.db") == "600 aldaba:aldaba"
    account = machine.output(f"{ALDABA} accounts create Acme")
    assert account in machine.output(f"{ALDABA} accounts list")

    machine.run("dpkg --purge aldaba")
    assert status(machine, "/readyz") == "000"
    assert machine.run("systemctl is-active aldaba", check=False).stdout.strip() == "inactive"
    machine.run("test ! -e /usr/bin/aldaba -a ! -e /etc/aldaba/aldaba.toml -a -s /var/lib/aldaba/aldaba.db.master-key")


def test_the_package_can_be_installed_where_systemd_does_not_run(containers, deb):
    steps = f"dpkg -i /packages/{deb.name}; sudo -u aldaba aldaba --version; dpkg --purge aldaba"
    told = containers.output(f"podman run --rm --volume {deb.parent}:/packages:ro {os.environ['BASE']} sh -ec '{steps}'")
    assert "aldaba 0." in told or "aldaba 1." in told, told


def test_a_stop_lets_what_is_under_way_end_and_a_killed_server_is_started_again(machine, deb):
    install(machine, deb)
    pid = shown(machine, "MainPID")
    machine.run(f"kill -KILL {pid}")
    eventually(lambda: shown(machine, "ActiveState") == "active" and shown(machine, "MainPID") != pid, "a new start")
    machine.run("systemctl stop aldaba")
    assert (shown(machine, "Result"), shown(machine, "ExecMainStatus")) == ("success", "0")
    journal = machine.output("journalctl -u aldaba -o cat")
    assert '"message":"stopping' in journal, journal


def test_an_upgrade_under_load_loses_no_event_and_keeps_the_settings(machine, deb, upgrade):
    install(machine, deb)
    # Receivers of a test have private addresses.
    machine.run("echo 'environment = \"development\"' >> /etc/aldaba/aldaba.toml")
    machine.run("echo 'rate_limits.events_create = \"off\"' >> /etc/aldaba/aldaba.toml; systemctl restart aldaba")
    settings = machine.output("cat /etc/aldaba/aldaba.toml")
    account = machine.output(f"{ALDABA} accounts create Acme")
    key = machine.output(f"{ALDABA} keys create --account {account}")
    script = Path(__file__).with_name("traffic.py")
    traffic = machine.beside(
        f"exec {sys.executable} {script} http://127.0.0.1:8080 {key} {EVENT}",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert traffic.stdout.readline() == "publishing\n"
    before = shown(machine, "MainPID")
    install(machine, upgrade)
    assert machine.output("dpkg-query -W -f '${Version}' aldaba") == "1000.0.0"
    assert (shown(machine, "ActiveState"), shown(machine, "NRestarts")) == ("active", "0")
    assert shown(machine, "MainPID") != before
    counted = json.loads(traffic.communicate()[0])
    print(counted)
    assert counted["accepted"] > 20 and counted["missing"] == []
    assert machine.output("cat /etc/aldaba/aldaba.toml") == settings
    assert machine.output("stat -c '%a %U:%G' /etc/aldaba/aldaba.toml") == "640 root:aldaba"
