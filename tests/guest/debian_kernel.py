# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The distribution's own kernel: the binary as it is, its modules, and what builds more of them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from . import commands
from .artefacts import Artefact
from .errors import GuestError
from .native import native_programs, through_loader
from .packages import SUITE, download, of_this_machine

# linux-image-arm64 and linux-headers-arm64 themselves are empty; they depend on the current ones.
_IMAGE = "?reverse-depends(?exact-name(linux-image-arm64))"
_HEADERS = (
    "?and(?name(^linux-headers-.*-arm64$), ?reverse-depends(?exact-name(linux-headers-arm64)))"
)
_COMMON_HEADERS = (
    "?and(?name(^linux-headers-.*-common$),"
    " ?reverse-depends(?reverse-depends(?exact-name(linux-headers-arm64))))"
)
_KBUILD = "?name(^linux-kbuild-)"
_SOURCE = "linux-source-6.12"


def _unpack(folder: Path) -> None:
    log = folder / "build.log"
    tools = [of_this_machine(_KBUILD)]
    wanted = [_IMAGE, _HEADERS, _COMMON_HEADERS, _SOURCE, "busybox-static", *tools]
    packages = download(wanted, folder)
    tree = folder / "unpacked"
    (image,) = (package for package in packages if package.name.startswith("linux-image-"))
    name, version, _rest = image.name.split("_")
    (folder / "package").write_text("%s %s\n" % (name, version))
    if not any(package.name.startswith("%s_%s_" % (_SOURCE, version)) for package in packages):
        raise GuestError(
            "Debian's archive does not have the source of %s %s yet. Try again later"
            % (name, version)
        )
    for package in packages:
        # An archive keeps tools of earlier versions too.
        if version in package.name or not package.name.startswith("linux-"):
            commands.call(["dpkg-deb", "-x", package, tree], log=log)
    for package in packages:
        package.unlink()
    (folder / "tree/lib").mkdir(parents=True)
    (tree / "usr/lib/modules").rename(folder / "tree/lib/modules")
    for link in (folder / "tree/lib/modules").glob("*/*"):
        if link.is_symlink():
            link.unlink()
    archive = tree / ("usr/src/%s.tar.xz" % _SOURCE)
    unpacking = ["tar", "-xJf", archive, "-C", folder, "--strip-components=2", "--wildcards"]
    commands.call([*unpacking, "*/drivers/vfio"], log=log)
    archive.unlink()
    for pattern, target in (
        ("boot/vmlinuz-*", "Image"),
        ("boot/config-*", "config"),
        ("usr/lib/linux-image-*", "boards"),
        ("usr/src", "src"),
        ("usr/lib/linux-kbuild-*", "kbuild"),
        ("usr/bin/busybox", "busybox"),
    ):
        (path,) = tree.glob(pattern)
        path.rename(folder / target)
    commands.call(["rm", "-r", tree], log=log)
    _relocate_headers(folder)


def _relocate_headers(folder: Path) -> None:
    """Let the headers be used where they lie, and their programs with a C library of their own."""
    final = debian_kernel().folder
    (headers,) = (folder / "src").glob("linux-headers-*-arm64")
    makefile = headers / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", "%s/src/" % final))
    for link in (folder / "src").rglob("*"):
        if link.is_symlink() and "linux-kbuild" in os.readlink(link):
            name = link.name if link.parent != folder / "src" else ""
            link.unlink()
            link.symlink_to(final / "kbuild" / name)
    (folder / "headers").symlink_to(final / "src" / headers.name)
    libraries = native_programs().ensure() / "tree/usr/lib"
    # It looks for the variant of the target's word size and byte order beside itself.
    modpost = folder / "kbuild/scripts/mod/modpost"
    (modpost.with_name("modpost.real-lsb-64")).replace(modpost)
    for program in sorted((folder / "kbuild/scripts").glob("*/*")):
        if program.is_file() and program.read_bytes()[:4] == b"\x7fELF":
            binary = program.with_name(program.name + ".binary")
            program.rename(binary)
            words = through_loader(final / binary.relative_to(folder), libraries)
            program.write_text('#!/bin/sh\nexec %s "$@"\n' % shlex.join(words))
            program.chmod(0o755)


def debian_kernel() -> Artefact:
    """Return the distribution's kernel as it is, with its modules and what builds more of them.

    Image, config, package (its name and version), tree (its modules), headers, vfio (drivers/vfio
    of its source), boards (the device trees of real boards) and a busybox for its initramfs.
    """
    return Artefact(
        name="linux-debian",
        purpose="downloading Debian's own kernel for arm64, with its source (265 MB)",
        recipe=[
            *(SUITE, _IMAGE, _HEADERS, _COMMON_HEADERS, _KBUILD, _SOURCE),
            # The programs among the headers run with its C library.
            native_programs().folder.name,
        ],
        make=_unpack,
    )
