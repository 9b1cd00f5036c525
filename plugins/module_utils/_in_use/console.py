# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Terminals and screens that are a console or held open, and those that a boot needs."""

from __future__ import annotations

import functools
import re
from typing import Mapping, Sequence

from .. import _text
from .._model.buses import PCI
from .._model.device import Identity, State
from .._system.sysfs import Sysfs
from .kinds import CONSOLE, Hazard
from .use_kind import ClassCheck, Entry, UseKind

_SCREENS = frozenset({"BOOTFB", "efifb", "simplefb", "vesafb"})


class Console(UseKind):
    name = CONSOLE
    is_of_user_space = True

    @property
    def classes(self) -> Mapping[str, ClassCheck]:
        return {
            "tty": ClassCheck(self._use_of_terminal, judges_node=True),
            "graphics": ClassCheck(_use_of_framebuffer),
            "drm": ClassCheck(_use_of_card),
            "virtio-ports": ClassCheck(_use_of_virtio_port),
        }

    def of_device(
        self,
        device: Identity,
        state: State,  # noqa: ARG002 - what lies in its memory does not depend on its driver
        known: Sequence[Hazard],
    ) -> list[Hazard]:
        hazards = self.of_unbound(device)
        return [] if hazards and any(hazard.kind == self.name for hazard in known) else hazards

    def of_unbound(self, device: Identity) -> list[Hazard]:
        """Return the screen that the firmware set up, which only a boot restores after VFIO.

        vfio_pci_vga_init calls aperture_remove_conflicting_pci_devices.
        """
        if device.bus != PCI:
            return []
        screen = self._screens.get(device.name)
        sentence = "the screen that the firmware set up (%s) is in its memory"
        return [Hazard(self.name, device.name, sentence % screen)] if screen else []

    @functools.cached_property
    def _screens(self) -> dict[str, str]:
        """The names of the firmware's framebuffers, by the address of the function whose memory
        they are in.

        Those of sysfb_create_simplefb, efifb_probe, vesafb_probe and simplefb_probe; a region is
        indented by how many it lies in (r_show in kernel/resource.c).
        """
        screens: dict[str, str] = {}
        above: list[str] = []
        for line in _text.lines(self.sources.processes.text("iomem")):
            name = line.partition(" : ")[2]
            depth = (len(line) - len(line.lstrip(" "))) // 2
            above = [*above[:depth], name]
            if name in _SCREENS:
                screens.update(dict.fromkeys(above[:-1], name))
        return screens

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
    # Which of several it shows is not known.
    return "%s shows the virtual terminals" % entry.name if _has_console(entry.sysfs) else None


def _use_of_card(entry: Entry) -> str | None:
    """Return that a card with a screen may be the console, if no framebuffer tells.

    Without CONFIG_FB_DEVICE none has a device: fb_device_create in
    drivers/video/fbdev/core/fbsysfs.c. A card has its connectors below it.
    """
    connector = entry.name + "-"
    if not any(name.startswith(connector) for name in entry.listing.directories):
        return None
    if any(re.fullmatch(r"fb\d+", name) for name in entry.sysfs.names("class/graphics")):
        return None
    return "%s may show the virtual terminals" % entry.name if _has_console(entry.sysfs) else None


def _has_console(sysfs: Sysfs) -> bool:
    """Return whether virtual terminals are on a framebuffer: drivers/video/fbdev/core/fbcon.c."""
    for name in sysfs.names("class/vtconsole"):
        console = "class/vtconsole/" + name
        if "frame buffer" in (sysfs.read(console + "/name") or ""):
            bound = sysfs.read_locked([console + "/bind"])[0]
            if bound == "1":
                return True
    return False


def _use_of_virtio_port(entry: Entry) -> str | None:
    # Terminals of hvc have no device above them: hvc_init in drivers/tty/hvc/hvc_console.c.
    active = [name for name in _system_consoles(entry.sysfs) if name.startswith("hvc")]
    if not active:
        return None
    return "%s may be the system console %s" % (entry.name, active[0])
