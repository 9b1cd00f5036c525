# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The initramfs tools, one class each, and what an image needs for a policy list. Reads only.

docs/boot.md explains why these modules are needed.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Iterable, Iterator, NamedTuple, Sequence

from .. import _text
from .._system.files import Files
from .._system.kmod import canonical_name, module_of
from . import foreign_initramfs

# vfio has it as a softdep, which counts when vfio is loaded and never again.
_WITH_VFIO = "vfio_iommu_type1"
_MODULES = "/lib/modules/"
_DEPENDENCIES = "/modules.dep"

UNIFIED = ".efi"
_UNIFIED = ("/boot/EFI/Linux", "/boot/efi/EFI/Linux", "/efi/EFI/Linux")

# There from a change of the boot files on until the images were rebuilt and checked.
OUTDATED = "/var/lib/armfleet-vfio/initramfs-outdated"
_OUTDATED = "The initramfs of this host must be rebuilt for boot files with the checksum %s.\n"

NO_TOOL = (
    "`initramfs` is always, but this host has neither initramfs-tools nor dracut. If it boots "
    "without an initramfs, set `initramfs: auto` or `initramfs: never`; otherwise set "
    "`initramfs: never` and add the files to its initramfs manually"
)
NOT_FOUND = (
    "%s ended without an error, but no image is in its default location, so the images were not "
    "checked"
)


class ImageContents(NamedTuple):
    """Files and modules that an image contains, or has to."""

    files: Sequence[str]
    modules: Sequence[str]


class ForeignProblems(NamedTuple):
    """Why images would lack something, and what else to know of it; one sentence each."""

    conflicts: Sequence[str] = ()
    warnings: Sequence[str] = ()


class InitramfsTool:
    """A program that builds the initramfs images of a host, and the files of that host."""

    name: str
    # The tool is installed if all of these are executable.
    programs: Sequence[str]
    # The file that tells the tool what to include.
    path: str
    # The command that lists the contents of an image, whose path follows.
    lister: Sequence[str]
    # Whether that command takes a unified kernel image (UKI) as well.
    lists_unified_images = False
    # Where it puts the image of a %(kernel)s by default; %(token)s is that of kernel-install(8).
    images: Sequence[str]
    # Whether an image contains our boot files without being configured to.
    includes_boot_files: bool
    # Whether the command creates images that do not exist; if not, the errors that say so.
    creates_images = True
    image_required = ""
    nothing_rebuilt = ""

    def __init__(self, files: Files) -> None:
        self._files = files

    @property
    def is_installed(self) -> bool:
        return all(map(self._files.is_executable, self.programs))

    @property
    def can_rebuild(self) -> bool:
        """Whether there is an image to rebuild, or the tool creates one."""
        return True

    @functools.cached_property
    def command(self) -> list[str]:
        """The command that rebuilds the images of all kernels.

        Which of them boots next is the boot loader's choice.
        """
        raise NotImplementedError

    @property
    def kernels(self) -> list[str]:
        """The kernels whose images ``command`` rebuilds; by default those that have modules."""
        lists = ("/lib/modules/%s/modules.dep", "/lib/modules/%s/modules.builtin")
        return [
            name
            for name in self._files.names("/lib/modules")
            if any(self._files.version(path % name) for path in lists)
        ]

    @classmethod
    def content(cls, mark: str, contents: ImageContents) -> str | None:
        """Return the content of ``path`` by which images get ``contents``; None for no file."""
        raise NotImplementedError

    @classmethod
    def configured_modules(cls, content: str) -> list[str]:
        """Return the modules that :meth:`content` was given."""
        raise NotImplementedError

    def foreign_problems(
        self,
        contents: ImageContents,  # noqa: ARG002 - of a tool that others cannot keep it from
    ) -> ForeignProblems:
        """Return what of others' configuration keeps ``contents`` out of images."""
        return ForeignProblems()

    def required_contents(self, boot_files: Sequence[str]) -> ImageContents:
        """Return what an image has to contain; ``boot_files`` are read early in the boot."""
        configuration = self._files.read(self.path)
        is_included = self.includes_boot_files or bool(configuration)
        return ImageContents(
            [path for path in boot_files if is_included and self._files.read(path) is not None],
            self.configured_modules(configuration or ""),
        )


