"""The cost of checking whether 200 devices are in use before they are unbound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.guest import Guest

ROOT = Path(__file__).parents[2]
COLLECTION = "ansible_collections/armfleet/vfio"
MOST = 1.25


@pytest.fixture(scope="module")
def guest(start: Callable[[str, str], Guest]) -> Guest:
    guest = start("test-e", "e")
    guest.run(f"mkdir -p /root/{COLLECTION}")
    guest.put(ROOT / "plugins", f"/root/{COLLECTION}/plugins")
    guest.put(ROOT / "tests/bench/gate.py", "/root/gate.py")
    return guest


def test_the_gate_adds_at_most_a_quarter_to_what_a_plan_calls(
    guest: Guest, capsys: pytest.CaptureFixture[str], depth: str
) -> None:
    policies = ["vfio", "no_autobind"] if depth == "nightly" else ["vfio"]
    command = ["python3", "/root/gate.py", "/root", *policies]
    ratios = json.loads(guest.run(command, timeout=600).stdout)
    with capsys.disabled():
        print()
        for policy, ratio in ratios.items():
            print(f"plan for 200 devices to {policy}: {ratio:.2f} times the calls with the gate")
    assert list(ratios) == policies
    assert max(ratios.values()) <= MOST
