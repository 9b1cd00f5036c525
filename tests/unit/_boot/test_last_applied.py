# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of the header of our rules, which later versions read: none changes with a name here."""

from __future__ import annotations

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    LastApplied,
    Machine,
    boot_plan,
    header,
    parse_header,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import (
    NEVER,
    Options,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries

LIST = [{"name": "b003000.dma", "policy": "vfio"}]
MACHINE = Machine(
    aliases={"soc0": "/soc@0"},
    buses=["pci", "platform"],
    modules={"acme-uio": "acme"},
    initramfs_tool="dracut",
    initramfs_modules=["vfio_platform"],
    variants={"15b3:101e": "mlx5_vfio_pci"},
)
APPLIED = LastApplied(
    entries=parse_entries(LIST),
    natives={"platform/b003000.dma": "acme-dma"},
    options=Options(
        VfioSettings(reset_required=False, unsafe_noiommu=True, unsafe_interrupts=True),
        NodeAccess("kvm", "0660"),
        NEVER,
    ),
    machine=MACHINE,
    before=VfioSettings(reset_required=True, unsafe_noiommu=False, unsafe_interrupts=False),
)
OPTIONS_LINE = (
    '# options: {"reset_required": false, "unsafe_noiommu": true, "unsafe_interrupts": true, '
    '"vfio_group": "kvm", "vfio_mode": "0660", "initramfs": "never"}'
)
BEFORE_LINE = (
    '# before: {"reset_required": true, "unsafe_noiommu": false, "unsafe_interrupts": false}'
)
MACHINE_LINE = (
    '# machine: {"aliases": {"soc0": "/soc@0"}, "buses": ["pci", "platform"], '
    '"modules": {"acme-uio": "acme"}, "initramfs_tool": "dracut", '
    '"initramfs_modules": ["vfio_platform"], "variants": {"15b3:101e": "mlx5_vfio_pci"}}'
)


def test_options_and_machine_are_lines_of_json_with_these_keys() -> None:
    lines = header(boot_plan(APPLIED, MACHINE))
    marks = ("# options: ", "# before: ", "# machine: ")
    assert [line for line in lines if line.startswith(marks)] == [
        *(OPTIONS_LINE, BEFORE_LINE, MACHINE_LINE)
    ]


def test_these_lines_are_read_back() -> None:
    assert parse_header("\n".join(header(boot_plan(APPLIED, MACHINE)))) == APPLIED


def test_a_machine_without_a_key_has_nothing_of_it() -> None:
    assert parse_header("# machine: {}\n").machine == Machine()
    assert parse_header('# machine: {"buses": ["pci"]}\n').machine == Machine(buses=["pci"])


@pytest.mark.parametrize(
    "record",
    ['{"more": 1}', '{"buses": ["pci"], "more": 1}', '["buses"]', "[]", '""', "[[]]", "5", "null"],
)
def test_a_machine_that_this_collection_did_not_write_is_unknown(record: str) -> None:
    assert parse_header(f"# machine: {record}\n").machine is None
