# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything a guest is made of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .board import device_trees
from .disk import disk
from .initramfs import initramfs
from .kernel import kernel
from .keys import ssh_keys
from .native import native_programs
from .packages import Series, kernel_source, root_packages
from .userlands import DEFAULT_USERLAND, Userland


@dataclass(frozen=True)
class Parts:
    """Where the finished artefacts are.

    ``kernel`` is the name of its series, behind that of a userland other than the default.
    """

    kernel: str
    image: Path
    initramfs: Path | None
    disk: Path
    device_trees: Path
    login_key: Path


def build(series: Series, userland: Userland = DEFAULT_USERLAND) -> Parts:
    """Build what is missing.

    From nothing it takes about a minute with the distribution's kernel on two cores, and about
    eight minutes with one that is compiled here.
    """
    # Downloads beside what computes; the others need these.
    source = kernel(series) if series.stock else kernel_source(series)
    first = (root_packages(userland), native_programs(userland), source)
    with ThreadPoolExecutor() as executor:
        for future in [executor.submit(artefact.ensure) for artefact in first]:
            future.result()
    early = initramfs(series)
    return Parts(
        kernel=userland.named(series.name),
        login_key=ssh_keys().ensure() / "login",
        device_trees=device_trees().ensure(),
        image=kernel(series).ensure() / "Image",
        initramfs=early.ensure() / "initramfs.img" if early else None,
        disk=disk(series, userland).ensure() / "disk.raw",
    )
