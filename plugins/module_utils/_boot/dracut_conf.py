# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Foreign configuration of dracut that keeps files and modules of a list out of images. Reads only.

dracut sources its files in one bash: /etc/dracut.conf, then the drop-in files in the order of
``sort -V`` (dropindirs_sort in dracut.sh). dracut-install reads the resulting ``add_drivers`` from
left to right and ends at the first module that the kernel does not have, so that none after it is
installed; dracut goes on (install_modules in src/install/dracut-install.c; run with versions 051,
059, 106 and 112).

What stands in a condition, a loop or a function is not followed, nor what bash would expand.
"""

from __future__ import annotations

import functools
import re
from typing import Iterator, NamedTuple, Sequence

from .. import _text
from .._system.file_reads import WHAT_EXISTS
from .._system.files import Files
from .._system.kmod import canonical_name, module_of
from . import initramfs_blacklist
from .last_applied import MODPROBE
from .modprobe_d import ALIAS
from .modprobe_d import lines as modprobe_lines
from .version_order import Key, version_key

_CONFIGURATION = "/etc/dracut.conf"
_DIRECTORIES = (
    "/etc/dracut.conf.d",
    "/usr/lib/dracut/dracut.conf.d",
    "/run/initramfs/dracut.conf.d",
)
_PROGRAM = "/usr/bin/dracut"
_VERSION = "/usr/lib/dracut/dracut-version.sh"
# The last version known to take a module that is built in for a missing one.
_WITHOUT_BUILT_IN = 51
_FILES, _DRIVERS = "install_items", "add_drivers"
_UDEV = frozenset({"udev-rules", "systemd-udevd"})
_MODULES = ("dracutmodules", "add_dracutmodules", "force_add_dracutmodules")
# Values for which dracut takes all of its modules.
_ALL_MODULES = ("", "auto", "all")
_MODULE_DIRECTORY = "/usr/lib/dracut/modules.d"
_DEPENDS = re.compile(r"^depends\(\)\s*\{(.*?)^\}", re.MULTILINE | re.DOTALL)

_REMEDY = "or set `initramfs: never`"
# What is read of a script: comments, assignments, other quoted texts, and what opens or closes a
# block, where a command can begin.
_START = r"(?:^|(?<=[\s;&|(]))"
_VALUE = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|\\(?:.|\Z)|[^\s;&|()"'\\])*"""
_TOKEN = re.compile(
    r"""(?P<comment>%(start)s\#[^\n]*)
    |%(start)s(?P<name>[A-Za-z_]\w*)(?P<operator>\+?=)
     (?P<value>%(value)s)
    |%(start)s(?P<opened>(?:if|for|while|until|case|select)(?=\s)|\{(?=\s))
    |%(start)s(?P<closed>(?:fi|done|esac|\})(?=[\s;&|)]|$))
    |"(?:[^"\\]|\\.)*"|'[^']*'|\\.|\n"""
    % {"start": _START, "value": _VALUE},
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
# What follows an assignment that is a command of its own, and not one for a command alone.
_END = re.compile(
    r"(?:(?:[ \t]|\\\n)+\w+\+?=%s)*(?:[ \t]|\\\n)*(?:[\n;&|)]|\Z|(?<=[ \t])\#)" % _VALUE, re.DOTALL
)
_EXPANDED = re.compile(r"\$\([^()]*\)|\$\{[^}]*\}|`[^`]*`|\$\w+")
# What dracut-install cuts off.
_ENDINGS = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")


class Word(NamedTuple):
    """A word of the final value of a variable, and the file and line that have it."""

    text: str
    location: str


class _Character(NamedTuple):
    text: str
    location: str


class _Assignment(NamedTuple):
    name: str
    is_appended: bool
    location: str
    value: Sequence[_Character]


class _Before(NamedTuple):
    """What is known of a line up to the end of its last assignment, or to its own beginning.

    ``is_only`` is whether it has assignments alone, None before the first one; ``is_command`` is
    whether the last one counts whatever else is on the line.
    """

    end: int
    is_only: bool | None = None
    is_command: bool = False


def problems(
    files: Files,
    path: str,
    contents: tuple[Sequence[str], Sequence[str]],
    kernels: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Return why images of ``kernels`` would lack ``contents``, which are files and modules.

    Beside these sentences, others on what users may want to know. ``path`` is our own file, which
    may not be written yet.
    """
    required, modules = contents
    configuration = _Configuration(files, path, required, modules)
    warnings = [*configuration.without_udev(), *configuration.without_named_udev()]
    warnings += initramfs_blacklist.by_dracut(files, modules)
    conflicts = configuration.replaced(_FILES, required)
    if modules:
        conflicts += configuration.replaced(_DRIVERS, modules)
        conflicts += configuration.without_kernel()
        for kernel in kernels if configuration.concerns_drivers else ():
            images = _Image(files, configuration, kernel)
            conflicts += images.stopped(modules)
            conflicts += images.omitted(modules)
            warnings += images.harmed()
    return list(dict.fromkeys(conflicts)), warnings


class _Configuration:
    """The variables that dracut has when all files were read."""

    def __init__(
        self, files: Files, path: str, required: Sequence[str], modules: Sequence[str]
    ) -> None:
        self._files = files
        self._assignments: list[_Assignment] = []
        before, after = drop_ins(files, path)
        ours = [
            _Assignment(name, True, "", [_Character(text, "") for text in " %s " % " ".join(words)])
            for name, words in ((_FILES, required), (_DRIVERS, modules))
        ]
        for other in (_CONFIGURATION, *before):
            self._assignments += parsed(other, files.read_drop_in(other) or "")
        self._assignments += ours
        for other in after:
            self._assignments += parsed(other, files.read_drop_in(other) or "")

    def words(self, name: str) -> list[Word]:
        """Return the final value of a variable, cut at blanks."""
        characters = self._value(name)
        text = "".join(character.text for character in characters)
        return [
            Word(match.group(), characters[match.start()].location)
            for match in re.finditer(r"\S+", text)
        ]

    def _value(self, name: str) -> list[_Character]:
        characters: list[_Character] = []
        for assignment in self._assignments:
            if assignment.name == name:
                kept = characters if assignment.is_appended else []
                characters = [*kept, *assignment.value]
        return characters

    @property
    def concerns_drivers(self) -> bool:
        """Whether others add or omit drivers, so that the modules of kernels are to be read."""
        return bool(self.omitted_patterns) or any(word.location for word in self.words(_DRIVERS))

    def replaced(self, name: str, required: Sequence[str]) -> list[str]:
        """Return which later file drops what ours adds to the variable."""
        present = {word.text for word in self.words(name)}
        locations = [
            assignment.location
            for assignment in self._assignments
            if assignment.name == name and not assignment.is_appended
        ]
        lost = [text for text in required if text not in present]
        if not lost:
            return []
        return [
            "%s replaces %s of dracut, so images lack %s, which this list requires. Use %s+= "
            "there, %s" % (locations[-1], name, ", ".join(lost), name, _REMEDY)
        ]

    def without_kernel(self) -> list[str]:
        return [
            "%s sets no_kernel=yes, so images of dracut have no modules, which this list requires. "
            "Remove that setting, %s" % (word.location, _REMEDY)
            for word in self.words("no_kernel")[-1:]
            if word.text == "yes"
        ]

    def without_udev(self) -> list[str]:
        return [
            "%s omits %s from images of dracut, so the udev rules do not run in the initramfs. The "
            "native drivers that it loads keep their devices until the root file system is mounted"
            % (word.location, word.text)
            for word in self.words("omit_dracutmodules")
            if word.text in _UDEV
        ]

    def without_named_udev(self) -> list[str]:
        """Return which file names the modules of dracut, if udev is none of them.

        Modules that these depend on count: check_module in dracut-init.sh.
        """
        named = self._value(_MODULES[0])
        if "".join(character.text for character in named) in _ALL_MODULES:
            return []
        waiting = [word.text for name in _MODULES for word in self.words(name)]
        known: set[str] = set()
        while waiting:
            module = waiting.pop()
            if module in _UDEV:
                return []
            if module not in known:
                known.add(module)
                waiting += self._dependencies.get(module, ())
        return [
            "%s sets dracutmodules, but neither these modules of dracut nor those that they depend "
            "on are udev's, so the udev rules do not run in the initramfs. The native drivers that "
            "it loads keep their devices until the root file system is mounted" % named[0].location
        ]

    @functools.cached_property
    def _dependencies(self) -> dict[str, list[str]]:
        """What each module of dracut names in its function for that, known or not."""
        dependencies = {}
        for directory in self._files.names(_MODULE_DIRECTORY):
            path = "%s/%s/module-setup.sh" % (_MODULE_DIRECTORY, directory)
            body = _DEPENDS.search(self._files.read_drop_in(path) or "")
            dependencies[directory[2:]] = re.findall(r"[\w-]+", body[1]) if body else []
        return dependencies

    @functools.cached_property
    def omitted_patterns(self) -> list[tuple[re.Pattern[str], Word]]:
        """The patterns of omit_drivers, but for names that are added."""
        words = self.words("omit_drivers")
        if not words:
            return []
        program = self._files.read_drop_in(_PROGRAM) or "omit_drivers//-/_ ^$d$|"
        # Of the whole text, old versions replace the first one alone.
        dashes = -1 if "omit_drivers//-/_" in program else 1
        names = " ".join(word.text for word in words).replace("-", "_", dashes).split(" ")
        added = {
            word.text
            for name in ("drivers", _DRIVERS, "force_drivers")
            for word in self.words(name)
        }
        template = "^%s$" if "^$d$|" in program else "%s"
        patterns = []
        for name, word in zip(names, words):
            try:
                pattern = re.compile(template % name)
            except re.error:
                continue
            if name not in added:
                patterns.append((pattern, word))
        return patterns

    @functools.cached_property
    def knows_built_in(self) -> bool:
        """Whether dracut-install goes on after a module that is built in."""
        match = re.search(r"DRACUT_VERSION=\D?0*(\d+)", self._files.read_drop_in(_VERSION) or "")
        return match is None or int(match.group(1)) > _WITHOUT_BUILT_IN


class _Image:
    """What would be in the image of a kernel."""

    def __init__(self, files: Files, configuration: _Configuration, kernel: str) -> None:
        self._files = files
        self._configuration = configuration
        self._kernel = kernel
        self._directory = "/lib/modules/%s/" % kernel

    def stopped(self, modules: Sequence[str]) -> list[str]:
        """Return the first driver that the kernel does not have, if some of ours come after it."""
        missing, later = self._first_missing
        lost = [module for module in modules if module in later & set(self._needs)]
        if missing is None or not missing.location or not lost:
            return []
        return [
            "%s adds the driver %s, which kernel %s does not have, so dracut omits all drivers "
            "after it from its image, such as %s, which this list requires. Remove it there, %s"
            % (missing.location, missing.text, self._kernel, ", ".join(lost), _REMEDY)
        ]

    def harmed(self) -> list[str]:
        """Return what others add after a module of ours that this kernel does not have."""
        missing, _later = self._first_missing
        words = self._configuration.words(_DRIVERS)
        if missing is None or missing.location:
            return []
        return [
            "%s adds the driver %s, but dracut omits it from the image of kernel %s, which does "
            "not have the module %s of this list. If that kernel needs the driver to boot, install "
            "the module for it, %s"
            % (word.location, word.text, self._kernel, missing.text, _REMEDY)
            for word in words[words.index(missing) :]
            if word.location
        ]

    @functools.cached_property
    def _first_missing(self) -> tuple[Word | None, set[str]]:
        """The first driver that the kernel does not have, and what is ours after it."""
        words = self._configuration.words(_DRIVERS)
        for number, word in enumerate(words):
            if not self._has(word.text):
                return word, {other.text for other in words[number:] if not other.location}
        return None, set()

    def omitted(self, modules: Sequence[str]) -> list[str]:
        """Return which patterns of omit_drivers mean modules of ours, or what they need."""
        needed = {
            name: module
            for module in modules
            if module in self._needs
            for name in (*self._needs[module], module)
        }
        return [
            "%s omits %s from images of dracut (omit_drivers has '%s'), which %s of this list "
            "requires. Remove it there, %s"
            % (word.location, name, word.text, needed[name], _REMEDY)
            for pattern, word in self._configuration.omitted_patterns
            for name in sorted(filter(pattern.search, needed))
        ]

    @functools.cached_property
    def _needs(self) -> dict[str, list[str]]:
        """The modules that the kernel has as files, and those that each of them needs."""
        content = self._files.read_drop_in(self._directory + "modules.dep") or ""
        lines = (line.partition(":") for line in _text.lines(content))
        return {
            module_of(path): [module_of(other) for other in _text.words(needs)]
            for path, _c, needs in lines
        }

    @functools.cached_property
    def _built_in(self) -> set[str]:
        content = self._files.read_drop_in(self._directory + "modules.builtin") or ""
        return {module_of(path) for path in _text.lines(content)}

    def _has(self, word: str) -> bool:
        """Return whether dracut-install finds a module of that name; True if that is not known."""
        if word[0] == "=" or "$" in word:
            return True
        if word[0] == "/":
            return self._files.changed_at(word) is not None
        name = canonical_name(word)
        for ending in _ENDINGS:
            name = name[: -len(ending)] if name.endswith(ending) else name
        if name in self._built_in:
            return self._configuration.knows_built_in
        return name in self._needs or any(_text.is_like(name, alias) for alias in self._aliases)

    @functools.cached_property
    def _aliases(self) -> list[str]:
        """The other names of modules, by the kernel and by modprobe.d."""
        content = self._files.read_drop_in(self._directory + "modules.alias") or ""
        fields = map(_text.words, _text.lines(content))
        of_modules = [
            canonical_name(words[1]) for words in fields if words[:1] == [ALIAS] and len(words) > 2
        ]
        configured = modprobe_lines(self._files, MODPROBE, is_running=False)
        return of_modules + [line.module for line in configured if line.command == ALIAS]


def drop_ins(files: Files, ours: str) -> tuple[list[str], list[str]]:
    """Return the drop-in files of others that dracut reads before ours and after it.

    Of names that are the same for ``sort -V``, as 1.conf and 01.conf, only the first one is read.
    """
    names: dict[Key, str] = {}
    paths = files.drop_in_files(_DIRECTORIES, ".conf", ours, WHAT_EXISTS)
    directories = [path.rpartition("/")[0] for path in paths]
    for _directory, path in sorted(zip(map(_DIRECTORIES.index, directories), paths)):
        names.setdefault(version_key(path.rpartition("/")[2]), path)
    our_key = version_key(ours.rpartition("/")[2])
    keys = sorted(names)
    return (
        [names[key] for key in keys if key < our_key],
        [names[key] for key in keys if key > our_key],
    )


def parsed(path: str, content: str) -> list[_Assignment]:
    """Return what a file assigns, whatever happens; not what it may assign."""
    assignments = []
    depth = line = counted = 0
    before = _Before(0)
    for match in _TOKEN.finditer(content):
        line += content.count("\n", counted, match.start())
        counted = match.start()
        before = _Before(match.end()) if match.group() == "\n" else before
        depth += bool(match.group("opened")) - bool(match.group("closed"))
        name = match.group("name")
        if not name:
            continue
        before = _after(before, content, match)
        if depth <= 0 and before.is_command:
            value = list(_unquoted(match.group("value"), path, line + 1))
            location = "%s:%d" % (path, line + 1)
            assignments.append(_Assignment(name, match.group("operator") == "+=", location, value))
    return assignments


def _after(before: _Before, content: str, match: re.Match[str]) -> _Before:
    """Return what is known after an assignment, which is the match."""
    gap = re.sub(r"\\.", "_", content[before.end : match.start()].replace("\\\n", ""))
    is_first = before.is_only is None
    is_only = before.is_only is not False and not gap.strip()
    *separated, rest = re.split("[;&|(]", gap)
    if not is_first and not separated:
        return _Before(match.end(), is_only, is_only and before.is_command)
    command = rest.split()
    if re.search(r"[&|(]\s*\Z", gap) or not {*command} <= {"export"}:
        return _Before(match.end(), is_only, False)
    is_command = bool(command) or _END.match(content, match.end()) is not None
    return _Before(match.end(), is_only, is_command)


def _unquoted(value: str, path: str, line: int) -> Iterator[_Character]:
    r"""Yield what bash makes of a word, without expansions, which become "$"."""
    quote = ""
    position = 0
    value = _EXPANDED.sub(lambda match: "$" + "\n" * match.group().count("\n"), value)
    while position < len(value):
        text, position = _next(value, position, quote)
        if text in ("'", '"') and quote in ("", text):
            quote = "" if quote else text
        else:
            shown = _without_escape(text, quote)
            for character in shown:
                yield _Character(character, "%s:%d" % (path, line))
        line += text.count("\n")


def _next(value: str, position: int, quote: str) -> tuple[str, int]:
    """Return the next character, with the one that it escapes, and where the rest begins."""
    length = 2 if value[position] == "\\" and quote != "'" else 1
    return value[position : position + length], position + length


def _without_escape(text: str, quote: str) -> str:
    if len(text) < 2:
        return text
    if text[1] == "\n":
        return ""
    return text if quote and text[1] not in '$`"\\' else text[1]
