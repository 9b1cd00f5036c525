# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateways to one machine: /sys, kernel modules, files and the kernel's log."""

from __future__ import annotations

from typing import NamedTuple

from .files import Files
from .kmod import Kmod
from .kmsg import KernelLog
from .sysfs import Sysfs


class Host(NamedTuple):
    """All that a run reads and writes goes through these."""

    sysfs: Sysfs
    kmod: Kmod
    files: Files
    log: KernelLog


def open_host(timeout: float) -> Host:
    """Return all gateways to this machine; a call of the kernel may take ``timeout`` seconds."""
    return Host(Sysfs(timeout=timeout), Kmod(timeout=timeout), Files(), KernelLog())
