# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The clock by which the system's time is set, or that is to wake the machine."""

from __future__ import annotations

from typing import Mapping

from .use_kind import ClassCheck, Entry, UseKind


class Clock(UseKind):
    name = "clock"

    @property
    def classes(self) -> Mapping[str, ClassCheck]:
        return {"rtc": ClassCheck(_use_of_rtc)}


def _use_of_rtc(entry: Entry) -> str | None:
    # drivers/rtc/sysfs.c; an alarm is read under a lock of the rtc.
    if entry.read("hctosys") == "1":
        return "%s is the clock that sets the system time" % entry.name
    if "wakealarm" in entry.listing.others and entry.read_locked("wakealarm"):
        return "%s has an alarm set (wakealarm)" % entry.name
    return None