class InitramfsTools(InitramfsTool):
    """Debian's initramfs-tools, configured by a hook script."""

    name = "initramfs-tools"
    # dracut can come with an update-initramfs of its own.
    programs = ("/usr/sbin/update-initramfs", "/usr/sbin/mkinitramfs")
    path = "/etc/initramfs-tools/hooks/armfleet-vfio"
    lister = ("/usr/bin/lsinitramfs",)
    images = ("/boot/initrd.img-%(kernel)s",)
    # It copies all of /etc/udev/rules.d and /etc/modprobe.d.
    includes_boot_files = True
    creates_images = False
    image_required = (
        "`initramfs` is always, but there is no /boot/initrd.img-* for update-initramfs to "
        "update. If this host boots without an initramfs, set `initramfs: auto` or `initramfs: "
        "never`; otherwise mount /boot, or create the image with 'update-initramfs -c -k VERSION'"
    )
    nothing_rebuilt = "No kernel in /boot has an image /boot/initrd.img-*, so nothing was rebuilt"

    _HOOK = """\
#!/bin/sh
%s
case "$1" in prereqs) exit 0 ;; esac
. /usr/share/initramfs-tools/hook-functions
manual_add_modules %s
"""

    @property
    def can_rebuild(self) -> bool:
        return any(name.startswith("initrd.img-") for name in self._files.names("/boot"))

    @functools.cached_property
    def command(self) -> list[str]:
        release = os.uname().release
        image, kernel = "/boot/initrd.img-" + release, "/boot/vmlinuz-" + release
        # "all" are the kernels in /boot, which one that came over the network is not.
        is_absent = self._files.changed_at(image) and not self._files.changed_at(kernel)
        return ["/usr/sbin/update-initramfs", "-u", "-k", release if is_absent else "all"]

    @property
    def kernels(self) -> list[str]:
        if self.command[-1] != "all":
            return [self.command[-1]]
        names = [name.partition("-") for name in self._files.names("/boot")]
        return sorted({kernel for kind, _dash, kernel in names if kind in ("vmlinuz", "vmlinux")})

    def foreign_problems(self, contents: ImageContents) -> ForeignProblems:
        # A host without initramfs-tools need not load it.
        from . import initramfs_blacklist  # noqa: PLC0415

        return ForeignProblems(
            warnings=initramfs_blacklist.by_initramfs_tools(self._files, contents.modules)
        )

    @classmethod
    def content(cls, mark: str, contents: ImageContents) -> str | None:
        return cls._HOOK % (mark, " ".join(contents.modules)) if contents.modules else None

    @classmethod
    def configured_modules(cls, content: str) -> list[str]:
        return _arguments(content, "manual_add_modules ")


class Dracut(InitramfsTool):
    """dracut, configured by a drop-in file."""

    name = "dracut"
    programs = ("/usr/bin/dracut",)
    path = "/etc/dracut.conf.d/armfleet-vfio.conf"
    lister = ("/usr/bin/lsinitrd",)
    lists_unified_images = True
    images = (
        "/boot/initramfs-%(kernel)s.img",
        "/lib/modules/%(kernel)s/initrd",
        "/boot/%(token)s/%(kernel)s/initrd",
        "/boot/efi/%(token)s/%(kernel)s/initrd",
        "/efi/%(token)s/%(kernel)s/initrd",
    )
    includes_boot_files = False

    @functools.cached_property
    def command(self) -> list[str]:
        return ["/usr/bin/dracut", "--force", "--regenerate-all"]

    def foreign_problems(self, contents: ImageContents) -> ForeignProblems:
        # A host without dracut need not load it.
        from . import dracut_conf  # noqa: PLC0415

        return ForeignProblems(
            *dracut_conf.problems(self._files, self.path, contents, self.kernels)
        )

    @classmethod
    def content(cls, mark: str, contents: ImageContents) -> str | None:
        if not contents.files:
            return None
        lines = [mark, 'install_items+=" %s "' % " ".join(contents.files)]
        if contents.modules:
            lines.append('add_drivers+=" %s "' % " ".join(contents.modules))
        return "\n".join(lines) + "\n"

    @classmethod
    def configured_modules(cls, content: str) -> list[str]:
        return _arguments(content, "add_drivers+=")


# Of several that are installed, the first is used.
TOOLS: Sequence[type[InitramfsTool]] = (InitramfsTools, Dracut)
PATHS = tuple(tool.path for tool in TOOLS)


def detect(files: Files) -> InitramfsTool | None:
    """Return the tool that builds the initramfs of this host, or None if there is none."""
    if foreign_initramfs.is_image_based(files):
        return None
    return next((tool for tool in (kind(files) for kind in TOOLS) if tool.is_installed), None)


def no_tool(files: Files, contents: ImageContents | None = None) -> str:
    """Return why no image can be rebuilt on a host without a tool of ours, and what to do."""
    of_list = contents or ImageContents(("RULES",), ("MODULES",))
    manually = foreign_initramfs.remedy(files, of_list.files, of_list.modules)
    return "%s. Then set `initramfs: never`" % manually if manually else NO_TOOL


def image_paths(files: Files, kernel: str) -> list[str]:
    """Return where an image of ``kernel`` can be; each tool can be set to another's path."""
    tokens = _entry_tokens(files)
    images = [
        image % {"kernel": kernel, "token": token}
        for tool in TOOLS
        for image in tool.images
        for token in tokens
    ]
    return [*dict.fromkeys(images), *_unified_images(files, kernel)]


