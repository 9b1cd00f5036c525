# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guest's disk: Debian's packages, our kernel's modules and a little configuration.

A program of its own, so that it can run under fakeroot as a whole: owners come out right then.
"""

from __future__ import annotations

import sys
from pathlib import Path

from . import commands
from .kernel import kernel
from .keys import ssh_keys
from .modules import modules
from .native import native
from .packages import SERIES, Series, root_packages

_ADDED = Path(__file__).with_name("rootfs")
_SYSTEM = Path("etc/systemd/system")
_WANTED = {
    "guest-network.service": _SYSTEM / "guest-network.service",
    "guest-clock.service": _SYSTEM / "guest-clock.service",
    "ssh.service": Path("usr/lib/systemd/system/ssh.service"),
}
# They wait, write or fail for reasons that no test is about, and take a second of each boot.
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "dracut-shutdown.service",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "ldconfig.service",
    "modprobe@fuse.service",
    "serial-getty@.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-udev-load-credentials.service",
    "systemd-update-done.service",
    "proc-sys-fs-binfmt_misc.automount",
)
_MASKED_GENERATORS = (
    "debug",
    "getty",
    "gpt-auto",
    "hibernate-resume",
    "rc-local",
    "run",
    "ssh",
    "system-update",
    "sysv",
    "tpm2",
)
# What neither Ansible nor its modules import.
_NOT_COMPILED = (
    r"/(test|_pyrepl|pydoc_data|idlelib|turtledemo|lib2to3)/|/(turtle|pydoc)\.py"
    r"|/ansible/modules/|/ansible_test/"
)
# Links that maintainer scripts would have made.
_LINKS = {
    "etc/systemd/system/default.target": "/usr/lib/systemd/system/multi-user.target",
    "usr/bin/awk": "mawk",
    "usr/bin/pager": "more",
    "usr/bin/which": "which.debianutils",
    "etc/mtab": "../proc/self/mounts",
}


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.exists():
        path.unlink()
    path.symlink_to(target)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def _make_users(tree: Path, log: Path) -> None:
    sysusers = native("usr/bin/systemd-sysusers")
    commands.call([*sysusers, "--root=%s" % tree], log=log)
    shadow = tree / "etc/shadow"
    # Made with mode 0, which only root can read.
    for path in (shadow, tree / "etc/gshadow"):
        path.chmod(0o640)
    # sshd takes "!" for a locked account and refuses even keys.
    lines = shadow.read_text().splitlines(keepends=True)
    fields = [line.split(":") for line in lines]
    for entry in fields:
        if entry[0] == "root":
            entry[1] = "*"
    shadow.write_text("".join(":".join(entry) for entry in fields))


def _configure(tree: Path) -> None:
    keys = ssh_keys().ensure()
    for path in sorted(_ADDED.rglob("*")):
        if path.is_file():
            _write(tree / path.relative_to(_ADDED), path.read_bytes(), 0o644)
    _write(tree / "root/.ssh/authorized_keys", (keys / "login.pub").read_bytes(), 0o600)
    (tree / "root/.ssh").chmod(0o700)
    _write(tree / "etc/ssh/ssh_host_ed25519_key", (keys / "host").read_bytes(), 0o600)
    _write(tree / "etc/ssh/ssh_host_ed25519_key.pub", (keys / "host.pub").read_bytes(), 0o644)
    # Empty, so that each guest gives itself an identity of its own at its first boot.
    _write(tree / "etc/machine-id", b"", 0o444)
    _write(tree / "usr/lib/clock-epoch", b"", 0o644)
    for unit, path in _WANTED.items():
        _link(tree / _SYSTEM / "multi-user.target.wants" / unit, "/%s" % path)
    for unit in _MASKED:
        _link(tree / _SYSTEM / unit, "/dev/null")
    for generator in _MASKED_GENERATORS:
        path = tree / "etc/systemd/system-generators" / ("systemd-%s-generator" % generator)
        _link(path, "/dev/null")
    for name, target in _LINKS.items():
        _link(tree / name, target)


def _compile_python(tree: Path, log: Path) -> None:
    """Add the bytecode that packages of Python and its libraries make when configured."""
    (library,) = (path for path in (tree / "usr/lib").glob("python3.*") if path.is_dir())
    libraries = [library, tree / "usr/lib/python3/dist-packages"]
    interpreter = native("usr/bin/" + library.name)
    compiling = ["-S", "-m", "compileall", "-q", "-s", str(tree), "-x", _NOT_COMPILED]
    environment = {
        "PYTHONHOME": str(tree / "usr"),
        # Whoever keeps the bytecode of this machine's Python elsewhere does not mean the guest's.
        "PYTHONPYCACHEPREFIX": "",
    }
    commands.call([*interpreter, *compiling, *libraries], log=log, env=environment)


def _install_modules(series: Series, tree: Path, log: Path) -> None:
    loadable = modules(series).ensure() / "tree/lib/modules"
    commands.call(["cp", "-r", loadable, tree / "usr/lib/"], log=log)
    (version,) = loadable.iterdir()
    # Those who build an initramfs ask it what the kernel can.
    config = (kernel(series).ensure() / "config").read_bytes()
    _write(tree / "boot" / ("config-" + version.name), config, 0o644)


def furnish(tree: Path, log: Path) -> None:
    """Make a system that boots of unpacked packages: users, ssh, network, bytecode."""
    _make_users(tree, log)
    _configure(tree)
    _compile_python(tree, log)


def fill(series: Series, folder: Path) -> None:
    """Make directory/disk.raw."""
    log = folder / "build.log"
    tree = folder / "tree"
    tree.mkdir()
    archive = root_packages().ensure() / "root.tar"
    commands.call(["tar", "-xpf", archive, "-C", tree, "--exclude=./dev/*"], log=log)
    furnish(tree, log)
    _install_modules(series, tree, log)
    file_system = ["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(tree)]
    commands.call([*file_system, folder / "disk.raw", "1G"], log=log)
    commands.call(["rm", "-r", tree], log=log)


if __name__ == "__main__":
    fill(SERIES[sys.argv[1]], Path(sys.argv[2]))
