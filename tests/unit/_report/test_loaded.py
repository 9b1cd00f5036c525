# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""device_info only reads, and loads nothing else: the host compiles all that it loads."""

from __future__ import annotations

from loaded import loaded_by

# What a refusal of a trial is made by.
OF_CANDIDATES = {"_apply", "_apply.readiness"}

PLAYING = {
    "_boot.played_rules",
    "_boot.udev_device",
    "_boot.udev_effects",
    "_boot.udev_event",
    "_boot.udev_patterns",
    "_boot.udev_syntax",
}
# Rules of a list, the rollouts that applied it, what it lost, and the links to its nodes.
OF_LISTS = {
    "_apply.symlinks",
    "_boot.rollout_history",
    "_boot.udev_rules",
    "_report.lost_entries",
}


def test_device_info_loads_nothing_of_the_write_path() -> None:
    loaded = loaded_by("_report.device_info")
    assert "_report.device_info" in loaded
    assert not {name for name in loaded if name.startswith("_apply")}
    assert "_boot.boot_files" not in loaded
    # Nor does who does not ask for it need to know what uses a device.
    assert "_in_use.checker" not in loaded
    # Only a host with foreign rules for drivers needs what they are played by.
    assert not {name for name in loaded if name in PLAYING}


def test_only_a_host_with_a_list_loads_what_is_about_lists() -> None:
    assert not (loaded_by("_report.device_info") | loaded_by("_report.candidates")) & OF_LISTS


def test_only_candidates_load_what_they_are_judged_by() -> None:
    plain, judging = loaded_by("_report.device_info"), loaded_by("_report.candidates")
    assert {name for name in judging if name.startswith("_apply")} <= OF_CANDIDATES
    judges = {"_apply.readiness", "_discovery.isolation"}
    assert judges <= judging
    assert not plain & {*judges, "_report.candidates", "_report.vfio_support"}
    # Other policies name drivers.
    assert "_discovery.driver_names" not in judging


def test_only_a_device_with_dma_channels_loads_what_they_are_judged_by() -> None:
    assert "_in_use.dma" not in loaded_by("_in_use.consumers")
