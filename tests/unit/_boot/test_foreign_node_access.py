"""Foreign rules that give VFIO's nodes another group or mode than the list are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from board import CRYPTO, Board
from udev_machine import RING, Machine

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import foreign_udev
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.foreign_node_access import (
    warnings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess

LATE, EARLY = "/etc/udev/rules.d/90-vfio.rules", "/usr/lib/udev/rules.d/50-vfio.rules"
ACCESS = NodeAccess("vfio", "0660")


def named(root: Path, path: str, content: str, access: NodeAccess = ACCESS) -> list[str]:
    machine = Machine(root)
    machine.link("devices/platform/soc/b100000.ring/iommu_group", "kernel/iommu_groups/3")
    machine.write(path, content + "\n")
    known = foreign_udev.rules(machine.files, RULES)
    return warnings(machine.sysfs, known, [RING], access)


@pytest.mark.parametrize(
    ("path", "line", "node", "setting"),
    [
        (LATE, 'SUBSYSTEM=="vfio", GROUP="kvm"', "/dev/vfio/3", "GROUP kvm, not vfio"),
        (LATE, 'SUBSYSTEM=="vfio", MODE="0666"', "/dev/vfio/3", "MODE 0666, not 0660"),
        (
            LATE,
            'SUBSYSTEM=="vfio-dev", MODE="0666"',
            "/dev/vfio/devices/vfio0",
            "MODE 0666, not 0660",
        ),
        (
            LATE,
            'KERNEL=="vfio[0-9]*", GROUP="kvm"',
            "/dev/vfio/devices/vfio0",
            "GROUP kvm, not vfio",
        ),
        (
            LATE,
            'SUBSYSTEM=="vfio-dev", KERNELS=="b100000.ring", GROUP="kvm"',
            "/dev/vfio/devices/vfio0",
            "GROUP kvm, not vfio",
        ),
        (LATE, 'ENV{DEVNAME}=="/dev/vfio/3", GROUP="kvm"', "/dev/vfio/3", "GROUP kvm, not vfio"),
        (
            LATE,
            'SUBSYSTEM=="vfio", PROGRAM="/x", GROUP="kvm"',
            "/dev/vfio/3",
            "GROUP kvm, not vfio",
        ),
        # That of a group is set by a command of the list, before or after its own event.
        (EARLY, 'SUBSYSTEM=="vfio", GROUP="kvm"', "/dev/vfio/3", "GROUP kvm, not vfio"),
        # A value that is final.
        (
            EARLY,
            'SUBSYSTEM=="vfio-dev", GROUP:="kvm"',
            "/dev/vfio/devices/vfio0",
            "GROUP kvm, not vfio",
        ),
    ],
)
def test_a_rule_that_gives_a_node_another_access_is_named(
    tmp_path: Path, path: str, line: str, node: str, setting: str
) -> None:
    (sentence,) = named(tmp_path, path, line)
    assert sentence.startswith(f"{path}:1 gives {node} another access than this list: {setting}. ")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (LATE, 'SUBSYSTEM=="vfio", GROUP="vfio", MODE="660"'),
        (LATE, 'SUBSYSTEM=="kvm", GROUP="kvm"'),
        (LATE, 'KERNEL=="vfio", MODE="0666"'),
        (LATE, 'SUBSYSTEM=="vfio-dev", KERNELS=="b200000.other", GROUP="kvm"'),
        (LATE, 'SUBSYSTEM=="vfio", GROUP="kvm"\nSUBSYSTEM=="vfio", GROUP="vfio"'),
        (LATE, 'SUBSYSTEM=="vfio", GROUP:="vfio"\nSUBSYSTEM=="vfio", GROUP="kvm"'),
        # The list's own rule comes after it.
        (EARLY, 'SUBSYSTEM=="vfio-dev", GROUP="kvm"'),
    ],
)
def test_a_rule_that_leaves_the_nodes_as_the_list_has_them_is_not(
    tmp_path: Path, path: str, line: str
) -> None:
    assert named(tmp_path, path, line) == []


@pytest.mark.parametrize(
    ("group", "given", "is_reported"),
    [
        ("vfio", "104", False),
        ("104", "vfio", False),
        ("104", "104", False),
        ("vfio", "105", True),
        ("vfio", "kvm", True),
        ("105", "vfio", True),
        ("other", "104", True),
    ],
)
def test_a_group_is_the_same_by_its_number(
    tmp_path: Path, group: str, given: str, *, is_reported: bool
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("root:x:0:\nvfio:x:104:qemu\nkvm:x:105:\nbad\n")
    access = NodeAccess(group, None)
    reported = named(tmp_path, LATE, f'SUBSYSTEM=="vfio", GROUP="{given}"', access)
    assert [
        sentence for sentence in reported if f"GROUP {given}, not {group}" in sentence
    ] == reported
    assert bool(reported) is is_reported


def test_the_rule_of_the_list_comes_between_files(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write(EARLY, 'SUBSYSTEM=="vfio-dev", GROUP="kvm"\n')
    machine.write(LATE, 'SUBSYSTEM=="kvm", GROUP="kvm"\n')
    known = foreign_udev.rules(machine.files, RULES)
    assert warnings(machine.sysfs, known, [RING], ACCESS) == []


def test_what_the_list_does_not_set_is_not_compared(tmp_path: Path) -> None:
    line = 'SUBSYSTEM=="vfio", GROUP="kvm", MODE="0666"'
    assert len(named(tmp_path / "a", LATE, line, NodeAccess("vfio", None))) == 1
    assert len(named(tmp_path / "b", LATE, line, NodeAccess(None, "0660"))) == 1


def test_the_list_is_applied_with_a_warning(board: Board) -> None:
    board.write_file(LATE, 'SUBSYSTEM=="vfio", MODE="0666"\n')
    outcome = board.apply([CRYPTO], reset_required=False, access=NodeAccess(None, "0660"))
    assert outcome.is_changed
    (sentence,) = [warning for warning in outcome.warnings if LATE in warning]
    assert "set `vfio_mode` to the same value" in sentence
