# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of programs that docs/hosts.md promises to be tested."""

from __future__ import annotations

from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs/hosts.md"
_HEADER = "| Debian | systemd | kmod | dracut | driverctl | Python |\n|---|---|---|---|---|---|\n"


def program_versions() -> dict[str, list[str]]:
    """Return the versions of systemd, kmod, dracut, driverctl and Python by Debian's suite."""
    table = _PAGE.read_text().partition(_HEADER)[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {release.rpartition(" ")[2]: versions for release, *versions in rows}
