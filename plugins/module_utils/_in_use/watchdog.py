# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watchdogs that are running or held open."""

from __future__ import annotations

from typing import Mapping

from .use_kind import ClassCheck, Entry, UseKind, held


class Watchdog(UseKind):
    name = "watchdog"
    is_of_user_space = True

    @property
    def classes(self) -> Mapping[str, ClassCheck]:
        return {
            "watchdog": ClassCheck(self._use_of_watchdog, judges_node=True),
            "ipmi": ClassCheck(_use_of_bmc),
        }

    def _use_of_watchdog(self, entry: Entry) -> str | None:
        if entry.read("state") == "active":
            return "%s is running and may reset the machine" % entry.name
        # The first one has an old name as well: watchdog_cdev_register in drivers/watchdog.
        holders = self.sources.holders("/dev/" + entry.name, entry.path)
        if entry.name == "watchdog0":
            holders += self.sources.holders("/dev/watchdog", "class/misc/watchdog")
        return held(entry.name, holders) if holders else None


def _use_of_bmc(entry: Entry) -> str | None:
    # Its watchdog has no device of its own: drivers/char/ipmi/ipmi_watchdog.c.
    if not entry.sysfs.exists("module/ipmi_watchdog"):
        return None
    return "module ipmi_watchdog uses its watchdog through %s" % entry.name
