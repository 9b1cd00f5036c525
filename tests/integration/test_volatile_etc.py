"""A host that keeps /etc in memory has no list after a reboot, and says so before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.calls import apply_role
from tests.harness.sysfs import files, read_machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

LIST = {"passthrough_devices": [{"dt_path": "/soc/crypto@b000000", "policy": "no_autobind"}]}
IN_MEMORY = "cp -a /etc /run/etc && mount -t tmpfs tmpfs /etc && cp -a /run/etc/. /etc"


@pytest.fixture(scope="module")
def guest(start: Callable[[str, str], Guest]) -> Guest:
    return start("test-volatile-etc", "a")


def test_what_is_written_to_memory_is_warned_of_and_gone_after_a_reboot(
    guest: Guest, inventory: Path
) -> None:
    untouched = read_machine(guest).bindings
    guest.run(IN_MEMORY)
    for arguments in (["--check"], []):
        run = apply_role(inventory, LIST, *arguments)
        reported = " ".join(run.output.split())
        assert "The boot files of this list are in memory (tmpfs on /etc)" in reported
    assert read_machine(guest).named("b000000.crypto").binding == (None, "none")
    assert files(guest)
    guest.reboot()
    assert read_machine(guest).bindings == untouched
    assert files(guest) == {}
