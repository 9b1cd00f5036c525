# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ssh keys of the guests."""

from __future__ import annotations

from pathlib import Path

from . import commands
from .artefacts import Artefact


def _make(folder: Path) -> None:
    commands.require("ssh-keygen")
    for name in ("login", "host"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "armfleet-vfio-guest-" + name]
        commands.call([*argv, "-f", folder / name], log=folder / "build.log")


def ssh_keys() -> Artefact:
    """login and host, a key pair each; every guest of this user has the same."""
    return Artefact(
        name="ssh",
        purpose="making ssh keys (a second)",
        recipe=["ed25519"],
        make=_make,
    )
