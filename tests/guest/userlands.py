# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The releases of Debian whose programs a guest can have, whatever its kernel."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import GuestError


@dataclass(frozen=True)
class Userland:
    """A Debian suite, and how it differs from the others for those who make a disk of it.

    ``python`` is the version of its Python. ``is_merged`` says whether its packages have all of
    their files below /usr. ``lacks`` are packages of root-packages.txt that it does not have, and
    ``unknown`` the options of our sshd_config that its sshd does not know.
    """

    suite: str
    python: str
    is_merged: bool = True
    lacks: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def is_default(self) -> bool:
        """Return whether guests have it unless told otherwise."""
        return self.suite == DEFAULT_SUITE

    def named(self, name: str) -> str:
        """Return a name for what is made of it: ``name`` itself for the default."""
        return name if self.is_default else "%s-%s" % (self.suite, name)


DEFAULT_SUITE = "trixie"
OLDEST_SUITE = "bullseye"
USERLANDS = {
    userland.suite: userland
    for userland in (
        Userland(
            OLDEST_SUITE,
            "3.9",
            is_merged=False,
            lacks=("ansible-core",),
            unknown=("PerSourcePenalties",),
        ),
        Userland("bookworm", "3.11", is_merged=False, unknown=("PerSourcePenalties",)),
        Userland(DEFAULT_SUITE, "3.13"),
        Userland("forky", "3.14"),
    )
}
DEFAULT_USERLAND = USERLANDS[DEFAULT_SUITE]


def userland_named(suite: str) -> Userland:
    """Return one of USERLANDS."""
    try:
        return USERLANDS[suite]
    except KeyError:
        raise GuestError(
            "There is no userland %r; there are %s" % (suite, ", ".join(USERLANDS))
        ) from None
