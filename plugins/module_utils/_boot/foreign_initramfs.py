# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What builds an initramfs in a way in which this collection does not. Reads only."""

from __future__ import annotations

import fnmatch
from typing import NamedTuple, Sequence

from .._system.files import Files
from .._system.kernel_parameters import KERNEL_COMMAND_LINE, parameters_of_any_reader
from .._system.mounts import mounts


class ImageMount(NamedTuple):
    """What an initramfs mounts on ``mount_point`` by a kernel ``parameter`` that names an image.

    ``sources`` are the patterns of fnmatch for what is mounted.
    """

    parameter: str
    mount_point: str
    sources: Sequence[str]


class ForeignTool(NamedTuple):
    """What builds the initramfs of a host in a way in which this collection does not.

    A host has it if one of ``signs`` exists, and its root is read-only if that is required, or if
    it has one of ``mounts``. ``remedy`` is how to add %(files)s and %(modules)s manually, as
    sentences.
    """

    label: str
    signs: Sequence[str]
    remedy: str
    mounts: Sequence[ImageMount] = ()
    requires_read_only_root: bool = False


# Its images come with its deployments, whatever tool is installed: ostree_is_booted in ostree's
# src/libostree, and bootc where it deploys by ostree. The options of rpm-ostree are those of its
# man/rpm-ostree.xml.
_OSTREE = ForeignTool(
    "This host is managed by ostree (rpm-ostree, bootc), whose initramfs comes with its deployment",
    ("/run/ostree-booted",),
    "With bootc, add them to the image and run dracut when it is built; with rpm-ostree, run "
    "'rpm-ostree initramfs-etc%(tracked)s' and 'rpm-ostree initramfs --enable "
    '--arg=--add-drivers --arg="%(modules)s"\', and reboot',
)
# composefs_booted in bootc's crates/lib/src/bootc_composefs/status.rs; composefs-rs has the second
# parameter as well, in crates/composefs-boot/src/cmdline.rs.
_COMPOSEFS = ("composefs:*", "transient:composefs=*")
# systemd-veritysetup-generator(8); Flatcar has the second parameter for /usr.
_VERITY_ROOT, _VERITY_USR = ("/dev/mapper/root",), ("/dev/mapper/usr",)
_IMAGE = ForeignTool(
    "This host boots an image (composefs, as of bootc, or dm-verity), and its initramfs comes with "
    "that image",
    (),
    "Add them to the image, with 'install_items+=\" %(files)s \"' and 'add_drivers+=\" %(modules)s "
    "\"' in /usr/lib/dracut/dracut.conf.d/armfleet-vfio.conf if dracut builds its initramfs",
    (
        ImageMount("composefs", "/", _COMPOSEFS),
        ImageMount("composefs.digest", "/", _COMPOSEFS),
        ImageMount("roothash", "/", _VERITY_ROOT),
        ImageMount("usrhash", "/usr", _VERITY_USR),
        ImageMount("verity.usrhash", "/usr", _VERITY_USR),
    ),
)
# Changes of /usr and of images are made in a new snapshot, with the configuration in /etc.
_TRANSACTIONAL = ForeignTool(
    "This host has a read-only root that transactional-update changes, so dracut cannot rebuild "
    "its initramfs",
    ("/usr/sbin/transactional-update",),
    "Write 'install_items+=\" %(files)s \"' and 'add_drivers+=\" %(modules)s \"' to "
    "/etc/dracut.conf.d/vfio.conf, run 'transactional-update initrd', and reboot",
    requires_read_only_root=True,
)
# Whatever tools they have, these do not build what boots.
_IMAGE_BASED = (_OSTREE, _IMAGE, _TRANSACTIONAL)
FOREIGN_TOOLS = (
    *_IMAGE_BASED,
    ForeignTool(
        "This host builds its initramfs with mkinitcpio, which this collection does not run",
        ("/usr/bin/mkinitcpio", "/usr/sbin/mkinitcpio"),
        # With a file of its own (-c), mkinitcpio does not read the directory: mkinitcpio(8).
        "Write 'FILES+=(%(files)s)' and 'MODULES+=(%(modules)s)' to "
        "/etc/mkinitcpio.conf.d/armfleet-vfio.conf, or to the file that a preset in "
        "/etc/mkinitcpio.d sets as its config, and run 'mkinitcpio -P'",
    ),
    ForeignTool(
        "This host builds its initramfs with booster, whose images have no udev to run the rules",
        ("/usr/bin/booster", "/usr/sbin/booster"),
        # docs/manpage.md of booster.
        "Add '-NAME' to `modules` in /etc/booster.yaml for each native driver of the list, and run "
        "'/usr/lib/booster/regenerate_images'",
    ),
)


def is_image_based(files: Files) -> bool:
    """Return whether the initramfs of this host comes with an image or a snapshot of its root."""
    return any(_has(files, tool) for tool in _IMAGE_BASED)


def remedy(files: Files, paths: Sequence[str], modules: Sequence[str]) -> str | None:
    """Return how to add the files at ``paths`` and ``modules`` to the images of this host.

    None if it has nothing that is known to build them.
    """
    for tool in FOREIGN_TOOLS:
        if _has(files, tool):
            named = {
                "files": " ".join(paths),
                "tracked": "".join(" --track=" + path for path in paths),
                "modules": " ".join(modules),
            }
            return "%s. %s" % (tool.label, tool.remedy % named)
    return None


def _has(files: Files, tool: ForeignTool) -> bool:
    if any(files.version(path) for path in tool.signs):
        return not tool.requires_read_only_root or _is_root_read_only(files)
    return bool(tool.mounts) and _mounts_image(files, tool.mounts)


def _is_root_read_only(files: Files) -> bool:
    root = mounts(files).get("/")
    return root is not None and "ro" in root.options


def _mounts_image(files: Files, images: Sequence[ImageMount]) -> bool:
    """Return whether the system that runs has one of ``images``.

    A container has the kernel command line of its host, but mounts of its own.
    """
    parameters = parameters_of_any_reader(files.read_start(KERNEL_COMMAND_LINE) or "")
    keys = {parameter.partition("=")[0] for parameter in parameters}
    named = [mount for mount in images if mount.parameter in keys]
    mounted = mounts(files) if named else {}
    return any(
        fnmatch.fnmatchcase(mounted[mount.mount_point].source, pattern)
        for mount in named
        if mount.mount_point in mounted
        for pattern in mount.sources
    )
