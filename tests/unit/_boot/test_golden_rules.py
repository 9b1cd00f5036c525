"""The rules for each list below have exactly the text in the directory golden."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    RULES,
    LastApplied,
    Machine,
    boot_plan,
    parse_header,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.udev_rules import render
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import (
    NEVER,
    Options,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries

GOLDEN = Path(__file__).parent / "golden"


class Case(NamedTuple):
    """A list, and all other input of its rules."""

    entries: list[dict[str, Any]]
    options: Options = Options()
    machine: Machine = Machine()
    natives: dict[str, str | None] = {}  # noqa: RUF012 -- never changed
    before: VfioSettings = VfioSettings()

    @property
    def last_applied(self) -> LastApplied:
        return LastApplied(
            parse_entries(self.entries),
            self.natives,
            self.options,
            self.machine,
            self.before,
        )


CASES = {
    # Each selector and policy, an alias that udev knows, a tag, and access by group and mode.
    "mixed": Case(
        [
            {"dt_path": "/soc/crypto@b000000", "policy": "vfio"},
            {"dt_path": "dma1", "policy": "no_autobind"},
            {"compatible": "acme,ring", "expect": 2, "policy": "vfio"},
            {"acpi_path": "\\_SB_.VR00", "required": False, "policy": "vfio", "tag": "left-ring"},
            {"acpi_hid": "LNRO0005", "required": False, "policy": "no_autobind"},
            {
                "name": "b004000.ethernet",
                "bus": "platform",
                "policy": "driver",
                "driver": "acme-uio",
            },
            {"name": "soc:keys", "policy": "default"},
        ],
        Options(VfioSettings(reset_required=False), NodeAccess("kvm", "0660")),
        Machine(buses=["amba", "platform"], modules={"acme-uio": "acme"}),
        {"platform/b004000.ethernet": None, "/soc/crypto@b000000": "acme-crypto"},
    ),
    # One device for VFIO by an alias and a path below it: no tag, access or lists of properties.
    "vfio": Case(
        [{"dt_path": "soc0/crypto@1", "policy": "vfio", "when_board": ["acme,one"]}],
        Options(VfioSettings(unsafe_noiommu=True), initramfs=NEVER),
        Machine({"soc0": "/soc@0"}, ["platform"]),
        before=VfioSettings(unsafe_noiommu=False),
    ),
    # No device for VFIO, so no symlinks; a driver of an unknown module, and one without a module.
    "no_vfio": Case(
        [
            {"compatible": "acme,dma", "policy": "no_autobind"},
            {"name": "b001000.uart", "policy": "driver", "driver": "acme uart"},
            {"name": "b002000.uart", "bus": "amba", "policy": "driver", "driver": "acme-old"},
        ],
        Options(access=NodeAccess("kvm", None)),
        Machine(modules={"acme-old": "acme"}),
    ),
    # Access by mode only, and an alias that neither this machine nor udev's properties have.
    "mode": Case(
        [
            {"name": "b003000.dma", "policy": "vfio"},
            {"dt_path": "missing", "required": False, "policy": "vfio"},
        ],
        Options(access=NodeAccess(None, "0666")),
        Machine(
            buses=["platform"],
            initramfs_tool="dracut",
            initramfs_modules=["vfio_platform"],
        ),
    ),
    # PCI functions: by address, with and without the card, and by id; virtual functions; a VFIO
    # driver that the kernel has for one of them alone, and one that the list asks for.
    "pci": Case(
        [
            {"pci_address": "0000:01:00.0", "pci_id": "8086:10d3", "policy": "vfio", "tag": "nic"},
            {"pci_address": "0000:02:00.0", "policy": "no_autobind"},
            {"pci_address": "0000:03:00.0", "policy": "default", "sriov_numvfs": 4},
            {"pci_id": "15b3:101e", "expect": 4, "policy": "vfio"},
            {"pci_id": "1b36:0010:1af4:1100", "policy": "vfio", "vfio_driver": "vfio-pci"},
        ],
        machine=Machine(buses=["pci"], variants={"15b3:101e:15b3:0058": "mlx5_vfio_pci"}),
    ),
    # Names that the kernel allows and udev shows otherwise, an ACPI device by its _UID, and one by
    # a compatible that no modalias of ACPI has as a whole.
    "names": Case(
        [
            {"name": "Fixed MDIO bus.0", "bus": "platform", "policy": "vfio", "tag": "mdio"},
            {"name": "a!b$1%2", "policy": "driver", "driver": "acme uart"},
            {"acpi_hid": "LNRO0005", "acpi_uid": "3", "policy": "vfio"},
            {"compatible": "acme,Crypto", "policy": "no_autobind"},
        ],
        machine=Machine(buses=["platform"]),
    ),
    # A header without a rule.
    "default": Case([{"name": "soc:keys", "policy": "default"}]),
}


def test_each_golden_file_has_a_list() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.rules" for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_a_list_is_rendered_to_the_golden_file(name: str) -> None:
    last_applied = CASES[name].last_applied
    rules = render(boot_plan(last_applied, CASES[name].machine))[RULES]
    assert rules == (GOLDEN / f"{name}.rules").read_text()
    assert parse_header(rules) == last_applied
