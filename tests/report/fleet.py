# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleets to report on: results of device_info for each host, and the states made from them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import host_state
from ansible_collections.armfleet.vfio.plugins.plugin_utils._report_columns import HostState

VFIO = "vfio-platform"
NO_GROUP = {"kind": "no_iommu_group", "message": "no IOMMU group"}


class Kind(NamedTuple):
    """Devices of one kind on a board; the IOMMU is in front of those that have a group."""

    node: str
    driver: str | None
    number: int
    carries: tuple[str, str, str] | None = None
    bus: str = "platform"
    has_group: bool = False


class Board(NamedTuple):
    """A board model; the addresses of its devices begin at ``base``."""

    base: int
    below: str
    kinds: tuple[Kind, ...]

    @property
    def size(self) -> int:
        return sum(kind.number for kind in self.kinds)


EDGE = Board(
    0xE0000000,
    "/soc",
    (
        Kind(
            *("ethernet", "amd-xgbe", 2, ("network", "eth", "network interface eth%d is up")),
            has_group=True,
        ),
        Kind("sata", "ahci", 1, ("storage", "sda", "sda%d is mounted on /")),
        Kind("crypto", "ccp-crypto", 2, has_group=True),
        Kind("dma", "dma-pl330", 2, bus="amba", has_group=True),
        Kind(
            "serial", "uart-pl011", 2, ("console", "ttyAMA", "it is the console ttyAMA%d"), "amba"
        ),
        Kind("gpio", "pl061_gpio", 5, bus="amba"),
        Kind("i2c", "i2c_designware", 4),
        Kind("spi", "ssp-pl022", 2, bus="amba"),
        Kind("usb", "xhci-hcd", 2),
        Kind("iommu", "arm-smmu", 3),
        Kind("watchdog", "sbsa-gwdt", 1, ("watchdog", "watchdog", "watchdog%d is running")),
        Kind("rtc", "rtc-pl031", 1, ("clock", "rtc", "rtc%d keeps the system's time"), "amba"),
        Kind("pmu", None, 4),
        Kind("timer", None, 3),
    ),
)
GATEWAY = Board(
    0x02000000,
    "/bus@0/soc",
    (
        Kind("ethernet", "fsl_dpaa_mac", 8, ("network", "eth", "network interface eth%d is up")),
        Kind("crypto", "caam", 1),
        Kind("crypto-ring", "caam_jr", 4, has_group=True),
        Kind("mmc", "sdhci-esdhc", 2, ("storage", "mmcblk", "mmcblk%dp1 is mounted on /")),
        Kind("serial", "uart-8250", 4, ("console", "ttyS", "it is the console ttyS%d")),
        Kind("qman-portal", "qman_portal", 8),
        Kind("i2c", "i2c-imx", 4),
        Kind("gpio", "gpio-mpc8xxx", 4),
        Kind("dma", "fsl-edma", 2),
        Kind("usb", "dwc3", 3, has_group=True),
        Kind("pcie", "layerscape-pcie", 3),
        Kind("thermal", "qoriq_thermal", 1),
        Kind("watchdog", "imx2-wdt", 4),
        Kind("timer", None, 8),
    ),
)


def devices_of(board: Board, shift: int = 0) -> Iterator[dict[str, Any]]:
    """Yield a board's devices as device_info returns them, bound to their native drivers."""
    address = board.base + shift
    group = 0
    for kind in board.kinds:
        for number in range(kind.number):
            address += 0x10000
            name = f"{address:x}.{kind.node}"
            claims = (
                f"the module of {kind.driver} claims it" if kind.driver else "no driver claims it"
            )
            hazards = []
            if kind.carries and number == 0:
                what, subject, sentence = kind.carries
                hazards = [{"kind": what, "subject": subject, "message": sentence % number}]
            path = f"{board.below}/{kind.node}@{address:x}"
            obstacles = [] if kind.has_group else [dict(NO_GROUP)]
            obstacles += [{**use, "message": f"in use: {use['message']}"} for use in hazards]
            group += kind.has_group
            yield {
                "name": name,
                "bus": kind.bus,
                "dt_path": path,
                "compatible": [f"acme,{kind.node}"],
                "acpi_path": None,
                "acpi_hid": None,
                "iommu_group": str(group) if kind.has_group else None,
                "iommu_group_devices": [],
                "reset_function": False if kind.bus == "platform" else None,
                "isolated_interrupts": False,
                "candidate": not obstacles,
                "why_not": obstacles,
                "entry": {"dt_path": path, "policy": "vfio"},
                "settings": {"reset_required": False} if kind.bus == "platform" else {},
                "driver": kind.driver,
                "driver_override": None,
                "desired": None,
                "next_boot": {
                    "driver": kind.driver,
                    "driver_override": None,
                    "known": True,
                    "in_drift": False,
                    "reason": claims,
                },
                "drift": [],
                "in_use_by": hazards,
            }


