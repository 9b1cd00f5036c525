# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""device_info only reads, and loads nothing else: the host compiles all that it loads."""

from __future__ import annotations

from loaded import loaded_by

# What a refusal of a trial is made by, and the names of links.
SHARED = {"_apply", "_apply.readiness", "_apply.symlinks"}


def test_device_info_loads_nothing_of_the_write_path() -> None:
    loaded = loaded_by("_report.device_info")
    assert "_report.device_info" in loaded
    assert {name for name in loaded if name.startswith("_apply")} <= SHARED
    assert "_boot.boot_files" not in loaded
