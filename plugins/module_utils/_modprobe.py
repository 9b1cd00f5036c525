# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether others keep the modules away that a list needs at the next boot. Reads only.

systemd-modules-load and udev load by libkmod, which asks modprobe.d(5) and the kernel's command
line; a module's own dependencies are loaded whatever is blacklisted, but not against the kernel.
"""

from __future__ import annotations

from typing import Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._files import Files

_FOLDERS = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
_COMMAND_LINE = "/proc/cmdline"
_NEEDS = {
    "vfio_platform": ("vfio_platform_base", "vfio"),
    "vfio_amba": ("vfio_platform_base", "vfio"),
}


class Wanted(NamedTuple):
    """Modules to be loaded at the next boot, and parameters by "module.parameter"; values 0, 1."""

    modules: Sequence[str]
    parameters: Mapping[str, bool]


class _Line(NamedTuple):
    """A line of somebody's configuration: where it is, and its words."""

    place: str
    words: Sequence[str]


def obstacles(files: Files, wanted: Wanted, ours: str, *, is_running: bool) -> list[str]:
    """A sentence for each line of others that is against ``wanted``.

    ``ours`` is the path of our own file; the command line counts for a system that is running.
    """
    modules = {underscored(module) for module in wanted.modules}
    needed = modules.union(*(_NEEDS.get(module, ()) for module in modules))
    found = []
    for line in _lines(files, ours):
        found += _against(line, modules, needed, wanted.parameters)
    if is_running:
        for word in (files.read(_COMMAND_LINE) or "").split():
            found += _against_word(word, modules, needed, wanted.parameters)
    return found


def underscored(module: str) -> str:
    """The module's name as the kernel has it."""
    return module.replace("-", "_")


def _lines(files: Files, ours: str) -> Iterator[_Line]:
    for path in files.layered(_FOLDERS, ".conf", ours):
        yield from _parsed(path, files.read(path) or "")


def _parsed(path: str, content: str) -> Iterator[_Line]:
    waiting = ""
    for number, text in enumerate(content.splitlines(), 1):
        whole = waiting + text
        waiting = whole[:-1] + " " if whole.endswith("\\") else ""
        words = whole.split()
        if not waiting and len(words) > 1 and not words[0].startswith("#"):
            yield _Line("%s:%d" % (path, number), words)


def _against(
    line: _Line, modules: set[str], needed: set[str], parameters: Mapping[str, bool]
) -> list[str]:
    command, name, *rest = line.words
    module = underscored(name)
    if command == "blacklist" and module in modules:
        return [_never_loaded(line.place, "'%s'" % " ".join(line.words), module)]
    if command == "install" and module in needed and not _loads(rest):
        return [_never_loaded(line.place, "'%s'" % " ".join(line.words), module)]
    if command == "options":
        return [
            sentence
            for word in rest
            for sentence in _against_value(line.place, "%s.%s" % (module, word), parameters)
        ]
    return []


def _loads(command: Sequence[str]) -> bool:
    """Whether a command that stands for the loading of a module goes on to load it."""
    return any(word in ("-i", "--ignore-install") for word in command)


def _against_word(
    word: str, modules: set[str], needed: set[str], parameters: Mapping[str, bool]
) -> list[str]:
    key, _equals, value = word.partition("=")
    kept = {"module_blacklist": needed, "modprobe.blacklist": modules}.get(key)
    if kept is None:
        return _against_value(_COMMAND_LINE, word, parameters)
    named = [underscored(module) for module in value.split(",")]
    return [_never_loaded(_COMMAND_LINE, word, module) for module in named if module in kept]


def _against_value(place: str, word: str, parameters: Mapping[str, bool]) -> list[str]:
    key, _equals, value = word.partition("=")
    key = underscored(key)
    if key not in parameters or (value[:1] in ("1", "y", "Y")) == parameters[key]:
        return []
    return [
        "%s sets %s, and this run is to set it to %d at each boot. Remove it there, or leave the "
        "setting out here" % (place, word, parameters[key])
    ]


def _never_loaded(place: str, words: str, module: str) -> str:
    return (
        "%s says %s, so that %s, which this list needs, is not loaded at boot. Remove it there, or "
        "say persistent: false" % (place, words, module)
    )
