# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The initramfs of guests whose kernel has the drivers of the root disk as modules.

It loads these, mounts the root file system and is gone; no udev runs in it, and no other driver.
"""

from __future__ import annotations

import lzma
import subprocess
from functools import partial
from pathlib import Path

from . import commands
from .artefacts import Artefact
from .errors import GuestError
from .kernel import kernel
from .modules import modules
from .packages import Series

# The network card is loaded here, too, so that it is eth0 on a board with cards of other drivers.
_DRIVERS = ("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "ext4")
_INIT = """\
#!/busybox sh
/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /busybox insmod $module; done
until [ -b /dev/vda ]; do /busybox sleep 0.1; done
/busybox mount -t ext4 /dev/vda /root
/busybox umount /dev
exec /busybox switch_root /root /sbin/init
"""


def _in_order(tree: Path) -> list[Path]:
    """Return the files of the modules that are needed, each after what it depends on."""
    (version,) = (tree / "lib/modules").iterdir()
    paths: dict[Path, None] = {}
    for driver in _DRIVERS:
        asked = [commands.find("modprobe") or "modprobe", "--show-depends", "-d", str(tree)]
        asked += ["-S", version.name, driver]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        if answer.returncode:
            raise GuestError("The kernel has no %s: %s" % (driver, answer.stderr.strip()))
        for line in answer.stdout.splitlines():
            word, _space, path = line.strip().partition(" ")
            if word == "insmod":
                paths[Path(path.split()[0])] = None
    return list(paths)


def pack(loadable: Path, busybox: Path, folder: Path) -> None:
    """Make directory/initramfs.img of the modules in loadable/lib/modules."""
    commands.require("cpio", "modprobe")
    log = folder / "build.log"
    tree = folder / "initramfs"
    for name in ("dev", "root", "modules"):
        (tree / name).mkdir(parents=True)
    for number, module in enumerate(_in_order(loadable)):
        content = module.read_bytes()
        name = "modules/%02d-%s" % (number, module.name.removesuffix(".xz"))
        (tree / name).write_bytes(lzma.decompress(content) if module.suffix == ".xz" else content)
    (tree / "busybox").write_bytes(busybox.read_bytes())
    (tree / "init").write_text(_INIT)
    for program in ("busybox", "init"):
        (tree / program).chmod(0o755)
    listing = folder / "listing"
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    listing.write_text("".join("%s\n" % name for name in names))
    archive = ["cpio", "--create", "--quiet", "--format=newc", "--owner=0:0"]
    commands.call([*archive, "--file", folder / "initramfs.img"], cwd=tree, log=log, feed=listing)
    commands.call(["rm", "-r", tree], log=log)


def _make(series: Series, folder: Path) -> None:
    pack(modules(series).ensure() / "tree", kernel(series).ensure() / "busybox", folder)


def initramfs(series: Series) -> Artefact | None:
    """initramfs.img; None if the kernel has all that it needs built in."""
    if not series.stock:
        return None
    return Artefact(
        name="initramfs",
        purpose="making the initramfs of guests with Linux %s (a second)" % series.name,
        recipe=[modules(series).ensure().name, _INIT, *_DRIVERS],
        make=partial(_make, series),
    )
