# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateways to one machine: /sys, kernel modules, files and the kernel's log."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .files import Files
from .sysfs import Sysfs

if TYPE_CHECKING:
    from .kmod import Kmod
    from .kmsg import KernelLog


class Readers(NamedTuple):
    """The gateways by which a run that finds nothing to do reads its host."""

    sysfs: Sysfs
    files: Files


class Host(NamedTuple):
    """All that a run reads and writes goes through these."""

    sysfs: Sysfs
    kmod: Kmod
    files: Files
    log: KernelLog


def open_readers(timeout: float) -> Readers:
    """Return the gateways to /sys and files; a write may take ``timeout`` seconds."""
    return Readers(Sysfs(timeout=timeout), Files())


def open_modules(timeout: float) -> tuple[Kmod, KernelLog]:
    """Return those to kernel modules and to what the kernel says when it uses them."""
    # Here, because nearly all runs have no use for them.
    from .kmod import (  # noqa: PLC0415
        Kmod,
    )
    from .kmsg import (  # noqa: PLC0415
        KernelLog,
    )

    return Kmod(timeout=timeout), KernelLog()


def open_host(timeout: float) -> Host:
    """Return all gateways to this machine."""
    sysfs, files = open_readers(timeout)
    kmod, log = open_modules(timeout)
    return Host(sysfs, kmod, files, log)
