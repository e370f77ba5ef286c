"""The commands of the guides "Run it in production" and "Back it up and get it back" that need packages."""

import os
import re
import shutil
import subprocess

import pytest
import yaml
from conftest import ROOT
from machine import eventually
from test_deb import ALDABA, install
from test_image import image, postgres_stand_in  # noqa: F401 (the fixture)

IMAGE = "localhost/aldaba:0.1.0"


def text(guide):
    return (ROOT / f"docs/guides/{guide}.md").read_text()


def blocks(kind, guide="production"):
    """The commands of one kind of package."""
    found = [block.split("\n```")[0] for block in text(guide).split(f"\n```sh {kind}\n")[1:]]
    assert found, f"the guide has no block of {kind}"
    return found


def command_for(program):
    """The line that shows how a command is written for this program."""
    (block,) = blocks("commands")
    (line,) = [line for line in block.splitlines() if line.startswith(f"{program} ")]
    return line


def examined_the_database(doctor):
    """What `aldaba doctor` found. It ends with 1, because no name server is reached from the networks of these tests."""
    return re.search(r"^ok +database +SQLite", doctor.stdout, re.MULTILINE)


def copy_all(machine, packages, pattern):
    for package in packages.glob(pattern):
        machine.copy(package)


def test_the_guide_installs_and_upgrades_the_debian_package(machine, packages, upgrade):
    copy_all(machine, packages, "*.deb*")
    told = [machine.output(f"cd /root; {block}") for block in blocks("deb")]
    assert "OK" in told[0] and "active" in told[1] and told[1].endswith("ready")
    machine.run("rm /root/*.deb*")
    machine.copy(upgrade)
    (block,) = blocks("upgrade")
    machine.run(f"cd /root; {block}")
    assert machine.output("systemctl is-active aldaba; dpkg-query -W -f '${Version}' aldaba") == "active\n1000.0.0"
    assert examined_the_database(machine.run(command_for("sudo"), check=False))
    machine.run("rm /root/*.deb*")
    copy_all(machine, packages, "*.deb")
    (block,) = blocks("downgrade")
    # Nobody answers questions here, and apt-get asks before it removes or downgrades.
    machine.run(f"cd /root; echo y | ({block})")
    assert machine.output("systemctl is-active aldaba; dpkg-query -W -f '${Version}' aldaba").startswith("active\n0.")


def test_the_guide_backs_up_the_debian_package_and_restores_it_on_a_new_machine(machine, deb):
    install(machine, deb)
    backup, restore = blocks("deb", "back-up-and-restore")
    account = machine.output(f"{ALDABA} accounts create Acme")
    machine.run(backup)
    # The line of cron, as the shell gets it.
    (line,) = [line for line in text("back-up-and-restore").splitlines() if line.startswith("0 2 * * *  aldaba  ")]
    nightly = line.removeprefix("0 2 * * *  aldaba  ").replace("\\%", "%")
    machine.run(f"cd /; sudo -u aldaba sh -ec '{nightly}'")
    # The server of a new machine has begun with another database and another key.
    machine.run("systemctl stop aldaba; find /var/lib/aldaba -type f -delete; systemctl start aldaba")
    assert account not in machine.output(f"{ALDABA} accounts list")
    machine.run(restore)
    assert account in machine.output(f"{ALDABA} accounts list")
    assert "deliveries are on hold since" in machine.output("curl -s http://127.0.0.1:8080/readyz")


def test_the_guide_installs_the_tarball(machine, packages):
    copy_all(machine, packages, "*.tar.gz")
    (block,) = blocks("tarball")
    machine.run(f"cd /root; {block}")
    assert machine.output("systemctl is-active aldaba; systemctl is-enabled aldaba") == "active\nenabled"
    assert machine.output("readlink /proc/$(systemctl show -P MainPID aldaba)/exe") == "/usr/local/bin/aldaba"


@pytest.fixture
def folder(packages, tmp_path):
    """A folder as the guide's reader has it: with the packages and the folder `packaging`."""
    for package in packages.iterdir():
        (tmp_path / package.name).symlink_to(package)
    (tmp_path / "packaging").symlink_to(ROOT / "packaging")
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def registry(containers, tmp_path_factory):
    """The address of a registry of images."""
    folder = tmp_path_factory.mktemp("registry")
    storage = {"filesystem": {"rootdirectory": f"{folder}/images"}}
    settings = {"version": 0.1, "http": {"addr": "127.0.0.1:5000"}, "storage": storage}
    (folder / "settings.yml").write_text(yaml.safe_dump(settings))
    server = containers.beside(f"exec docker-registry serve {folder}/settings.yml")
    eventually(lambda: containers.run("curl -sf http://127.0.0.1:5000/v2/", check=False).returncode == 0, "a registry")
    yield "127.0.0.1:5000"
    server.kill()
    server.wait()


def program(folder, name, script):
    """A program of this name that runs a script."""
    path = folder / "bin" / name
    path.write_text(f"#!/bin/bash\nset -e\n{script}\n")
    path.chmod(0o755)


