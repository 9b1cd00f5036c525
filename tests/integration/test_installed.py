"""The collection as a user installs it, and the size of what is sent to a host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.collection import install
from tests.harness.playbook import play
from tests.harness.sysfs import files, read_machine

NEEDED = {"plugins", "roles", "playbooks", "meta", "MANIFEST.json", "FILES.json"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build and install the collection, and delete everything that is not needed to run it."""
    directory = tmp_path_factory.mktemp("installed")
    collection = install(directory)
    for entry in collection.iterdir():
        if entry.name not in NEEDED:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return directory


@pytest.mark.nightly
def test_the_installed_collection_works(
    guest, inventory: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", str(installed))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    untouched = read_machine(guest).bindings
    variables = {
        "passthrough_devices": [{"dt_path": "/soc/dma@b001000", "policy": "vfio"}],
        "passthrough_reset_required": False,
    }
    first = play(inventory, "armfleet.vfio.apply", variables=variables)
    assert first.code == 0, first.output
    assert read_machine(guest).at("/soc/dma@b001000").driver == "vfio-platform"
    assert play(inventory, "armfleet.vfio.apply", variables=variables).changed == {"test-a": 0}
    assert play(inventory, "armfleet.vfio.release").code == 0
    assert read_machine(guest).bindings == untouched
    assert files(guest) == {}


@pytest.mark.parametrize(
    ("module", "most"),
    [
        # All that a host without changes receives.
        ("last_answer", 1.3),
        # The rest are the journal and its rollback, the search for hazards now and at the next
        # boot, readiness, links to nodes, the initramfs, what a rollout keeps and reads back,
        # virtual functions, and the parsing of foreign files as udev, kmod, dracut and driverctl
        # parse them, each by its version. Each file of a package is an entry of the archive.
        ("host_policy", 4),
    ],
)
def test_the_payload_is_not_much_larger_than_that_of_ping(module: str, most: float) -> None:
    modules = [f"armfleet.vfio.{module}", "ansible.builtin.ping"]
    command = [sys.executable, "-m", "tests.harness.payload", *modules]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    ours, ping = map(int, done.stdout.split())
    ratio = ours / ping
    print(f"payload of {module}: {ratio:.2f} times that of ping")
    assert ratio <= most
