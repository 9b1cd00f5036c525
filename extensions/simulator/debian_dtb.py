# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gets the .dtb files of Debian's arm64 kernel, on a machine of any architecture, as any user.

mmdebstrap runs apt with lists of its own, so that neither the machine's sources nor its
architectures change. Packages are verified by debian-archive-keyring.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from .errors import SimulatorError
from .lines import quoted

SUITE = "trixie"
# linux-image-arm64 is empty; it depends on the current kernel.
_DOWNLOAD = (
    'cd "$ARMFLEET_DOWNLOADS" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get'
    " -o APT::Sandbox::User=root download"
    " '?reverse-depends(?exact-name(linux-image-arm64))'"
)
_TREES = "./usr/lib/linux-image-*"
_PROGRAMS = ("mmdebstrap", "apt-get", "dpkg-deb", "tar")
_MOST_SHOWN = 10


def cache(suite: str) -> Path:
    """Return the directory of the .dtb files of a suite."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "armfleet-vfio" / f"debian-dtb-{suite}"


def boards(suite: str = SUITE) -> list[str]:
    """Return the names of all boards, such as amd/amd-overdrive; at first they are downloaded."""
    if not re.fullmatch(r"[a-z]+", suite):
        raise SimulatorError(f"{quoted(suite)} is not the name of a Debian suite")
    directory = cache(suite)
    if not directory.is_dir():
        _download(suite, directory)
    paths = sorted(directory.rglob("*.dtb"))
    return [str(path.relative_to(directory).with_suffix("")) for path in paths]


def find(board: str, suite: str = SUITE) -> Path:
    """Return the file of a board, named with or without its maker and ".dtb"."""
    names = boards(suite)
    asked = re.sub(r"\.dtb\Z", "", board)
    matching = [name for name in names if asked in (name, PurePosixPath(name).name)]
    if len(matching) != 1:
        raise SimulatorError(_no_board(asked, matching, names))
    return cache(suite) / f"{matching[0]}.dtb"


def _no_board(asked: str, matching: Sequence[str], names: Sequence[str]) -> str:
    if matching:
        return f"{quoted(asked)} is the name of {' and '.join(matching)}"
    similar = [name for name in names if asked.lower() in name]
    if not similar:
        by_name = {PurePosixPath(name).name: name for name in names}
        similar = [by_name[name] for name in difflib.get_close_matches(asked, by_name)]
    message = f"Debian's kernel has no device tree {quoted(asked)}"
    if not similar:
        return f"{message}; without a name, this command lists all {len(names)}"
    more = f" and {len(similar) - _MOST_SHOWN} more" if len(similar) > _MOST_SHOWN else ""
    return f"{message}; similar: {', '.join(similar[:_MOST_SHOWN])}{more}"


def _download(suite: str, directory: Path) -> None:
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_path()) is None]
    if missing:
        raise SimulatorError(
            f"{' and '.join(missing)} is missing. Install the packages of "
            "extensions/molecule/debian-packages.txt"
        )
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".debian-dtb-", dir=directory.parent) as work:
            _fetch_package(suite, Path(work))
            _report("Unpacking the device trees")
            _unpack(Path(work)).replace(directory)
    except OSError as error:
        raise SimulatorError(f"Cannot write {directory}: {error.strerror}") from None


def _fetch_package(suite: str, work: Path) -> None:
    argv = ["mmdebstrap", "--mode=chrootless", "--variant=custom", "--arch=arm64"]
    # Nothing for arm64 is executed. A mirror that lags behind is good enough.
    argv += ["--skip=check/qemu", '--aptopt=Acquire::Check-Valid-Until "false"']
    argv += [f"--customize-hook={_DOWNLOAD}", suite, os.devnull, *mirror()]
    environment = {
        **os.environ,
        "PATH": _path(),
        "TMPDIR": str(work),
        "ARMFLEET_DOWNLOADS": str(work),
    }
    _report(f"Reading the packages of Debian {suite} for arm64 (about 10 MB)")
    errors: list[str] = []
    with subprocess.Popen(
        argv,
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as running:
        for line in running.stdout or ():
            size = re.match(r"Get:1 .* \[([0-9.,]+ MB)\]$", line)
            if size and "linux-image" in line:
                _report(f"Downloading the kernel's package ({size.group(1)})")
            errors += [line.strip()] if line.startswith("E:") else []
    if running.returncode:
        reason = quoted(errors[0])[1:-1] if errors else "mmdebstrap failed"
        raise SimulatorError(f"Cannot get the kernel of Debian {suite}: {reason}")


def _unpack(work: Path) -> Path:
    """Return the directory with a directory for each maker."""
    package = next(work.glob("linux-image-*.deb"), None)
    if package is None:
        raise SimulatorError("mmdebstrap downloaded no kernel")
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", package],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as archive:
        tar = ["tar", "-x", "-C", str(work), "--no-same-owner", "--wildcards", _TREES]
        unpacked = subprocess.run(tar, stdin=archive.stdout, stderr=subprocess.DEVNULL, check=False)
    trees = next(work.glob(_TREES[2:]), None)
    if unpacked.returncode or archive.returncode or trees is None:
        raise SimulatorError(f"Cannot unpack {package.name}")
    return trees


def mirror() -> list[str]:
    """Return the Debian archive that this machine uses; empty lets mmdebstrap take its default."""
    chosen = os.environ.get("ARMFLEET_DEBIAN_MIRROR")
    if chosen:
        return [chosen]
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(LABEL) $(SITE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    labelled = (line.partition(" ") for line in targets.splitlines())
    return [site for label, _space, site in labelled if label == "Debian"][:1]


def _path() -> str:
    """Return PATH, with the directories of system programs that users may not have in it."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _report(step: str) -> None:
    print(f"simulator: {step}", file=sys.stderr, flush=True)
