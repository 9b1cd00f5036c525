# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rebuilds the initramfs of a kernel whose VFIO modules DKMS has just installed.

The role armfleet.vfio.vfio_modules installs this program. It acts only if the policy list of this
host has modules in the initramfs and the image was built without the new modules. If the package
of a kernel is being installed, its image is built after DKMS and does not exist yet.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Sequence

_ROOT = Path("/")
_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+~-]*")
# The file by which host_policy adds modules to the image, and what then builds the image.
_TOOLS = (
    ("etc/initramfs-tools/hooks/armfleet-vfio", ("update-initramfs", "-u", "-k", "{release}")),
    ("etc/dracut.conf.d/armfleet-vfio.conf", ("dracut", "--force", "{image}", "{release}")),
)


def main(arguments: Sequence[str]) -> int:
    """Rebuild the image, if there is one that needs the modules."""
    if len(arguments) != 1:
        sys.stderr.write("Usage: update_initramfs.py RELEASE, as uname -r prints it\n")
        return 2
    (release,) = arguments
    if not _RELEASE.fullmatch(release):
        sys.stderr.write("update_initramfs.py: %r is not the release of a kernel.\n" % release)
        return 1
    image = _ROOT / ("boot/initrd.img-" + release)
    commands = [command for path, command in _TOOLS if (_ROOT / path).exists()]
    if not commands or not image.exists():
        return 0
    # DKMS runs it afterwards, but the image contains only modules that are indexed.
    subprocess.run(["depmod", release], check=True)
    for command in commands:
        words = [word.format(release=release, image=image) for word in command]
        subprocess.run(words, stdin=subprocess.DEVNULL, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
