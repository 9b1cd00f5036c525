# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an initramfs needs so that a policy list holds in it too, and who builds it. Reads only.

Why it is these modules is said in docs/boot.md.
"""

from __future__ import annotations

import os
import time
from typing import Iterable, Iterator, NamedTuple, Sequence

from .. import _text
from .._system.files import Files
from .._system.kmod import canonical_name

INITRAMFS_TOOLS, DRACUT = "initramfs-tools", "dracut"

_HOOK = """\
#!/bin/sh
%s
case "$1" in prereqs) exit 0 ;; esac
. /usr/share/initramfs-tools/hook-functions
manual_add_modules %s
"""
# vfio has it as a softdep, which counts when vfio is loaded and never again.
_WITH_VFIO = "vfio_iommu_type1"
_MODULES = "/lib/modules/"
_DEPENDENCIES = "/modules.dep"
# Where initramfs-tools puts them, and dracut.
_IMAGES = ("/boot/initrd.img-%s", "/boot/initramfs-%s.img", "/lib/modules/%s/initrd")
_IMAGES_OF_MACHINE = ("/boot/%s/%s/initrd", "/boot/efi/%s/%s/initrd", "/efi/%s/%s/initrd")

# There from a change of the boot files on until the images were rebuilt and checked.
OUTDATED = "/var/lib/armfleet-vfio/initramfs-outdated"
_OUTDATED = "The initramfs of this host is to be rebuilt for boot files with the checksum %s.\n"

NO_MAKER = (
    "`initramfs` is always, but this host has neither initramfs-tools nor dracut to build one "
    "with. If it boots without one, set `initramfs: auto` or `initramfs: never`; otherwise set "
    "`initramfs: never` and bring the files into its initramfs by its own means"
)
NO_IMAGE = (
    "`initramfs` is always, but there is no /boot/initrd.img-* for update-initramfs to update. If "
    "this host boots without one, set `initramfs: auto` or `initramfs: never`; otherwise mount "
    "/boot, or create the image with 'update-initramfs -c -k VERSION'"
)
NONE_INSTALLED = "No kernel in /boot has an image /boot/initrd.img-*, so nothing was rebuilt"
NOT_FOUND = (
    "dracut ended without an error, and no image is where it puts them by default, so it was not "
    "checked what is in it"
)


class Maker(NamedTuple):
    """What builds the initramfs of a host; ``path`` is the file by which it is told what to add.

    ``command`` builds those of all kernels: which of them boots next is the boot loader's choice.
    ``lister`` tells what is in one.
    """

    name: str
    programs: Sequence[str]
    command: Sequence[str]
    path: str
    lister: str


_MAKERS = (
    Maker(
        INITRAMFS_TOOLS,
        # dracut can come with an update-initramfs of its own.
        ("/usr/sbin/update-initramfs", "/usr/sbin/mkinitramfs"),
        ("/usr/sbin/update-initramfs", "-u", "-k", "all"),
        "/etc/initramfs-tools/hooks/armfleet-vfio",
        "/usr/bin/lsinitramfs",
    ),
    Maker(
        DRACUT,
        ("/usr/bin/dracut",),
        ("/usr/bin/dracut", "--force", "--regenerate-all"),
        "/etc/dracut.conf.d/armfleet-vfio.conf",
        "/usr/bin/lsinitrd",
    ),
)
PATHS = tuple(maker.path for maker in _MAKERS)


class Wanted(NamedTuple):
    """Files and modules that an image has to have."""

    files: Sequence[str]
    modules: Sequence[str]


def maker_of(files: Files) -> Maker | None:
    """What builds the initramfs of this host, or None if neither of the two is there."""
    return next((maker for maker in _MAKERS if all(map(files.is_executable, maker.programs))), None)


def maker_called(name: str | None) -> Maker | None:
    """The one of that name, or None if there is none."""
    return next((maker for maker in _MAKERS if maker.name == name), None)


def command(maker: Maker, files: Files) -> list[str]:
    """What builds the images of this host anew."""
    words = list(maker.command)
    release = os.uname().release
    image, kernel = "/boot/initrd.img-" + release, "/boot/vmlinuz-" + release
    if maker.name == INITRAMFS_TOOLS and files.changed_at(image) and not files.changed_at(kernel):
        # "all" are the kernels in /boot, which one that came over the network is not.
        words[-1] = release
    return words


def image_paths(files: Files, kernel: str) -> list[str]:
    """Where an image of that kernel can be."""
    machine = _text.stripped(files.read("/etc/machine-id") or "")
    paths = [image % kernel for image in _IMAGES]
    return paths + [image % (machine, kernel) for image in _IMAGES_OF_MACHINE if machine]


def has_image(files: Files) -> bool:
    """Whether there is an image that update-initramfs could update; it creates none by itself."""
    return any(name.startswith("initrd.img-") for name in files.names("/boot"))


def outdated(contents: Iterable[str | None]) -> str:
    """What OUTDATED says of boot files with these contents."""
    import hashlib  # noqa: PLC0415 - only a run that changes something needs it

    joined = "\0".join(content for content in contents if content is not None)
    return _OUTDATED % hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()


def wanted(maker: Maker, files: Files, boot_files: Sequence[str]) -> Wanted:
    """What an image has to have by the file that tells the tool; ``boot_files`` are read early."""
    told = files.read(maker.path)
    there = [path for path in boot_files if files.read(path) is not None]
    if maker.name == INITRAMFS_TOOLS:
        return Wanted(there, _told(told, "manual_add_modules "))
    return Wanted(there if told else [], _told(told, "add_drivers+="))


def _told(content: str | None, beginning: str) -> list[str]:
    lines = [line for line in _text.lines(content or "") if line.startswith(beginning)]
    return [name for line in lines for name in _text.words(line[len(beginning) :].strip('"'))]


def modules(
    files: Files, vfio: Iterable[str], first_compatibles: Iterable[str], pinned: Iterable[str]
) -> list[str]:
    """The modules that the rules load, of those that this host has as files.

    ``vfio`` are the drivers of VFIO that the list needs. ``first_compatibles`` are those of the
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
    folders = _folders(files)
    there = {module for folder in folders for module in module_files(files, folder + _DEPENDENCIES)}
    there &= needed
    there.update(
        module
        for folder in folders
        for alias, module in _reset_modules(files, folder)
        if alias in resets
    )
    return sorted(there)


