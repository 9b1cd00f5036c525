# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files outside of module_utils name each bus, selector and initramfs tool that is registered."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import initramfs
from ansible_collections.armfleet.vfio.plugins.module_utils._model.buses import BUSES
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import KINDS

ROOT = Path(__file__).parents[3]


def names_in_table(section: str) -> list[str]:
    """Return the names in the first column of the table in a section of select-devices.md."""
    page = (ROOT / "docs/select-devices.md").read_text()
    text = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_the_guide_has_a_row_for_each_bus() -> None:
    assert names_in_table("Buses") == list(BUSES)


def test_the_guide_has_a_row_for_each_selector() -> None:
    assert names_in_table("Selectors") == list(KINDS)


@pytest.mark.parametrize(
    "path",
    [
        "roles/passthrough/meta/argument_specs.yml",
        "plugins/modules/device_info.py",
        "plugins/modules/driver_override.py",
        "plugins/modules/host_policy.py",
        "plugins/modules/no_autobind.py",
        "plugins/modules/vfio_binding.py",
    ],
)
def test_the_description_of_a_list_has_each_selector(path: str) -> None:
    text = (ROOT / path).read_text().partition("Each entry has exactly one of ")[2]
    sentence = re.split(r"\.\s", text)[0]
    assert re.findall(r"[CO]\((?:devices\[\]\.)?(\w+)\)", sentence) == list(KINDS)


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("roles/passthrough/tasks/main.yml", r"it has neither (.*?)\."),
        (
            "roles/passthrough/meta/argument_specs.yml",
            r"V\(auto\) includes it if the host has (.*?),",
        ),
        ("docs/errors.md", r"`has neither (.*?)`"),
        ("docs/hosts.md", r"\| an initramfs tool, .*? \| .*? \| (.*?) \(\["),
        ("plugins/modules/device_info.py", r"initramfs_tool:\s+description: (.*?);"),
        ("plugins/modules/host_policy.py", r"Tool that builds the initramfs of this host, (.*?)\."),
        ("plugins/modules/initramfs.py", r"Tool that builds the initramfs of this host, (.*?)\."),
    ],
)
def test_a_list_of_initramfs_tools_has_each(path: str, pattern: str) -> None:
    (names,) = set(re.findall(pattern, (ROOT / path).read_text(), re.DOTALL))
    assert [tool.name for tool in initramfs.TOOLS if tool.name not in names] == []


def test_the_refusal_of_a_host_without_a_tool_lists_each() -> None:
    assert [tool.name for tool in initramfs.TOOLS if tool.name not in initramfs.NO_TOOL] == []


def test_the_guide_has_the_file_of_each_initramfs_tool() -> None:
    page = (ROOT / "docs/boot.md").read_text()
    assert [tool.path for tool in initramfs.TOOLS if f"`{tool.path}` |" not in page] == []


def update_initramfs() -> Any:
    """Return the program of the role vfio_modules, which hosts have without the collection."""
    path = ROOT / "roles/vfio_modules/files/update_initramfs.py"
    specification = spec_from_file_location("update_initramfs", path)
    assert specification
    assert specification.loader
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_new_modules_are_added_to_the_image_of_each_initramfs_tool() -> None:
    commands = {f"/{path}": command[0] for path, command in update_initramfs()._TOOLS}
    assert commands == {tool.path: tool.programs[0].rpartition("/")[2] for tool in initramfs.TOOLS}
