# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The device trees of real boards, about 1,000, as Debian's kernel for arm64 carries them."""

from __future__ import annotations

from pathlib import Path

from tests.guest.debian_kernel import debian_kernel


def device_trees() -> list[Path]:
    """Return the .dtb files, in one directory for each maker; at first they are downloaded."""
    return sorted((debian_kernel().ensure() / "boards").rglob("*.dtb"))
