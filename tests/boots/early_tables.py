# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables of ACPI that a guest's kernel takes in place of its firmware's, or in addition."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

_REVISION_OFFSET, _CHECKSUM_OFFSET = 24, 9
_SMMU_V3, _NAMED_COMPONENT = 4, 1


def put_before(initramfs: bytes, table: bytes, directory: Path) -> Path:
    """Put a table before an initramfs, where the kernel looks for those that upgrade firmware's.

    Documentation/admin-guide/acpi/initrd_table_override.rst of Linux.
    """
    name = "kernel/firmware/acpi/table.aml"
    (directory / name).parent.mkdir(parents=True)
    (directory / name).write_bytes(table)
    archive = ["cpio", "--create", "--quiet", "--format=newc"]
    early = subprocess.run(
        archive, cwd=directory, input=f"{name}\n".encode(), stdout=subprocess.PIPE, check=True
    )
    path = directory / "initramfs"
    path.write_bytes(early.stdout + initramfs)
    return path


def behind_smmu(iort: bytes, acpi_path: str, stream: int) -> bytes:
    """Return an IORT as the next revision, in which its SMMU translates for one device more.

    struct acpi_iort_node, acpi_iort_named_component and acpi_iort_id_mapping in
    include/acpi/actbl2.h of Linux. The device is coherent.
    """
    count, first = struct.unpack_from("<II", iort, 36)
    offset, smmu = first, 0
    for _index in range(count):
        kind, length = struct.unpack_from("<BH", iort, offset)
        smmu = offset if kind == _SMMU_V3 else smmu
        offset += length
    assert smmu
    name = acpi_path.encode() + b"\0"
    content = struct.pack("<IIBHBB", 0, 1, 0, 0, 3, 64) + name + bytes(-(13 + len(name)) % 4)
    head = 16 + len(content)
    node = struct.pack("<BHBIII", _NAMED_COMPONENT, head + 20, 2, count, 1, head) + content
    node += struct.pack("<IIIII", 0, 0, stream, smmu, 1)
    table = bytearray(iort[:offset] + node)
    struct.pack_into("<I", table, 4, len(table))
    struct.pack_into("<I", table, 36, count + 1)
    (revision,) = struct.unpack_from("<I", table, _REVISION_OFFSET)
    struct.pack_into("<I", table, _REVISION_OFFSET, revision + 1)
    table[_CHECKSUM_OFFSET] = 0
    table[_CHECKSUM_OFFSET] = -sum(table) & 0xFF
    return bytes(table)
