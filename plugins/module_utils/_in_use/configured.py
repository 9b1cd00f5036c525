# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each boot uses by the host's configuration, whether or not it is in use now. Reads only."""

from __future__ import annotations

import os
import re
import string
from typing import Iterator, NamedTuple, Sequence

from .. import _text
from .._errors import PolicyError
from .._system import modprobe_conf
from .._system.files import Files
from .._system.kernel_parameters import (
    KERNEL_COMMAND_LINE,
    kernel_parameters,
    parameters_of_any_reader,
)
from .._system.sysfs import Sysfs
from .configured_flash import ConfiguredFlash, ConfiguredSource
from .kinds import CONSOLE, NETWORK
from .network_files import Interface, NetworkFiles

FSTAB, CRYPTTAB = "/etc/fstab", "/etc/crypttab"
_RESUME = "/etc/initramfs-tools/conf.d/resume"
_UNITS = "/etc/systemd/system"
_TREE = "firmware/devicetree/base"

_TAGS = {
    "UUID": "uuid",
    "LABEL": "label",
    "PARTUUID": "partuuid",
    "PARTLABEL": "partlabel",
    "ID": "id",
}
# Parameters of the kernel's command line whose values are block devices, and those of encrypted
# ones, which have UUIDs: kernel-parameters.txt, systemd-cryptsetup-generator(8).
_BLOCKS = ("root", "resume", "mount.usr")
# Attaches MTD devices to UBI; as a line of modprobe.d, "options ubi mtd=…". The kernel splits what
# follows the name of the module.
_UBI_PARAMETER = "ubi.mtd"
_UBI_OPTIONS = re.compile("[ \t]*options[ \t]+ubi[ \t]+(.*)")
_ENCRYPTED = tuple(prefix + key for prefix in ("", "rd.") for key in ("luks.uuid", "luks.name"))
# Further block devices that an option of fstab names.
_OPTIONS = ("device", "journal_path", "logdev", "rtdev")
# devt_from_devnum in block/early-lookup.c, which reads what no other form has.
_HEXADECIMAL = re.compile("[0-9A-Fa-f]{1,8}\\Z")
_MAJOR_MINOR = re.compile(r"\d+:\d+\Z")
# Of ASCII, what udev_replace_chars in systemd's src/shared/device-nodes.c leaves as it is.
_UNCHANGED = frozenset(string.ascii_letters + string.digits + "#+-.:=@_")
_LINKS_AT_MOST = 8
_MAC_PROPERTIES = ("mac-address", "local-mac-address", "address")


class NodeUse(NamedTuple):
    """What the device of a node of the device tree will be used for; ``kind`` is a hazard's."""

    kind: str
    subject: str
    sentence: str


class _Block(NamedTuple):
    """How a file calls a block device, and what it says of it as a clause.

    ``kind`` is the type of its file system; empty if the file does not tell it.
    """

    called: str
    use: str
    kind: str = ""