def give_to_vfio(device: dict[str, Any]) -> None:
    """Make the device one that the list binds to VFIO, and that is in sync."""
    device |= {
        "driver": VFIO,
        "driver_override": VFIO,
        "desired": {"driver": VFIO, "driver_override": VFIO},
        "next_boot": {
            "driver": VFIO,
            "driver_override": VFIO,
            "known": True,
            "in_drift": False,
            "reason": "policy vfio of the last-applied configuration",
        },
        "in_use_by": [],
    }


def take_back(device: dict[str, Any], native: str) -> None:
    """Make the device drift: it was bound to its native driver manually."""
    sentence = (
        f"it is bound to {native} with driver_override unset, but the last-applied configuration "
        f"requires it to be bound to {VFIO} with driver_override {VFIO}, as it will be after the "
        "next boot"
    )
    device |= {"driver": native, "driver_override": None, "drift": [sentence]}


def keep_until_boot(device: dict[str, Any]) -> None:
    """Make the device one whose list was applied for the next boot only."""
    native = {"driver": device["driver"], "driver_override": device["driver_override"]}
    give_to_vfio(device)
    take_back(device, str(native["driver"]))


def result(board: Board, shift: int = 0, vfio: str = "", state: str = "in_sync") -> dict[str, Any]:
    """Return the result of a host; its list has the devices whose nodes are named ``vfio``."""
    devices = list(devices_of(board, shift))
    listed = [device for device in devices if vfio and f"/{vfio}@" in device["dt_path"]]
    natives = [str(device["driver"]) for device in listed]
    for device in listed:
        (keep_until_boot if state == "reboot_required" else give_to_vfio)(device)
    if state == "drift":
        take_back(listed[0], natives[0])
    return {
        "devices": devices,
        "policy_list": [{"compatible": f"acme,{vfio}", "policy": "vfio"}] if listed else [],
        "reboot_required": state == "reboot_required",
    }


def unreachable(message: str) -> dict[str, Any]:
    """Return the result of a host that could not be reached."""
    return {"unreachable": True, "msg": f"Failed to connect to the host via ssh: {message}"}


def example() -> list[HostState]:
    """Return a small fleet with every state, for the screenshots."""
    results: dict[str, Mapping[str, Any]] = {}
    for number in range(1, 13):
        results[f"edge-{number:02}"] = result(EDGE, vfio="crypto")
    for number in range(1, 9):
        results[f"gateway-{number:02}"] = result(GATEWAY, vfio="crypto-ring")
    results["edge-04"] = result(EDGE, vfio="crypto", state="drift")
    results["gateway-05"] = result(GATEWAY, vfio="crypto-ring", state="drift")
    results["gateway-06"] = result(GATEWAY, vfio="crypto-ring", state="reboot_required")
    results["edge-11"] = result(EDGE)
    results["edge-12"] = result(EDGE)
    results["edge-09"] = unreachable("ssh: connect to host 192.0.2.19 port 22: No route to host")
    results["gateway-08"] = {
        "failed": True,
        "module_stderr": "OSError: [Errno 28] No space left on device: '/tmp/ansible-x'",
        "msg": "MODULE FAILURE",
    }
    return states(results)


def large(hosts: int = 500, devices: int = 60, *, alike: bool = True) -> list[HostState]:
    """Return a fleet of this size; if not ``alike``, no two hosts have a device in common."""
    draw = random.Random(7)
    results: dict[str, Mapping[str, Any]] = {}
    for number in range(hosts):
        board, vfio = ((EDGE, "crypto"), (GATEWAY, "crypto-ring"))[number % 2]
        filled = board._replace(
            kinds=(*board.kinds, Kind("port", "acme-port", devices - board.size))
        )
        state = draw.choices(("in_sync", "unmanaged", "drift", "reboot_required"), (80, 10, 7, 3))[
            0
        ]
        shift = 0 if alike else number * 0x1000
        name = f"{'edge' if number % 2 == 0 else 'gateway'}-{number:03}"
        results[name] = result(filled, shift, "" if state == "unmanaged" else vfio, state)
        if draw.random() < 0.02:
            message = f"ssh: connect to host 192.0.2.{number % 250} port 22: Connection refused"
            results[name] = unreachable(message)
    return states(results)


def states(results: Mapping[str, Mapping[str, Any]]) -> list[HostState]:
    """Return the states of hosts from their results by name."""
    return [host_state(name, returned) for name, returned in results.items()]
