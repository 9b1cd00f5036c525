# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real arm64 kernel under QEMU, for tests and the demo; see README.md."""

from __future__ import annotations

from .errors import GuestError
from .guest import Guest
from .inventory import write_inventory

__all__ = ["Guest", "GuestError", "write_inventory"]