def test_the_guide_runs_the_image_and_the_compose_file(containers, image, folder):  # noqa: F811
    account = run_the_container(containers, folder, image)
    assert len(account) == 36, account
    remove_the_container(containers)

    compose = blocks("image")[1]
    stand_in, settings = postgres_stand_in(folder)
    with_it = f"podman-compose -f packaging/compose.postgres.yaml -f {stand_in}"
    # podman does not wait until PostgreSQL is healthy, as Docker does.
    healthy = "podman healthcheck run $(podman ps -q --filter label=com.docker.compose.service=postgres)"
    program(
        folder,
        "docker",
        f"""
        [ "$*" = "compose --file packaging/compose.postgres.yaml up --detach" ]
        {with_it} up -d postgres
        until {healthy}; do sleep 0.1; done
        {with_it} up -d aldaba""",
    )
    script = f"cd {folder}; export PATH={folder}/bin:$PATH; {compose}".replace(IMAGE, image)
    containers.run(script, **settings)
    containers.wait_until_ready()
    containers.run(f"cd {folder}; {with_it} down --volumes", ALDABA_IMAGE=image, ALDABA_MASTER_KEY="-", **settings)


def run_the_container(containers, folder, image):  # noqa: F811
    """Runs the block that loads and starts the image, and returns the account that it makes."""
    alone = blocks("image")[0].replace(IMAGE, image)
    account = containers.output(f"cd {folder}; {alone}").splitlines()[-1]
    containers.wait_until_ready()
    return account


def remove_the_container(containers):
    containers.run("podman rm --force --time 60 aldaba; podman volume rm aldaba")


def test_the_guide_runs_commands_in_a_container_and_on_kubernetes(containers, image, folder):  # noqa: F811
    run_the_container(containers, folder, image)
    assert examined_the_database(containers.run(command_for("podman"), check=False))
    # A cluster's containers are podman's here.
    program(folder, "kubectl", """[ "$1 $2 $3" = "exec deployment/aldaba --" ]; podman exec aldaba "${@:4}" """)
    kubectl = f"export PATH={folder}/bin:$PATH; {command_for('kubectl')}"
    assert examined_the_database(containers.run(kubectl, check=False))
    remove_the_container(containers)


def test_the_guide_backs_up_a_container_and_restores_it_in_a_new_one(containers, image, folder):  # noqa: F811
    account = run_the_container(containers, folder, image)
    backup, restore = (block.replace(IMAGE, image) for block in blocks("image", "back-up-and-restore"))
    containers.run(f"cd {folder}; {backup}")
    remove_the_container(containers)

    run_the_container(containers, folder, image)
    assert account not in containers.output("podman exec aldaba aldaba accounts list")
    assert "no problem was found" in containers.output(f"cd {folder}; {restore}")
    containers.wait_until_ready()
    assert account in containers.output("podman exec aldaba aldaba accounts list")
    assert "deliveries are on hold since" in containers.output("curl -s http://127.0.0.1:8080/readyz")
    containers.run("podman exec aldaba aldaba resume")
    remove_the_container(containers)


def test_the_guide_converts_the_archive_for_docker(containers, folder):
    # podman reads the older archive of Docker as Docker does.
    program(folder, "docker", 'exec podman "$@"')
    (block,) = blocks("docker")
    told = containers.output(f"cd {folder}; export PATH={folder}/bin:$PATH; {block}")
    assert told.endswith("docker.io/library/aldaba:0.1.0"), told
    containers.run("podman image exists docker.io/library/aldaba:0.1.0; podman rmi docker.io/library/aldaba:0.1.0")


def test_the_guide_pushes_the_image_to_a_registry(containers, image, registry, folder):  # noqa: F811
    (block,) = blocks("registry")
    push = block.replace(IMAGE, image).replace("registry.example.com", registry)
    # The registry of the test has no TLS.
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    containers.run(push, CONTAINERS_REGISTRIES_CONF=str(folder / "registries.conf"))
    assert '"0.1.0"' in containers.output(f"curl -sf http://{registry}/v2/aldaba/tags/list")


def test_the_guide_applies_what_the_manifests_name(folder):
    (block,) = blocks("kubernetes")
    real = shutil.which("kubectl")
    # There is no cluster here: the secret and the manifests are made as for one, and later commands are noted.
    program(
        folder,
        "kubectl",
        f"""
        case "$1" in
          create) {real} "$@" --dry-run=client --output=yaml > secret.yaml ;;
          apply) {real} kustomize "$3" > applied.yaml ;;
          *) echo "$*" >> later ;;
        esac""",
    )
    environment = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
    subprocess.run(["bash", "-ec", block], cwd=folder, env=environment, check=True)
    secret = yaml.safe_load((folder / "secret.yaml").read_text())
    applied = {item["kind"]: item for item in yaml.safe_load_all((folder / "applied.yaml").read_text())}
    (container,) = applied["Deployment"]["spec"]["template"]["spec"]["containers"]
    asked = [entry["valueFrom"]["secretKeyRef"] for entry in container["env"]]
    assert {(secret["metadata"]["name"], key) for key in secret["data"]} == {(ref["name"], ref["key"]) for ref in asked}
    later = (folder / "later").read_text()
    assert later.count(f"deployment/{applied['Deployment']['metadata']['name']}") == 2