def _entry_tokens(files: Files) -> list[str]:
    """Return what the directories of kernels on a boot partition can be called: kernel-install(8).

    dracut uses the machine ID, or "Default".
    """
    tokens = ["Default"]
    for path in ("/etc/kernel/entry-token", "/etc/machine-id"):
        token = _text.stripped(files.read_drop_in(path) or "")
        if token and "/" not in token:
            tokens.append(token)
    return tokens


def _unified_images(files: Files, kernel: str) -> list[str]:
    """Return the unified kernel images of a kernel, which contain its initramfs.

    90-uki-copy.install calls them TOKEN-KERNEL.efi, with a counter of tries if there is one, and
    dracut linux-KERNEL-MACHINE.efi.
    """
    pattern = re.compile(r"(?:.*-)?%s(?:[-+].*)?\.efi" % re.escape(kernel), re.IGNORECASE)
    return [
        "%s/%s" % (directory, name)
        for directory in _UNIFIED
        for name in files.names(directory)
        if pattern.fullmatch(name)
    ]


def is_of_kernel_install(path: str) -> bool:
    """Return whether kernel-install(8) puts an image there, whichever tool builds it."""
    return path.endswith((UNIFIED, "/initrd")) and not path.startswith(_MODULES)


def outdated(contents: Iterable[str | None]) -> str:
    """Return the content of OUTDATED for boot files with these contents."""
    import hashlib  # noqa: PLC0415 - only a run that changes something needs it

    joined = "\0".join(content for content in contents if content is not None)
    return _OUTDATED % hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()


def _arguments(content: str, beginning: str) -> list[str]:
    """Return the words that follow ``beginning`` in the lines that start with it."""
    lines = [line for line in _text.lines(content) if line.startswith(beginning)]
    return [name for line in lines for name in _text.words(line[len(beginning) :].strip('"'))]


def modules(
    files: Files, vfio: Iterable[str], first_compatibles: Iterable[str], pinned: Iterable[str]
) -> list[str]:
    """Return the modules that the rules load, of those that this host has as files.

    ``vfio`` are the VFIO drivers that the list needs. ``first_compatibles`` are those of the
    devices given to VFIO, by which vfio_platform looks for a reset module
    (vfio_platform_get_reset in drivers/vfio/platform/vfio_platform_common.c).
    """
    needed = {canonical_name(driver) for driver in vfio}
    if needed:
        needed.add(_WITH_VFIO)
    needed.update(map(canonical_name, pinned))
    if not needed:
        return []
    resets = {canonical_name("vfio-reset:" + compatible) for compatible in first_compatibles}
    # dracut adds none of them where one is missing.
    directories = _module_directories(files)
    available = {
        module
        for directory in directories
        for module in module_files(files, directory + _DEPENDENCIES)
    }
    available &= needed
    available.update(
        module
        for directory in directories
        for alias, module in _reset_modules(files, directory)
        if alias in resets
    )
    return sorted(available)


def _module_directories(files: Files) -> list[str]:
    """Return that of the running kernel, or those of all kernels if it has none, as in an image."""
    running = _MODULES + os.uname().release
    if files.names(running):
        return [running]
    return [_MODULES + name for name in files.names(_MODULES)]


def module_files(files: Files, path: str) -> Iterator[str]:
    """Yield the modules of a file such as modules.dep or modules.builtin."""
    for line in _text.lines(files.read_drop_in(path) or ""):
        yield module_of(line.partition(":")[0])


def _reset_modules(files: Files, directory: str) -> Iterator[tuple[str, str]]:
    """Yield alias and module of VFIO's reset modules, of which there are few in a long file."""
    for line in _text.lines(files.read_drop_in(directory + "/modules.alias") or ""):
        if line.startswith(("alias vfio-reset:", "alias vfio_reset:")):
            fields = _text.words(line)
            if len(fields) == 3:
                yield canonical_name(fields[1]), canonical_name(fields[2])


def render(name: str | None, mark: str, contents: ImageContents) -> dict[str, str | None]:
    """Return the content of each of PATHS, by which images of tool ``name`` get ``contents``."""
    return {
        tool.path: tool.content(mark, contents) if tool.name == name else None for tool in TOOLS
    }


def is_stale(files: Files, paths: Iterable[str]) -> bool:
    """Return whether the running kernel's image is older than one of our files at ``paths``.

    It is after a run that wrote them and then failed to rebuild the image.
    """
    release = os.uname().release
    images = [files.changed_at(image) for image in image_paths(files, release)]
    built = max((moment for moment in images if moment is not None), default=None)
    written = [*map(files.changed_at, paths), files.own_changed_at(OUTDATED)]
    newest = max((moment for moment in written if moment is not None), default=None)
    # A clock that was wrong once must not have the image rebuilt at each run.
    return built is not None and newest is not None and built < newest and files.is_past(newest)
