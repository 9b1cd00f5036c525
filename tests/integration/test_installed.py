"""What a user gets from the built collection, and what it costs to carry it to a host."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible.executor import module_common
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, module_loader
from ansible.template import Templar

from tests.harness.collection import install
from tests.harness.playbook import play
from tests.harness.sysfs import files, read_machine

NEEDED = {"plugins", "roles", "playbooks", "meta", "MANIFEST.json", "FILES.json"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, built, installed and stripped of all that running it does not need."""
    folder = tmp_path_factory.mktemp("installed")
    place = install(folder)
    for entry in place.iterdir():
        if entry.name not in NEEDED:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return folder


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


def payload_size(name: str) -> int:
    """Bytes of what is sent to the host for one call of a module."""
    found = module_loader.find_plugin_with_context(name)
    built = module_common.modify_module(
        module_name=found.resolved_fqcn,
        module_path=found.plugin_resolved_path,
        module_args={},
        templar=Templar(DataLoader()),
        task_vars={"ansible_python_interpreter": "/usr/bin/python3"},
        module_compression="ZIP_DEFLATED",
    )
    return len(built.b_module_data)


def test_the_payload_is_not_much_larger_than_that_of_ping() -> None:
    init_plugin_loader()
    ratio = payload_size("armfleet.vfio.host_policy") / payload_size("ansible.builtin.ping")
    print(f"payload of host_policy: {ratio:.2f} times that of ping")
    # The journal, its undoing, the search for hazards now and for the next boot, readiness, links
    # to nodes, the initramfs, what a rollout keeps, and the reading of other people's files are
    # what is above 1.4.
    assert ratio <= 2.3
