# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The device trees of real boards, about 1,000, as Debian's kernel for arm64 carries them."""

from __future__ import annotations

from pathlib import Path

from tests.guest import commands
from tests.guest.artefacts import Artefact
from tests.guest.packages import SUITE, download

# linux-image-arm64 itself is empty; it depends on the image of the current version.
_IMAGE = "?reverse-depends(?exact-name(linux-image-arm64))"


def device_trees() -> list[Path]:
    """The .dtb files, in one folder for each maker; at first they are downloaded."""
    return sorted((_artefact().ensure() / "boards").rglob("*.dtb"))


def _artefact() -> Artefact:
    return Artefact(
        name="real-boards",
        purpose="downloading real boards' device trees from Debian %s (100 MB)" % SUITE,
        recipe=[SUITE, _IMAGE],
        make=_download,
    )


def _download(folder: Path) -> None:
    log = folder / "build.log"
    package = download(_IMAGE, "arm64", folder)
    commands.call(["dpkg-deb", "-x", package, folder / "package"], log=log)
    (unpacked,) = (folder / "package/usr/lib").glob("linux-image-*")
    unpacked.rename(folder / "boards")
    commands.call(["find", folder / "boards", "-name", "*.dtbo", "-delete"], log=log)
    (folder / "version").write_text(package.name.split("_")[1] + "\n")
    commands.call(["rm", "-r", package, folder / "package"], log=log)
