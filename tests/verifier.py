# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""'udevadm verify' of a newer Debian than this machine may have: it came with systemd 254."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.guest.artefacts import Artefact
from tests.guest.packages import SUITE, unpack

_PACKAGES = ["udev"]


def complaints(files: Sequence[Path]) -> str:
    """Return what udevadm says against rule files; an empty text if it takes all of them."""
    done = _run("verify", "--resolve-names=never", *map(str, files))
    return done.stdout + done.stderr if done.returncode else ""


def version() -> int:
    """Return the version of that udev."""
    return int(_run("--version").stdout.split()[0])


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    tree = _artefact().ensure() / "tree"
    (loader,) = tree.glob("usr/lib/*/ld-linux-*.so.*")
    libraries = f"{loader.parent}:{loader.parent / 'systemd'}"
    command = [str(loader), "--library-path", libraries, str(tree / "usr/bin/udevadm")]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def _artefact() -> Artefact:
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return Artefact(
        name="udevadm",
        purpose="unpacking the udevadm of Debian %s" % SUITE,
        recipe=[SUITE, architecture, *_PACKAGES],
        make=lambda directory: unpack(_PACKAGES, architecture, directory),
    )
