# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of docs/boards.md print what the page shows, and their lists survive a reboot."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from extensions.simulator.description_file import read_file as read_description
from extensions.simulator.dtb import read_file as read_device_tree
from extensions.simulator.host import Plan
from extensions.simulator.machine import build
from tests.boards import device_trees, jetson_device_trees
from tests.harness.playbook import Run, play
from tests.simulated.fleet import Fleet, fleet, run_on
from tests.simulated.lab import Lab, bindings

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)

DOCS = Path(__file__).parents[2] / "docs"
DESCRIPTIONS = DOCS / "examples/boards"
# The host of each section, and its device tree; that of ACPI has none.
BOARDS = {
    "HoneyComb LX2160A": ("honeycomb", "fsl-lx2160a-honeycomb"),
    "Jetson AGX Orin": ("orin", "tegra234-p3737-0000+p3701-0000"),
    "Raspberry Pi 4": ("raspberry-pi", "bcm2711-rpi-4-b"),
    "ZynqMP ZCU102": ("zcu102", "zynqmp-zcu102-rev1.0"),
    "Ampere Altra": ("altra", None),
    "PCI cards of a server": ("server", None),
}
IN_SHORT_TESTS = "Jetson AGX Orin"
OMITTED = "…"


class Block(NamedTuple):
    """A block of code of the page; ``shows`` is the language after its fence."""

    shows: str
    text: str


def sections() -> dict[str, list[Block]]:
    """Return the blocks of each section by its title."""
    _head, *parts = re.split(r"^## ", (DOCS / "boards.md").read_text(), flags=re.MULTILINE)
    blocks = {
        part.partition("\n")[0]: re.findall(r"```(\w+)\n(.*?)```", part, re.DOTALL)
        for part in parts
    }
    return {title: [Block(*block) for block in content] for title, content in blocks.items()}


def plan(title: str) -> Plan:
    name, tree = BOARDS[title]
    trees = {path.stem: path for path in (*device_trees(), *jetson_device_trees())}
    return Plan(name, trees[tree] if tree else None, DESCRIPTIONS / f"{name}.yml")


def test_every_section_of_the_page_is_run() -> None:
    assert list(sections()) == list(BOARDS)
    assert {path.stem for path in DESCRIPTIONS.iterdir()} == {
        name for name, _tree in BOARDS.values()
    }


def test_the_commands_print_what_the_page_shows(depth: str, tmp_path: Path) -> None:
    for title in BOARDS if depth == "nightly" else [IN_SHORT_TESTS]:
        board = plan(title)
        directory = tmp_path / board.name
        (directory / "host_vars").mkdir(parents=True)
        with fleet(directory, [board], {"passthrough_initramfs": "never"}) as boards:
            for block, run in run_section(sections()[title], boards, directory):
                shown = shown_in(block, run)
                assert shown, f"the page shows:\n{block.text}\nbut it is:\n{run.output}"
            given = f"-epassthrough_hosts={board.name}"
            again = play(boards.inventory, "armfleet.vfio.apply", given)
            assert again.changed == {board.name: 0}


def run_section(blocks: list[Block], boards: Fleet, directory: Path) -> Iterator[tuple[Block, Run]]:
    """Run the commands of a section in their order; yield each sample with the run before it."""
    run = None
    for block in blocks:
        if block.shows == "yaml":
            path = block.text.partition("\n")[0].removeprefix("# ")
            (directory / path).write_text(block.text)
        elif block.shows == "console" and block.text.startswith("# "):
            compare_session(block.text, boards)
        elif block.shows == "console":
            program, *arguments = shlex.split(block.text.removeprefix("$ ").replace("\\\n", ""))
            assert program == "ansible-playbook"
            (playbook,) = [word for word in arguments if word.startswith("armfleet.")]
            given = arguments[arguments.index(playbook) + 1 :]
            run = play(boards.inventory, playbook, *given)
        else:
            assert run
            yield block, run


def compare_session(text: str, boards: Fleet) -> None:
    """Run the commands of a session on the board; assert that they print what is shown."""
    (board,) = boards.boards.values()
    for part in re.split(r"^# ", text, flags=re.MULTILINE)[1:]:
        command, _newline, printed = part.partition("\n")
        assert run_on(board, *shlex.split(command)) == printed, command


def shown_in(block: Block, run: Run) -> bool:
    """Return whether the output of the run contains the sample.

    A line that is only OMITTED stands for any lines, OMITTED in a line for any text. Messages of a
    run that fails are one line each, which the page breaks.
    """
    if run.code:
        pattern = re.escape(" ".join(block.text.split())).replace(OMITTED, ".*")
        return re.search(pattern, " ".join(run.output.split())) is not None
    lines = [
        r"(?:.*\n)*?" if line == OMITTED else re.escape(line).replace(OMITTED, ".*") + r" *\n"
        for line in block.text.splitlines()
    ]
    return re.search("^" + "".join(lines), run.output, re.MULTILINE) is not None


@pytest.mark.parametrize("title", BOARDS)
def test_the_list_of_the_page_holds_after_a_reboot(title: str, tmp_path: Path) -> None:
    board = plan(title)
    tree = board.device_tree and read_device_tree(board.device_tree)
    assert board.drivers
    description = read_description(board.drivers)
    lab = Lab(lambda: build(tree or None, description), tmp_path)
    native = bindings(lab.machine)
    entries, settings = last_list(title)
    lab.apply(entries, **settings)
    applied = bindings(lab.machine)
    changed = {name for name, binding in applied.items() if binding != native.get(name)}
    taken = [entry for entry in entries if entry["policy"] != "default"]
    assert len(changed) == sum(entry.get("expect", 1) for entry in taken)
    lab.reboot()
    assert bindings(lab.machine) == applied
    assert not lab.apply(entries, **settings).is_changed


def last_list(title: str) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """Return the entries of the last list of a section, and the settings with it."""
    *_earlier, last = [block.text for block in sections()[title] if block.shows == "yaml"]
    variables: dict[str, Any] = yaml.safe_load(last)
    settings = {name.removeprefix("passthrough_"): value for name, value in variables.items()}
    return settings.pop("devices"), settings