class Configured:
    """Each file is read once, when the first question comes."""

    def __init__(self, sysfs: Sysfs, files: Files) -> None:
        self._sysfs = sysfs
        self._files = files
        self._networks = NetworkFiles(files)
        self._listed: list[_Block] | None = None
        self._by_name: dict[str, str] | None = None
        self._flash: ConfiguredFlash | None = None
        self._consoles: dict[str, str] | None = None

    def blocks(self, names: Sequence[str]) -> str | None:
        """Return what block devices, by the kernel's names, will be used for, or None."""
        if self._by_name is None:
            self._by_name = {}
            for block in self._blocks():
                name = self._name_of(block.called)
                if name:
                    self._by_name.setdefault(name, block.use)
        uses = ["%s is %s" % (name, self._by_name[name]) for name in names if name in self._by_name]
        return ", ".join(uses) or None

    def flash(self, index: str, label: str) -> str | None:
        """Return what an MTD device, by its number and its name, will be used for, or None."""
        if self._flash is None:
            sources = [
                ConfiguredSource(block.called, self._node_of(block.called), block.use)
                for block in self._blocks()
            ]
            self._flash = ConfiguredFlash(self._sysfs, sources, list(self._attached_to_ubi()))
        return ", ".join(self._flash.uses_of(index, label)) or None

    def share(self, kind: str, tag: str | None) -> str | None:
        """Return what shared files of that type (9p, virtiofs) will be used for, or None.

        A ``tag`` that is not known can be any.
        """
        uses = [
            block.use
            for block in self._blocks()
            if (tag == block.called and block.kind in ("", kind))
            or (tag is None and block.kind == kind)
        ]
        return ", ".join(uses) or None

    def interface(self, path: str, name: str) -> str | None:
        """Return the file that configures the interface with this path and name, or None."""
        uevent = _text.lines(self._sysfs.read(path + "/uevent") or "")
        kinds = [line.partition("=")[2] for line in uevent if line.startswith("DEVTYPE=")]
        device = re.match(r"bus/\w+/devices/([^/]+)/", path)
        interface = Interface(
            name,
            [(self._sysfs.read(path + "/address") or "").lower()],
            kinds[0] if kinds else "ether",
            self._sysfs.link_name(path + "/device/driver"),
            "platform-" + device.group(1) if device else None,
        )
        return self._networks.file_of(interface)

    def terminal(self, name: str) -> str | None:
        """Return what a terminal will be used for, or None."""
        if self._consoles is None:
            self._consoles = dict(self._read_consoles())
        return self._consoles.get(name)

    def absent(self, name: str) -> str | None:
        """Return what a device that is not there is named for, by the name that it will have."""
        path = "platform-" + name
        for block in self._blocks():
            if re.search(r"/by-path/%s(?![\w.@:])" % re.escape(path), block.called):
                return "%s, which will be a disk below it, is %s" % (block.called, block.use)
        return None

    def nodes(self) -> dict[str, NodeUse]:
        """Return nodes of the device tree whose devices will be used, by their paths.

        Those are inspected that the tree itself names: the console and what has an alias.
        """
        uses: dict[str, NodeUse] = {}
        for name in self._sysfs.names(_TREE + "/aliases"):
            path = self._string("aliases/" + name)
            use = self._use_of_alias(name, path) if path.startswith("/") else None
            if use:
                uses[path] = use
        for key in ("stdout-path", "linux,stdout-path"):
            path = self._string("chosen/" + key).partition(":")[0]
            if path and not path.startswith("/"):
                path = self._string("aliases/" + path)
            if path:
                uses[path] = NodeUse(CONSOLE, path, "it is /chosen/%s of the device tree" % key)
        return uses

    def _use_of_alias(self, alias: str, path: str) -> NodeUse | None:
        number = re.match(r"serial(\d+)\Z", alias)
        if number:
            for name, use in self._read_consoles():
                # A terminal that is there has a device, by which it is known.
                is_it = name.rstrip("0123456789") + number.group(1) == name
                if is_it and not self._sysfs.exists("class/tty/" + name):
                    return NodeUse(CONSOLE, name, "it may be %s, which is %s" % (name, use))
        for key in _MAC_PROPERTIES:
            content = self._sysfs.read_bytes("%s%s/%s" % (_TREE, path, key)) or b""
            if len(content) == 6:
                address = ":".join("%02x" % byte for byte in content)
                # No file can mean it by its name, which is not known.
                file = self._networks.file_of(Interface("", [address], ""))
                if file:
                    return NodeUse(NETWORK, alias, "%s configures %s" % (file, address))
        return None

    def _string(self, path: str) -> str:
        return (self._sysfs.strings("%s/%s" % (_TREE, path)) or ("",))[0]

    def _text(self, path: str) -> str:
        """Return the content; nothing of what is no file, or is root's alone."""
        try:
            return self._files.read_drop_in(path) or ""
        except PolicyError:
            return ""

    def _blocks(self) -> list[_Block]:
        if self._listed is None:
            self._listed = list(self._read_blocks())
        return self._listed

    def _read_blocks(self) -> Iterator[_Block]:
        yield from self._of_tables()
        yield from self._of_command_line()
        yield from self._assigned(_RESUME, "RESUME=")
        for name in self._files.names(_UNITS):
            if name.endswith((".mount", ".swap")):
                yield from self._assigned("%s/%s" % (_UNITS, name), "What=")

    def _of_tables(self) -> Iterator[_Block]:
        for called, mount_point, kind, options in self._table(FSTAB):
            use = "in %s %s" % (FSTAB, "as swap" if kind == "swap" else "for " + mount_point)
            yield _Block(called, use, kind)
            for option in options.split(","):
                key, _equals, value = option.partition("=")
                if key in _OPTIONS:
                    yield _Block(value, use)
        for name, called, key, _options in self._table(CRYPTTAB):
            yield _Block(called, "in %s as %s" % (CRYPTTAB, name))
            yield _Block(key.partition(":")[2], "in %s for the key of %s" % (CRYPTTAB, name))

    def _of_command_line(self) -> Iterator[_Block]:
        for word in parameters_of_any_reader(self._text(KERNEL_COMMAND_LINE)):
            key, _equals, value = word.partition("=")
            use = "%s= of the kernel command line" % key
            if key in _BLOCKS:
                yield _Block(value, use)
            elif key in _ENCRYPTED:
                uuid = value.partition("=")[0]
                yield _Block("UUID=" + (uuid[5:] if uuid.startswith("luks-") else uuid), use)

    def _assigned(self, path: str, key: str) -> Iterator[_Block]:
        for line in _text.lines(self._text(path)):
            if line.startswith(key):
                yield _Block(_text.stripped(line[len(key) :]), "%s of %s" % (key, path))

    def _attached_to_ubi(self) -> Iterator[tuple[str, str]]:
        """Yield the values of the parameter of UBI, and where each is given, as a clause."""
        for path in modprobe_conf.paths(self._files, ""):
            for _number, line in modprobe_conf.lines(self._text(path)):
                given = _UBI_OPTIONS.match(line)
                for option in kernel_parameters(given[1]) if given else ():
                    key, _equals, value = option.partition("=")
                    if key == "mtd":
                        yield value, "attached to UBI by %s" % path
        for word in kernel_parameters(self._text(KERNEL_COMMAND_LINE)):
            key, _equals, value = word.partition("=")
            if key == _UBI_PARAMETER:
                yield value, "%s= of the kernel command line" % key

    def _table(self, path: str) -> Iterator[list[str]]:
        """Yield the first four fields of each line; empty where a line has less."""
        for line in _text.lines(self._text(path)):
            fields = _text.words(line)
            if len(fields) > 1 and not fields[0].startswith("#"):
                yield [_text.unescaped(field) for field in [*fields, "", ""][:4]]

    def _name_of(self, called: str) -> str | None:
        """Return the kernel's name of the block device named in a file, or None."""
        path = self._node_of(called)
        if _MAJOR_MINOR.match(path):
            return self._sysfs.link_name("dev/block/" + path)
        if not path.startswith("/dev/"):
            return None
        name = path[len("/dev/") :].replace("/", "!")
        if self._sysfs.exists("class/block/" + name):
            return name
        # Without udev, nodes such as those in /dev/mapper are no links.
        number = self._files.block_number(path)
        return self._sysfs.link_name("dev/block/" + number) if number else None

    def _node_of(self, called: str) -> str:
        """Return the node of a device named in a file, or its major:minor; else the name itself."""
        tag, equals, value = called.partition("=")
        if equals and tag in _TAGS:
            directory = "/dev/disk/by-" + _TAGS[tag]
            value = value.strip("\"'").partition("/PARTNROFF=")[0]
            called = "%s/%s" % (directory, _encoded(value))
            if tag.endswith("UUID") and self._files.link(called) is None:
                called = next(
                    (
                        "%s/%s" % (directory, name)
                        for name in self._files.names(directory)
                        if name.lower() == value.lower()
                    ),
                    called,
                )
        if _HEXADECIMAL.match(called):
            return _major_minor(int(called, 16))
        return self._target_of(called) if called.startswith("/dev/") else called

    def _target_of(self, path: str) -> str:
        for _link in range(_LINKS_AT_MOST):
            target = self._files.link(path)
            if target is None:
                break
            path = os.path.normpath(os.path.join(os.path.dirname(path), target))
        return path

    def _read_consoles(self) -> Iterator[tuple[str, str]]:
        for word in parameters_of_any_reader(self._text(KERNEL_COMMAND_LINE)):
            key, _equals, value = word.partition("=")
            if key == "console":
                yield value.partition(",")[0], "console= of the kernel command line"
        for directory in self._files.names(_UNITS):
            for name in self._files.names("%s/%s" % (_UNITS, directory)):
                terminal = re.match(r"serial-getty@(.+)\.service\Z", name)
                if terminal and directory.endswith(".wants"):
                    yield (
                        terminal.group(1),
                        "used for logins (%s/%s/%s)" % (_UNITS, directory, name),
                    )


def _major_minor(number: int) -> str:
    """Return the number of a device as new_decode_dev in include/linux/kdev_t.h decodes it."""
    return "%d:%d" % ((number & 0xFFF00) >> 8, (number & 0xFF) | ((number >> 12) & 0xFFF00))


def _encoded(value: str) -> str:
    """Return a label as udev has it in the name of a link."""
    return "".join(
        "\\x%02x" % ord(character)
        if character.isascii() and character not in _UNCHANGED
        else character
        for character in value
    )
