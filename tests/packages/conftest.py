"""What the tests of the packages share: the packages, a machine with systemd, and containers."""

import os
import subprocess
from pathlib import Path

import pytest
from containers import Containers
from machine import Machine

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def packages():
    """The folder of the packages."""
    return Path(os.environ["PACKAGES"])


@pytest.fixture(scope="session")
def deb(packages):
    (package,) = packages.glob("*.deb")
    return package


@pytest.fixture(scope="session")
def upgrade():
    """The same program as a package of a later version."""
    (package,) = Path(os.environ["UPGRADE"]).glob("*.deb")
    return package


@pytest.fixture(scope="session")
def tarball(packages, tmp_path_factory):
    """The folder that the tarball unpacks to."""
    (package,) = packages.glob("*.tar.gz")
    folder = tmp_path_factory.mktemp("tarball")
    subprocess.run(["tar", "-C", folder, "--strip-components=1", "-xzf", package], check=True)
    return folder


@pytest.fixture
def machine(tmp_path):
    """A Debian with systemd and without the package."""
    machine = Machine(Path(os.environ["DEBIAN"]), tmp_path)
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def containers():
    """Namespaces in which podman runs."""
    containers = Containers()
    yield containers
    containers.close()
