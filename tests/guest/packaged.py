# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest whose packages are managed, as on any host: with Debian's kernel and no other modules.

dpkg has a record of all packages, and apt reads the archive of archive.py, which is on the disk.
Nothing was configured by a maintainer script, as in the other guests. A program of its own, so that
it can run under fakeroot as a whole.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from . import commands
from .archive import archive, kernels
from .artefacts import Artefact
from .board import device_trees
from .build import Parts
from .furnish import furnish
from .guest import Guest
from .initramfs import pack
from .keys import ssh_keys
from .native import native_programs
from .packages import STOCK_SERIES

_HERE = Path(__file__).parent
_ADDED = _HERE / "rootfs"
_ARCHIVE = "/srv/archive"
_FOLDERS = ("info", "updates", "triggers", "alternatives", "parts")
_SETTINGS = {
    "etc/apt/sources.list": "deb [trusted=yes] file:%s before/\n" % _ARCHIVE,
    # As quick as an initramfs can be made under emulation: of the modules that this machine needs.
    "etc/initramfs-tools/conf.d/quick": "COMPRESS=gzip\nCOMPRESSLEVEL=1\nMODULES=dep\n",
    # It has no translated descriptions, and nothing to save from a power failure.
    "etc/apt/apt.conf.d/10quick": (
        'Acquire::Languages "none";\nDPkg::Options "--force-unsafe-io";\n'
    ),
}
# They add programs for disks that the guest does not have, and take a minute.
_SLOW_HOOKS = ("dmsetup", "lvm2", "mdadm", "thermal", "keymap", "fsck")
_SIZE = "6G"


def _register(package: Path, tree: Path) -> str:
    """Write the files of a package into dpkg's database; return its record."""
    work = tree / "control"
    subprocess.run(["dpkg-deb", "--control", package, work], check=True)
    control = (work / "control").read_text()
    fields = dict(line.partition(": ")[::2] for line in control.splitlines())
    name = fields["Package"]
    if fields.get("Multi-Arch") == "same":
        name = "%s:%s" % (name, fields["Architecture"])
    info = tree / "var/lib/dpkg/info"
    for path in work.iterdir():
        if path.name != "control":
            shutil.copy(path, info / ("%s.%s" % (name, path.name)))
    shutil.rmtree(work)
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE
    ) as unpacking:
        listed = subprocess.run(
            ["tar", "--list"], stdin=unpacking.stdout, capture_output=True, text=True, check=True
        ).stdout
    paths = [line.removeprefix(".").rstrip("/") or "/." for line in listed.splitlines()]
    (info / (name + ".list")).write_text("".join("%s\n" % path for path in paths))
    return control.rstrip("\n") + "\nStatus: install ok installed\n\n"


def _unpack(tree: Path, log: Path) -> None:
    database = tree / "var/lib/dpkg"
    for name in _FOLDERS:
        (database / name).mkdir(parents=True)
    # base-files has the links of merged /usr, which others unpack through.
    packages = sorted(
        (archive().ensure() / "system").glob("*.deb"),
        key=lambda path: (not path.name.startswith("base-files_"), path.name),
    )
    records = []
    for package in packages:
        commands.call(["dpkg-deb", "--extract", package, tree], log=log)
        records.append(_register(package, tree))
    (database / "status").write_text("".join(records))
    for name in ("available", "diversions", "statoverride"):
        (database / name).touch()
    (database / "arch").write_text("arm64\n")


def _configure(tree: Path) -> None:
    shutil.copytree(
        archive().ensure(),
        tree / _ARCHIVE.lstrip("/"),
        ignore=shutil.ignore_patterns("system", "build.log", "kernels"),
    )
    for name, content in _SETTINGS.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for name in _SLOW_HOOKS:
        hook = tree / "usr/share/initramfs-tools/hooks" / name
        if hook.exists():
            hook.chmod(0o644)
    for name in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
        (tree / name).mkdir(parents=True, exist_ok=True)


def fill(folder: Path) -> None:
    """Make directory/disk.raw, Image and initramfs.img."""
    log = folder / "build.log"
    tree = folder / "tree"
    tree.mkdir()
    _unpack(tree, log)
    furnish(tree, log)
    _configure(tree)
    before, _after = kernels()
    commands.call(["depmod", "-b", tree, before.release], log=log)
    shutil.copy(tree / ("boot/vmlinuz-" + before.release), folder / "Image")
    pack(tree, tree / "usr/bin/busybox", folder)
    disk = folder / "disk.raw"
    commands.call(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", tree, disk, _SIZE], log=log)
    commands.call(["rm", "-r", tree], log=log)


def _make(folder: Path) -> None:
    commands.require("mke2fs", "tar", "depmod", "dpkg-deb")
    archive().ensure()
    program = [sys.executable, "-m", "%s.%s" % (__package__, Path(__file__).stem), str(folder)]
    argv = [*commands.pretending_root(), *program]
    commands.call(argv, cwd=_HERE.parents[1], log=folder / "build.log")


def packaged() -> Artefact:
    """disk.raw, and the kernel with its initramfs that boot it the first time."""
    keys = ssh_keys().ensure()
    added = sorted(path for path in _ADDED.rglob("*") if path.is_file())
    programs = [_HERE / name for name in ("furnish.py", "initramfs.py", "packaged.py")]
    return Artefact(
        name="packaged",
        purpose="making the disk of the guest with managed packages (half a minute)",
        recipe=[
            archive().folder.name,
            native_programs().ensure().name,
            *(keys / "login.pub", keys / "host.pub", *added, *programs),
        ],
        make=_make,
    )


class PackagedGuest(Guest):
    """A guest that installs and upgrades packages; it is booted each time, never saved."""

    def __init__(self, name: str, board: str = "a") -> None:
        super().__init__(name, board, STOCK_SERIES)

    def prepare(self) -> tuple[Parts, Path | None]:
        """Make and return the parts; there is no saved guest."""
        return self._parts(), None

    def _parts(self) -> Parts:
        made = packaged().ensure()
        return Parts(
            kernel=STOCK_SERIES,
            image=made / "Image",
            initramfs=made / "initramfs.img",
            disk=made / "disk.raw",
            device_trees=device_trees().ensure(),
            login_key=ssh_keys().ensure() / "login",
        )


if __name__ == "__main__":
    fill(Path(sys.argv[1]))
