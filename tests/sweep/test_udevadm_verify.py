# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Of generated rule files, the collection's reader drops the lines that udev drops."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import udev_syntax
from tests.harness.udev_rule_files import odd_file
from tests.verifier import complaints, version

# Other complaints are about lines that udev keeps.
_DROPPING = (
    "Invalid key",
    "Invalid operator for",
    "Invalid prefix 'i'",
    "Invalid ENV attribute",
    "Ignoring NAME=",
    "Unknown builtin command",
    "Failed to parse",
    "The line has no effect",
    "Line is too long",
    "Unexpected EOF",
    "has no matching label",
)
# Unlike: Invalid attribute "$a{" for ATTR (char 1: ...), ignoring.
_ATTRIBUTE = re.compile(r"Invalid attribute for \w+\.")
_TOGETHER = 100


def test_lines_are_dropped_as_udev_drops_them(tmp_path: Path, depth: str) -> None:
    count = {"check": 300, "test": 300, "nightly": 3000}[depth]
    differing = []
    udev = version()
    total = 0
    for start in range(0, count, _TOGETHER):
        files = [tmp_path / f"{seed:06}.rules" for seed in range(start, start + _TOGETHER)]
        for seed, file in enumerate(files, start):
            file.write_bytes(odd_file(seed).encode())
        dropped = _dropped_by_udev(files)
        for file in files:
            total += len(dropped.get(str(file), ()))
            ours = {line.number for line in udev_syntax.parse(_content(file), udev).dropped}
            if ours != dropped.get(str(file), set()):
                differing.append((file.name, _content(file), ours, dropped.get(str(file))))
    print(f"{count} rule files, {total} lines dropped by udev, {len(differing)} files differ")
    assert differing == []
    assert total > count


def _content(file: Path) -> str:
    return file.read_bytes().decode("utf-8", "surrogateescape")


def _dropped_by_udev(files: list[Path]) -> dict[str, set[int]]:
    dropped: dict[str, set[int]] = {}
    for line in complaints(files).splitlines():
        path, colon, rest = line.partition(":")
        number, _blank, text = rest.partition(" ")
        is_dropped = any(part in text for part in _DROPPING) or _ATTRIBUTE.search(text)
        if colon and number.isdigit() and is_dropped:
            dropped.setdefault(path, set()).add(int(number))
    return dropped