def _folders(files: Files) -> list[str]:
    """Those of the running kernel's modules; of all kernels where it has none, as in an image."""
    own = _MODULES + os.uname().release
    if files.names(own):
        return [own]
    return [_MODULES + name for name in files.names(_MODULES)]


def module_files(files: Files, path: str) -> Iterator[str]:
    """The modules of a file such as modules.dep or modules.builtin."""
    for line in _text.lines(files.read(path) or ""):
        path = line.partition(":")[0]
        yield canonical_name(path.rpartition("/")[2].partition(".ko")[0])


def _reset_modules(files: Files, folder: str) -> Iterator[tuple[str, str]]:
    """Aliases and modules, of the thousands of lines that are not about resets none."""
    for line in _text.lines(files.read(folder + "/modules.alias") or ""):
        if line.startswith(("alias vfio-reset:", "alias vfio_reset:")):
            fields = _text.words(line)
            if len(fields) == 3:
                yield canonical_name(fields[1]), canonical_name(fields[2])


def render(
    maker: Maker, mark: str, names: Sequence[str], boot_files: Sequence[str]
) -> dict[str, str | None]:
    """The content of each of PATHS; ``boot_files`` are those of ours that are there."""
    content = None
    if maker.name == INITRAMFS_TOOLS and names:
        # It copies all of /etc/udev/rules.d and /etc/modprobe.d by itself.
        content = _HOOK % (mark, " ".join(names))
    elif maker.name == DRACUT and boot_files:
        lines = [mark, 'install_items+=" %s "' % " ".join(boot_files)]
        lines += ['add_drivers+=" %s "' % " ".join(names)] if names else []
        content = "\n".join(lines) + "\n"
    return {path: content if path == maker.path else None for path in PATHS}


def is_stale(files: Files, paths: Iterable[str]) -> bool:
    """Whether the running kernel's image is older than one of our files at ``paths``.

    So it is where the rebuilding failed after a run that wrote them.
    """
    release = os.uname().release
    images = [files.changed_at(image) for image in image_paths(files, release)]
    built = max((moment for moment in images if moment is not None), default=None)
    written = [*map(files.changed_at, paths), files.own_changed_at(OUTDATED)]
    newest = max((moment for moment in written if moment is not None), default=None)
    # A clock that was wrong once must not have the image rebuilt at each run.
    return built is not None and newest is not None and built < newest <= time.time()
