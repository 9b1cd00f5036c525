"""What happens at the same time, on a guest with two processors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.harness.calls import apply, apply_vfio
from tests.harness.sysfs import bindings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.guest import Guest
    from tests.harness.playbook import Run

RINGS = [f"/soc/ring@b1{number:02x}000" for number in range(8)]
VFIO, NATIVE = ("vfio-platform", "vfio-platform"), ("acme-ring", None)

pytestmark = [pytest.mark.nightly, pytest.mark.usefixtures("released_guest")]


@pytest.fixture(scope="module")
def guest(start: Callable[[str, str], Guest]) -> Guest:
    return start("test-races", "races")


def test_two_runs_together_end_as_if_one_came_after_the_other(
    guest: Guest, inventory: Path
) -> None:
    lists = {"even": RINGS[::2], "all": RINGS}

    def apply_list(paths: list[str]) -> Run:
        return apply_vfio(inventory, *paths, unsafe_interrupts=False)

    with ThreadPoolExecutor(2) as pool:
        for _pair in range(20):
            runs = list(pool.map(apply_list, lists.values()))
            assert [run.code for run in runs] == [0, 0], runs[0].output + runs[1].output
            even = [VFIO, NATIVE] * 4
            assert bindings(guest, RINGS) in (even, [VFIO] * 8)
            warnings = [
                line for run in runs for line in run.output.splitlines() if "WARNING" in line
            ]
            assert warnings == []


# As at boot: no override and no driver. The events of 16 rings load the native module at the same
# time. Busy processors vary the moment at which that happens while the rules run.
_REPLAY_WITHOUT_DRIVER = """
    for processor in 1 2; do (while :; do :; done) & done
    trap 'kill $(jobs -p)' EXIT
    udevadm control --reload
    modprobe -r acme
    cd /sys/bus/platform/devices
    for device in b001000.dma b002000.dma; do
        echo > $device/driver_override
        echo $device > $device/driver/unbind
    done
    udevadm trigger --action=add --subsystem-match=platform --settle
    udevadm settle
    basename -a $(readlink b001000.dma/driver b002000.dma/driver b102000.ring/driver)
"""

# As at boot with a built-in native driver: the device is bound to it before udev runs.
_REPLAY_ON_NATIVE_DRIVER = """
    cd /sys/bus/platform/devices
    for device in b001000.dma b002000.dma; do
        echo > $device/driver_override
        echo $device > $device/driver/unbind
        echo $device > ../drivers_probe
    done
    basename -a $(readlink b001000.dma/driver b002000.dma/driver)
    udevadm trigger --action=add --subsystem-match=platform --settle
    udevadm settle
    basename -a $(readlink b001000.dma/driver b002000.dma/driver)
"""


def test_the_rules_win_against_a_native_driver_at_any_moment(guest: Guest, inventory: Path) -> None:
    apply(inventory, [{"compatible": "acme,dma", "policy": "vfio"}], reset_required=False)
    for _round in range(10):
        drivers = guest.run(_REPLAY_WITHOUT_DRIVER).stdout.split()
        assert drivers == ["vfio-platform", "vfio-platform", "acme-ring"]
    drivers = guest.run(_REPLAY_ON_NATIVE_DRIVER).stdout.split()
    assert drivers == ["acme-ring", "acme-ring", "vfio-platform", "vfio-platform"]
