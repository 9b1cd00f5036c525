# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an editor with yaml-language-server shows in a file of variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editor.language_server import LanguageServer
from tests.harness.npm import install

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCHEMA = ROOT / "docs/schema/passthrough.json"
ADDRESS = json.loads(SCHEMA.read_text())["$id"]
MODELINE = f"# yaml-language-server: $schema={SCHEMA}\n"


def program() -> Path:
    """Return the server that package-lock.json pins by its hash."""
    return install(HERE, "editor") / "yaml-language-server/bin/yaml-language-server"


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    with LanguageServer(program(), tmp_path_factory.mktemp("editor")) as started:
        yield started


def test_a_good_file_is_not_marked(editor: LanguageServer) -> None:
    text = """\
passthrough_runtime: yes
passthrough_devices_board:
  - dt_path: /soc/crypto@b000000
    policy: vfio
    expect: "{{ number }}"
passthrough_devices: "{{ passthrough_devices_board }}"
other: 1
"""
    assert editor.diagnostics(MODELINE + text) == []


@pytest.mark.parametrize(
    ("lines", "marked"),
    [
        (["name: a", "policy: vfio", "policies: vfio"], (3, "Property policies is not allowed.")),
        (["policy: vfio"], (1, "Give the entry one of dt_path, compatible, ")),
        (["dt_path: /a", "policy: vfio", "name: a"], (3, "The entry already has dt_path. Omit ")),
        (["name: a", "policy: vfoi"], (2, "Value is not accepted. Valid values: ")),
        (["name: a", "policy: vfio", "driver: b"], (3, "driver requires policy: driver. Omit ")),
        (["name: a", "policy: driver"], (1, "policy: driver requires the name of a driver. ")),
        (["name: a", "policy: default", "tag: b"], (3, "tag requires policy: vfio. Omit tag.")),
        (["name: a", "policy: vfio", "expect: 0"], (3, "Value is below the minimum of 1.")),
        (["name: a", "policy: vfio", "expect: two"], (3, "Give a number, 1 or more.")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_entry_is_marked_where_it_is_wrong(
    editor: LanguageServer, lines: list[str], marked: tuple[int, str]
) -> None:
    entry = "\n    ".join(lines)
    ((line, message),) = editor.diagnostics(f"{MODELINE}passthrough_devices:\n  - {entry}\n")
    # The modeline and the name of the variable are before the entry.
    assert line - 1 == marked[0]
    assert message.startswith(marked[1])


def test_a_variable_that_does_not_exist_is_marked(editor: LanguageServer) -> None:
    ((line, message),) = editor.diagnostics(MODELINE + "passthrough_reset_require: false\n")
    assert (line, message.partition(".")[0]) == (1, "The role passthrough has no such variable")


def test_keys_and_choices_are_completed_with_their_descriptions(editor: LanguageServer) -> None:
    variables = editor.completions(MODELINE + "passthrough_")
    assert variables["passthrough_devices"].startswith("Policy list, with one entry for each")
    entry = MODELINE + "passthrough_devices:\n  - dt_path: /a\n    "
    assert editor.completions(entry)["tag"].startswith("Name that you choose")
    assert "vfio" in editor.completions(entry + "policy: ")
    assert "Path of the node in the device tree" in editor.hover(entry.rstrip())


def test_the_documented_settings_are_those_for_variables_of_groups_and_hosts(
    tmp_path: Path,
) -> None:
    page = (ROOT / "docs/select-devices.md").read_text()
    assert f"# yaml-language-server: $schema={ADDRESS}\n" in page
    (block,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    documented = json.loads(block.replace(ADDRESS, str(SCHEMA)))
    settings = {
        name.removeprefix("yaml."): value
        for name, value in documented.items()
        if name.startswith("yaml.")
    }
    text = "secret: !vault |\n  1\npassthrough_device: []\n"
    with LanguageServer(program(), tmp_path, settings) as editor:
        for name in ("group_vars/boards.yml", "group_vars/boards/devices.yml", "host_vars/one.yml"):
            assert [line for line, _message in editor.diagnostics(text, name)] == [2], name
        assert editor.diagnostics(text, "tasks/main.yml") == []
