"""The image, run by podman alone and by the compose files, on SQLite and on PostgreSQL."""

import glob
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT
from machine import eventually

COMPOSE = "podman-compose -p test -f {}"

# Starts PostgreSQL as the image of the compose file does, with the programs of the real machine.
POSTGRES = r"""
set -e
data=/var/lib/postgresql/data
install -d -o postgres -g postgres -m 700 $data
install -d -o postgres /var/run/postgresql
as="setpriv --reuid postgres --regid postgres --clear-groups"
printf '%s' "$POSTGRES_PASSWORD" > /password
chmod 644 /password
$as initdb -D $data -U "$POSTGRES_USER" --pwfile=/password -A scram-sha-256 -E UTF8 --locale=C --no-sync > /dev/null
echo 'host all all all scram-sha-256' >> $data/pg_hba.conf
echo "create database $POSTGRES_DB" | $as postgres --single -D $data postgres > /dev/null
exec $as postgres -D $data -c listen_addresses='*' -c fsync=off
"""


@pytest.fixture(scope="module")
def image(packages, containers):
    """The image as it is loaded from its package."""
    (package,) = packages.glob("*.oci.tar")
    containers.run("podman rmi --force $(podman images -q localhost/aldaba) || true", check=False)
    loaded = containers.output(f"podman load --quiet --input {package}")
    return re.search(r"Loaded image:? (\S+)", loaded)[1]


def test_the_image_holds_the_program_its_libraries_certificates_and_a_user(packages, containers, image):
    listed = containers.output(f"podman export $(podman create {image}) | tar -t").splitlines()
    made_by_podman = ("dev/", "proc/", "sys/", "run/", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab")
    files = {name for name in listed if not name.endswith("/") and not name.startswith(made_by_podman)}
    expected = {"usr/bin/aldaba", "etc/ssl/certs/ca-certificates.crt", "etc/passwd", "etc/group", "etc/nsswitch.conf"}
    expected |= {"etc/os-release", *(f"var/lib/dpkg/status.d/{name}" for name in ("ca-certificates", "libc6", "libgcc-s1"))}
    rest = files - expected
    assert expected <= files and all(re.fullmatch(r"lib(64|/[a-z0-9_-]+)/(ld-linux|lib[a-z_]+)[^/]*", name) for name in rest), rest
    size = int(containers.output(f"podman image inspect --format '{{{{.Size}}}}' {image}"))
    print(f"image: {size / 2**20:.1f} MiB unpacked")


def test_a_container_without_rights_serves_and_stops_when_it_is_told(containers, image):
    shut = "--read-only --cap-drop all --security-opt no-new-privileges"
    containers.run(f"podman run --detach --name alone {shut} --network host --tmpfs /tmp --volume alone:/var/lib/aldaba {image}")
    containers.wait_until_ready()
    assert containers.status("/healthz") == "200"
    account = containers.output("podman exec alone /usr/bin/aldaba accounts create Acme")
    assert account in containers.output("podman exec alone /usr/bin/aldaba accounts list")
    assert containers.output("podman exec alone /usr/bin/aldaba settings --example").startswith("# Settings")
    user = json.loads(containers.output("podman inspect alone"))[0]["Config"]["User"]
    assert user == "65532:65532"
    containers.run("podman stop --time 60 alone")
    assert containers.output("podman inspect --format '{{.State.ExitCode}}' alone") == "0"
    assert os.stat("/dev/null").st_uid == 0, "the real machine is as it was"
    # The events are in the volume.
    containers.run(f"podman rm alone; podman run --detach --name again {shut} --network host -v alone:/var/lib/aldaba {image}")
    containers.wait_until_ready()
    assert account in containers.output("podman exec again /usr/bin/aldaba accounts list")
    containers.run("podman rm --force --time 60 again; podman volume rm alone")


def packaged(path):
    """The settings that a file of packages gives to a container, as text."""
    return (ROOT / "packaging" / path).read_text()


def test_every_packaged_configuration_disables_endpoints_only_after_an_hour():
    for path in ("Dockerfile", "compose.sqlite.yaml", "compose.postgres.yaml", "kubernetes/base/kustomization.yaml"):
        assert re.search(r"ALDABA_WEBHOOKS__AUTO_DISABLE_AFTER(: |=)1h\b", packaged(path)), path


def test_the_compose_file_with_sqlite_serves(containers, image):
    compose = COMPOSE.format(ROOT / "packaging/compose.sqlite.yaml")
    containers.run(f"{compose} up -d", ALDABA_IMAGE=image)
    containers.wait_until_ready()
    containers.run(f"{compose} down --volumes", ALDABA_IMAGE=image)


def postgres_stand_in(folder):
    """A compose file that puts the PostgreSQL of the real machine in the place of its image, and the settings for it."""
    programs = Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
    (folder / "start.sh").write_text(POSTGRES)
    mounts = ["/usr:/usr:ro", "/etc/passwd:/etc/passwd:ro", "/etc/group:/etc/group:ro", f"{folder}/start.sh:/start.sh:ro"]
    stand_in = {
        "entrypoint": ["sh", "/start.sh"],
        "environment": {"PATH": f"{programs}:/usr/sbin:/usr/bin"},
        "volumes": mounts,
    }
    (folder / "stand-in.yaml").write_text(json.dumps({"services": {"postgres": stand_in}}))
    return folder / "stand-in.yaml", {"POSTGRES_IMAGE": os.environ["BASE"], "POSTGRES_PASSWORD": "secret"}


def test_the_compose_file_with_postgresql_serves(containers, image, tmp_path):
    stand_in, settings = postgres_stand_in(tmp_path)
    compose = f"{COMPOSE.format(ROOT / 'packaging/compose.postgres.yaml')} -f {stand_in}"
    settings |= {"ALDABA_IMAGE": image, "ALDABA_MASTER_KEY": os.urandom(32).hex()}
    containers.run(f"{compose} up -d postgres", **settings)
    # This podman waits for no health check, as Docker does.
    healthy = "podman healthcheck run $(podman ps -q --filter label=com.docker.compose.service=postgres)"
    eventually(lambda: containers.run(healthy, check=False).returncode == 0, "a healthy PostgreSQL")
    containers.run(f"{compose} up -d aldaba", **settings)
    containers.wait_until_ready()
    service = containers.output("podman ps -q --filter label=com.docker.compose.service=aldaba")
    containers.run(f"podman exec {service} /usr/bin/aldaba accounts create Acme")
    containers.run(f"{compose} down --volumes", **settings)


def test_the_package_of_the_image_is_an_oci_archive(packages):
    (package,) = packages.glob("*.oci.tar")
    with tarfile.open(package) as archive:
        index = json.load(archive.extractfile("index.json"))
    assert [manifest["mediaType"] for manifest in index["manifests"]] == ["application/vnd.oci.image.manifest.v1+json"]
