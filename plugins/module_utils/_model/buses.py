# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The buses whose devices have a driver_override. Pure data."""

from __future__ import annotations

VFIO_DRIVERS = {"platform": "vfio-platform", "amba": "vfio-amba"}
