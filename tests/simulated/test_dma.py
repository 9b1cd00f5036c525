# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A DMA engine whose channels are in use is refused, whatever `allow` contains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE
from extensions.simulator.description import Carried, Description, Habits
from extensions.simulator.machine import build
from tests.simulated.boards import Part, device_tree
from tests.simulated.lab import Lab, bindings

BUSY, IDLE = "1000.dma", "2000.dma"
PARTS = [Part("dma", False, True, False, False, None)] * 2
DESCRIPTION = Description(
    kernel=Habits(groups_at_boot=True),
    carries=tuple(Carried(BUSY, "dma", f"dma0chan{number}") for number in range(2)),
)
COUNT = f"devices/platform/{BUSY}/dma/dma0chan0/in_use"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(lambda: build(device_tree(PARTS), DESCRIPTION), tmp_path)


@pytest.mark.parametrize("policy", ["vfio", "no_autobind"])
def test_nothing_is_written_while_a_channel_is_in_use(lab: Lab, policy: str) -> None:
    entries: list[dict[str, Any]] = [{"name": name, "policy": policy} for name in (IDLE, BUSY)]
    before = lab.everything()
    with pytest.raises(PolicyError) as caught:
        lab.apply(entries, reset_required=False, allow=ACCEPTABLE)
    (reported,) = caught.value.problems
    assert "2 of its 2 DMA channels are in use: dma0chan0 by 1 client of the kernel" in reported
    assert lab.everything() == before


def test_the_engine_is_taken_when_its_channels_are_returned(lab: Lab) -> None:
    for number in range(2):
        lab.machine.tree.put(COUNT.replace("chan0", f"chan{number}"), "0\n")
    lab.apply([{"name": BUSY, "policy": "vfio"}], reset_required=False)
    assert bindings(lab.machine)[BUSY] == ("vfio-platform", "vfio-platform")
