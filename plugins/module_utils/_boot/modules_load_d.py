# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the next boot loads a module, and what decides it. Reads only."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .. import _text
from .._system import systemd_conf
from .._system.files import Files
from .._system.kernel_parameters import KERNEL_COMMAND_LINE, parameters_of_any_reader
from .._system.kmod import canonical_name
from .modprobe_d import Line

_DIRECTORIES = (
    "/etc/modules-load.d",
    "/run/modules-load.d",
    "/usr/local/lib/modules-load.d",
    "/usr/lib/modules-load.d",
    "/lib/modules-load.d",
)
_ON_COMMAND_LINE = ("modules_load", "rd.modules_load")
_LOAD = "load"


class ModuleLoadForecast(NamedTuple):
    """Whether a module will be loaded, and why, as a clause; if it ``is_known``."""

    is_loaded: bool
    reason: str
    is_known: bool = True


def lines(files: Files, ours: str) -> list[Line]:
    """Return foreign lines that load modules: modules-load.d(5), and kernel parameters."""
    load_lines = []
    for path in systemd_conf.drop_in_files(files, _DIRECTORIES, ".conf", ours):
        for number, text in enumerate(_text.lines(files.read_drop_in(path) or ""), 1):
            name = _text.stripped(text)
            if name and name[0] not in "#;":
                location = "%s:%d" % (path, number)
                load_lines.append(Line(location, name, _LOAD, canonical_name(name)))
    for word in parameters_of_any_reader(files.read(KERNEL_COMMAND_LINE) or ""):
        key, _equals, value = word.partition("=")
        if key in _ON_COMMAND_LINE:
            load_lines += [
                Line(KERNEL_COMMAND_LINE, word, _LOAD, canonical_name(name))
                for name in value.split(",")
            ]
    return load_lines


def forecast(
    module: str, known: Sequence[Line], needed_by: Sequence[str], *, is_claiming: bool
) -> ModuleLoadForecast:
    """Return what foreign lines, udev and other modules make of a module.

    udev loads it where it ``is_claiming`` a device; modules that it is ``needed_by`` bring it
    along.
    """
    of_module = [line for line in known if line.module == module]
    for line in of_module:
        if line.blocks_autoload and (line.blocks_all_loading or not needed_by):
            return ModuleLoadForecast(
                False, "%s, so the driver's module %s is not loaded" % (line.label, module)
            )
    for line in of_module:
        if line.runs_command:
            reason = "%s, so whether the driver's module %s is loaded depends on that command"
            return ModuleLoadForecast(True, reason % (line.label, module), is_known=False)
    if is_claiming:
        return ModuleLoadForecast(True, "udev loads the driver's module %s" % module)
    for line in of_module:
        if line.command == _LOAD:
            return ModuleLoadForecast(
                True, "%s loads the driver's module %s" % (line.location, module)
            )
    if needed_by:
        return ModuleLoadForecast(
            True, "the module %s depends on the driver's module %s" % (needed_by[0], module)
        )
    reason = "nothing loads the driver's module %s: it does not match the device, and " % module
    return ModuleLoadForecast(
        False, reason + "neither modules-load.d nor the kernel command line names it"
    )
