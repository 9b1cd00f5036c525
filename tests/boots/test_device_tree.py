"""Boots from a device tree without an initramfs: built-in drivers, and devices that appear late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.boots.table import UNTOUCHED, Boots, Case, Row
from tests.guest.packages import STOCK_SERIES
from tests.harness.calls import info

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

VFIO, AMBA, NONE = ("vfio-platform",) * 2, ("vfio-amba",) * 2, (None, "none")
LIST: list[dict[str, Any]] = [
    {"dt_path": "/virtio_mmio@a000000", "policy": "vfio"},
    {"dt_path": "/soc/ring@b100000", "policy": "vfio"},
    {"compatible": "acme,dma", "policy": "vfio"},
    {"dt_path": "/soc/waiting@b024000", "policy": "vfio"},
    {"dt_path": "/soc/engine@b025000", "policy": "vfio"},
    {"dt_path": "/pl031@9010000", "policy": "vfio"},
    {"dt_path": "/late-bus/shared@b029000", "policy": "vfio"},
    {"dt_path": "/soc/ring@b102000", "policy": "no_autobind"},
    {"dt_path": "/soc/ring@b103000", "policy": "driver", "driver": "acme-ring"},
]
# Of the module fixed_phy, which only the distribution's kernel has.
MDIO = {"name": "Fixed MDIO bus.0", "policy": "no_autobind"}


class BuiltIn(NamedTuple):
    """A device of the list whose native driver is built into a kernel."""

    path: str
    case: Case
    drivers: str
    driver: str


SLOT = BuiltIn(
    "/virtio_mmio@a000000",
    Case("", "a000000.virtio_mmio", VFIO),
    "/sys/bus/platform/drivers",
    "virtio-mmio",
)
CLOCK = BuiltIn(
    "/pl031@9010000", Case("", "9010000.pl031", AMBA), "/sys/bus/amba/drivers", "rtc-pl031"
)


def settings(kernel: str) -> dict[str, Any]:
    """Return the variables of the role for the devices that this kernel has."""
    return {
        "passthrough_devices": [*LIST, MDIO] if kernel == STOCK_SERIES else LIST,
        "passthrough_reset_required": False,
        # A kernel with a built-in driver for pl031 sets the time by it.
        "passthrough_allow": ["clock"],
    }


def cases(kernel: str) -> list[Case]:
    """Return the cases. Each kernel has one of the drivers of virtio-mmio and pl031 built in."""
    slots, clock = "built in", "a module"
    named = []
    if kernel == STOCK_SERIES:
        slots, clock = clock, slots
        named = [Case("name with spaces, no_autobind", MDIO["name"], NONE)]
    return [
        Case(f"native driver {slots}, path", "a000000.virtio_mmio", VFIO),
        Case("  its sibling", "a000200.virtio_mmio", UNTOUCHED),
        Case("native driver a module, path", "b100000.ring", VFIO),
        Case("  its sibling", "b101000.ring", UNTOUCHED),
        Case("compatible, first of its strings", "b020000.dma", VFIO),
        Case("compatible, second", "b021000.dma", VFIO),
        Case("compatible, third", "b022000.dma", VFIO),
        Case("  one that only begins alike", "b023000.dma", UNTOUCHED),
        Case("supplier late, path", "b024000.waiting", VFIO),
        Case("AMBA without native driver, path", "b025000.engine", AMBA),
        Case(f"AMBA, native driver {clock}, path", "9010000.pl031", AMBA),
        Case("appears late, compatible", "b028000.dma", VFIO),
        Case("appears late, path", "b029000.shared", VFIO),
        Case("  its sibling", "b02a000.shared", UNTOUCHED),
        Case("no_autobind, native driver a module", "b102000.ring", NONE),
        Case("driver", "b103000.ring", ("acme-ring", "acme-ring")),
        *named,
    ]


# Loads modules late, as a program that starts at the end of the boot does.
LATE = """\
[Unit]
After=multi-user.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStartPre=udevadm settle
ExecStart=modprobe --all %s
[Install]
WantedBy=default.target
"""


def load_modules_late(guest: Guest, kernel: str) -> None:
    modules = "acme_clock acme_bus" + " fixed_phy" * (kernel == STOCK_SERIES)
    guest.run("cat > /etc/systemd/system/late.service", input=LATE % modules)
    guest.run("systemctl daemon-reload; systemctl enable --now late.service; udevadm settle")


@pytest.fixture(scope="module")
def guest(start: Callable[..., Guest], kernel: str) -> Guest:
    guest = start(f"boots-{kernel.replace('.', '-')}", "f", kernel)
    load_modules_late(guest, kernel)
    return guest


def test_the_rules_win_at_each_boot(
    guest: Guest, inventory: Path, record: Callable[[Row], None], kernel: str
) -> None:
    boots = Boots(guest, inventory, settings(kernel))
    run = boots.apply(passthrough_runtime=False)
    assert run.of("armfleet.vfio.host_policy")["reboot_required"] is True
    boots.try_twice(cases(kernel), record)


def test_the_parameters_that_are_named_keep_a_built_in_driver_off(
    guest: Guest, inventory: Path, record: Callable[[Row], None], kernel: str
) -> None:
    """Comes last, because the parameters disable the driver for all devices of the guest."""
    built_in = CLOCK if kernel == STOCK_SERIES else SLOT
    boots = Boots(guest, inventory, settings(kernel))
    boots.apply(passthrough_devices=[])
    done = boots.apply().of("armfleet.vfio.host_policy")
    (early,) = done["kernel_command_line"]
    assert early["name"] == built_in.case.device
    (shown,) = info(inventory, {"dt_path": built_in.path})
    assert shown["kernel_command_line"] == early

    def boot() -> None:
        guest.start_again(words=[early["parameter"]])

    boots.try_twice(cases(kernel), record, boot, once=True)
    assert built_in.driver not in guest.run(["ls", built_in.drivers]).stdout.split()
