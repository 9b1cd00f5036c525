# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a board's machine is like beyond its device tree: drivers, modules, the kernel's habits.

Users write it as YAML, which description_file.py reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Linux has it in include/linux/errno.h, for itself only.
EPROBE_DEFER = 517
BUSES = ("platform", "amba")
VFIO_DRIVERS = {"platform": "vfio-platform", "amba": "vfio-amba"}
CARRIED = ("net", "block", "tty", "dma")
# The reset functions that Linux has (drivers/vfio/platform/reset).
_RESET_FUNCTIONS = {
    "calxeda,hb-xgmac": "vfio_platform_calxedaxgmac",
    "amd,xgbe-seattle-v1a": "vfio_platform_amdxgbe",
    "brcm,iproc-flexrm-mbox": "vfio_platform_bcmflexrm",
}


@dataclass(frozen=True)
class Habits:
    """How this kernel was built and how it behaves where kernels differ."""

    groups_at_boot: bool = False
    reset_bug: bool = False
    noiommu: bool = True
    device_cdev: bool = True
    override_locks: bool = False
    vfio: str = "module"


@dataclass(frozen=True)
class Driver:
    """A driver; ``probe`` gives errnos by device name, with "*" for every other device.

    ``remove`` is how many seconds its remove takes, and infinity for one that never returns;
    ``makes`` names the device that it makes below each one that it is bound to, ``waits_for`` the
    device without which it defers.
    """

    name: str
    bus: str = "platform"
    compatible: tuple[str, ...] = ()
    amba_ids: tuple[str, ...] = ()
    hids: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    module: str | None = None
    probe: Mapping[str, int] = field(default_factory=dict)
    suppress_bind_attrs: bool = False
    remove: float = 0
    makes: str | None = None
    waits_for: str | None = None


@dataclass(frozen=True)
class Module:
    """A kernel module; ``aliases`` are patterns beside those that its drivers give it.

    ``then`` are those that modprobe loads after it (softdep post). ``loaded`` says whether it is
    at boot; ``built_in`` that it is no file but part of the kernel; ``held`` that somebody uses it
    for good.
    """

    name: str
    needs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    then: tuple[str, ...] = ()
    loaded: bool = False
    built_in: bool = False
    held: bool = False


@dataclass(frozen=True)
class Extra:
    """A device that no node of the device tree stands for."""

    name: str
    bus: str = "platform"
    acpi_path: str | None = None
    acpi_hid: str | None = None


@dataclass(frozen=True)
class Carried:
    """What a device carries while its native driver has it: ``kind`` is one of CARRIED."""

    device: str
    kind: str
    name: str


@dataclass(frozen=True)
class Description:
    """The whole of it; ``dmi`` are names as in /sys/class/dmi/id, of a machine with ACPI."""

    kernel: Habits = Habits()
    natives: str = "each"
    drivers: tuple[Driver, ...] = ()
    modules: tuple[Module, ...] = ()
    devices: tuple[Extra, ...] = ()
    carries: tuple[Carried, ...] = ()
    reset_functions: Mapping[str, str] = field(default_factory=lambda: dict(_RESET_FUNCTIONS))
    dmi: Mapping[str, str] = field(default_factory=dict)
