"""What the packages contain: checksums, bills of materials, manual, completions, settings, and a tarball that works."""

import gzip
import json
import os
import re
import subprocess

import pytest
from conftest import ROOT
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

COMMANDS = ("serve", "accounts", "keys", "migrate", "completions")


def packages_of(folder):
    return [file for file in folder.iterdir() if not file.name.endswith((".sha256", ".cdx.json"))]


def test_a_checksum_and_a_bill_of_materials_stand_beside_each_package(packages):
    found = packages_of(packages)
    assert len(found) == 3
    for package in found:
        subprocess.run(["sha256sum", "--check", "--quiet", f"{package.name}.sha256"], cwd=packages, check=True)
        text = (packages / f"{package.name}.cdx.json").read_text()
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
        bill = json.loads(text)
        digest = (packages / f"{package.name}.sha256").read_text().split()[0]
        assert bill["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
        crates = {component["name"]: component for component in bill["components"]}
        assert crates["rustls"]["purl"].startswith("pkg:cargo/rustls@") and crates["rustls"]["hashes"]
        assert all(crate.get("licenses") for crate in crates.values() if crate["purl"].startswith("pkg:cargo/"))
        assert "proptest" not in crates, "tests are no part of the program"
        assert ("libc6" in crates) == package.name.endswith(".oci.tar")
        print(f"{package.name}: {package.stat().st_size / 2**20:.1f} MiB, {len(crates)} components")


def test_the_packages_hold_the_same_files(deb, tarball):
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
    listed = subprocess.run(["tar", "-t"], input=unpacked, capture_output=True, check=True).stdout.decode().split()
    in_deb = {name.removeprefix("./") for name in listed if not name.endswith("/")}
    in_tarball = {str(file.relative_to(tarball)) for file in tarball.rglob("*") if file.is_file()}
    pages = {name for name in in_tarball if name.startswith("share/man/")}
    assert {f"usr/{page}.gz" for page in pages} <= in_deb and "share/man/man1/aldaba.1" in pages
    for in_usr_local, in_debian in [
        ("bin/aldaba", "usr/bin/aldaba"),
        ("lib/systemd/system/aldaba.service", "lib/systemd/system/aldaba.service"),
        ("share/bash-completion/completions/aldaba", "usr/share/bash-completion/completions/aldaba"),
        ("share/zsh/site-functions/_aldaba", "usr/share/zsh/vendor-completions/_aldaba"),
        ("share/fish/vendor_completions.d/aldaba.fish", "usr/share/fish/vendor_completions.d/aldaba.fish"),
        ("share/doc/aldaba/aldaba.toml", "etc/aldaba/aldaba.toml"),
    ]:
        assert in_usr_local in in_tarball
        assert in_debian in in_deb or f"usr/{in_debian}" in in_deb
    assert {"share/doc/aldaba/Dockerfile", "share/doc/aldaba/compose.postgres.yaml"} <= in_tarball


def test_the_manual_has_a_page_for_each_command_without_errors(tarball):
    pages = list((tarball / "share/man/man1").glob("*.1"))
    assert {f"aldaba-{name}.1" for name in COMMANDS} <= {page.name for page in pages}
    checked = subprocess.run(["mandoc", "-T", "lint", "-W", "error", *pages], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    for page in pages:
        shown = subprocess.run(["mandoc", "-T", "utf8", page], capture_output=True, text=True, check=True).stdout
        assert "SYNOPSIS" in re.sub(".\b", "", shown), page


def bash(folder):
    completed = (
        "source /usr/share/bash-completion/bash_completion; _completion_loader aldaba; "
        "COMP_WORDS=(aldaba ''); COMP_CWORD=1; COMP_LINE='aldaba '; COMP_POINT=7; "
        "\"$(complete -p aldaba | sed -E 's/.*-F ([^ ]+).*/\\1/')\" aldaba '' aldaba; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    return ["bash", "--norc", "-c", completed], {"XDG_DATA_DIRS": str(folder / "share")}


def zsh(folder):
    loaded = (
        f"fpath=({folder}/share/zsh/site-functions $fpath); autoload -U compinit; compinit -D; "
        "[[ $_comps[aldaba] = _aldaba ]]; autoload -U +X _aldaba; whence -f _aldaba"
    )
    return ["zsh", "-f", "-e", "-c", loaded], {}


def fish(folder):
    return ["fish", "--no-config", "-c", f"source {folder}/share/fish/vendor_completions.d/aldaba.fish; complete -C 'aldaba '"], {}


@pytest.mark.parametrize("shell", [bash, zsh, fish], ids=["bash", "zsh", "fish"])
def test_a_shell_completes_commands(tarball, shell, tmp_path):
    command, environment = shell(tarball)
    environment = os.environ | {"HOME": str(tmp_path)} | environment
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0 and ended.stderr == "", ended.stderr
    for name in COMMANDS:
        assert name in ended.stdout, ended.stdout


def test_the_settings_file_names_every_setting_and_sets_few(tarball):
    lines = (tarball / "share/doc/aldaba/aldaba.toml").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == [
        'database_url = "sqlite:///var/lib/aldaba/aldaba.db"',
        'webhooks.auto_disable_after = "1h"',
        'log.format = "json"',
    ]
    told = subprocess.run([tarball / "bin/aldaba", "settings", "--json"], capture_output=True, check=True).stdout
    names = {line.removeprefix("#").split(" = ")[0] for line in lines if " = " in line}
    assert {row["name"] for row in json.loads(told)} - {"rate_limits.<bucket>"} <= names


def test_the_tarball_runs_below_usr_local(machine, packages):
    (package,) = packages.glob("*.tar.gz")
    machine.copy(package)
    machine.run(
        f"tar -C /usr/local --strip-components=1 -xzf /root/{package.name}; "
        "adduser --quiet --system --group --home /var/lib/aldaba --no-create-home aldaba; "
        "install -D -m 640 -g aldaba /usr/local/share/doc/aldaba/aldaba.toml /etc/aldaba/aldaba.toml; "
        "systemctl daemon-reload; systemctl start aldaba"
    )
    assert machine.output("systemctl is-active aldaba") == "active"
    assert machine.output("readlink /proc/$(systemctl show -P MainPID aldaba)/exe").startswith("/usr/local/bin/")


def test_the_same_program_gives_the_same_package(packages, tmp_path):
    environment = os.environ | {"PACKAGES": str(tmp_path)}
    subprocess.run([ROOT / "scripts/package", "tarball"], env=environment, check=True, capture_output=True)
    (again,) = tmp_path.glob("*.tar.gz")
    assert again.read_bytes() == (packages / again.name).read_bytes()
