# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has a guest run modules in forks of a Python that has loaded Ansible, because loading is slow.

Emulated, that is half of most calls. The benchmarks and the demo are without it, as users' hosts
are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness.guest_python.loaded_python import BY_ITSELF

if TYPE_CHECKING:
    from tests.guest import Guest

__all__ = ["BY_ITSELF", "load_python"]

_PROGRAMS = Path(__file__).parent / "guest_python"
# Python reads the names of modules to import first from files in this directory.
_PACKAGES = "/usr/lib/python3/dist-packages"


def load_python(guest: Guest) -> None:
    """Start the server, which runs until the guest reboots."""
    for name in ("loaded_python.py", "serve_python.py"):
        guest.run(f"cat > {_PACKAGES}/{name}", input=(_PROGRAMS / name).read_text())
    guest.run(f"echo import loaded_python > {_PACKAGES}/loaded_python.pth")
    guest.run("setsid -f /usr/bin/python3 -m serve_python < /dev/null > /run/serve_python.log 2>&1")
