# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Terminals and screens that are a console or held open, and those that a boot needs."""

from __future__ import annotations

from typing import Mapping

from .. import _text
from .._system.sysfs import Sysfs
from .use_kind import ClassCheck, Entry, UseKind


class Console(UseKind):
    name = "console"
    is_of_user_space = True

    @property
    def classes(self) -> Mapping[str, ClassCheck]:
        return {
            "tty": ClassCheck(self._use_of_terminal, judges_node=True),
            "graphics": ClassCheck(_use_of_framebuffer),
            "virtio-ports": ClassCheck(_use_of_virtio_port),
        }

    @property
    def configured(self) -> Mapping[str, ClassCheck]:
        return {"tty": ClassCheck(self._configured_use)}

    def _use_of_terminal(self, entry: Entry) -> str | None:
        if entry.name in _system_consoles(self.sysfs):
            return "%s is the system console" % entry.name
        return self.sources.held_open("terminal " + entry.name, "/dev/" + entry.name, entry.path)

    def _configured_use(self, entry: Entry) -> str | None:
        use = self.sources.configured.terminal(entry.name)
        return "terminal %s is %s" % (entry.name, use) if use else None


def _system_consoles(sysfs: Sysfs) -> list[str]:
    return _text.words(sysfs.read("class/tty/console/active") or "")


def _use_of_framebuffer(entry: Entry) -> str | None:
    # fbcon in drivers/video/fbdev/core/fbcon.c; which of several it shows is not told.
    for name in entry.sysfs.names("class/vtconsole"):
        console = "class/vtconsole/" + name
        if "frame buffer" in (entry.sysfs.read(console + "/name") or ""):
            bound = entry.sysfs.read_locked([console + "/bind"])[0]
            if bound == "1":
                return "%s shows the virtual terminals" % entry.name
    return None


def _use_of_virtio_port(entry: Entry) -> str | None:
    # Terminals of hvc have no device above them: hvc_init in drivers/tty/hvc/hvc_console.c.
    active = [name for name in _system_consoles(entry.sysfs) if name.startswith("hvc")]
    if not active:
        return None
    return "%s may be the system console %s" % (entry.name, active[0])
