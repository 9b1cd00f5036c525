# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts drivers/vfio of a kernel's own source into the current directory, as DKMS calls it.

The role armfleet.vfio.vfio_modules installs this program. It needs Python 3.8 and Debian's dpkg,
apt and tar. The source is that of the package linux-source whose version equals that of the
kernel's headers: the installed package, or else the one that apt downloads and verifies. What was
taken is kept, so that the modules of an older kernel can be built again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple, Sequence

_CACHE = Path("/var/cache/armfleet-vfio-modules")
_ARCHIVES = Path("/usr/src")
# As uname -r prints it, and as Debian's policy has versions; neither can be a path or an option.
_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+~-]*")
_VERSION = re.compile(r"([0-9]+\.[0-9]+)[0-9A-Za-z.+~-]*")
# The states in which dpkg has the files of a package in place: it may be configured later.
_UNPACKED = ("installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending")
_WANTED = "drivers/vfio"


class SourceError(Exception):
    """Why there is no source for this kernel, in one sentence."""


class Source(NamedTuple):
    """A source package, by its name and version."""

    package: str
    version: str

    @property
    def archive(self) -> str:
        """Return the name of the file in the package."""
        return self.package + ".tar.xz"

    @property
    def member(self) -> str:
        """Return the path of the directory in the archive."""
        return "%s/%s" % (self.package, _WANTED)


def _installed_version(package: str) -> str | None:
    """Return the version of a package whose files are in place."""
    words = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}\n", package]
    answer = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    )
    state, _space, version = answer.stdout.strip().partition(" ")
    return version if state in _UNPACKED and _VERSION.fullmatch(version) else None


def source_of(release: str) -> Source:
    """Return the source package of a kernel, by the version of its headers."""
    version = _installed_version("linux-headers-" + release)
    match = _VERSION.fullmatch(version or "")
    if version is None or match is None:
        raise SourceError(
            "The headers of kernel %s are not those of a Debian package, so there is no source "
            "package for it." % release
        )
    return Source("linux-source-" + match.group(1), version)


def _extract(archive: Path, member: str, target: Path) -> None:
    """Unpack one directory of an archive as TARGET/vfio, as far as its last component goes."""
    words = ["tar", "--extract", "--no-same-owner", "--file", str(archive)]
    words += ["--directory", str(target), "--strip-components=%d" % member.count("/"), member]
    _run(words)


def _run(words: Sequence[str]) -> None:
    try:
        subprocess.run(words, stdin=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SourceError("%s failed: %s." % (words[0], error)) from None


def _is_intact(source: Source) -> bool:
    """Return whether the installed archive is what the package contained."""
    words = ["dpkg", "--verify", source.package]
    answer = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    return answer.returncode == 0 and not answer.stdout.strip()


def _download(source: Source, directory: Path) -> Path:
    """Return the archive of a package that apt has downloaded and verified."""
    request = "%s=%s" % (source.package, source.version)
    words = ["apt-get", "--option=APT::Sandbox::User=root", "download", request]
    answer = subprocess.run(words, cwd=directory, stdin=subprocess.DEVNULL, check=False)
    packages = list(directory.glob("*.deb"))
    if answer.returncode or len(packages) != 1:
        raise SourceError(
            "%s %s, the source of this kernel, is neither installed nor can apt download it. "
            "Install it, or upgrade the kernel and reboot." % source
        )
    _run(["dpkg-deb", "--extract", str(packages[0]), str(directory / "package")])
    packages[0].unlink()
    return directory / "package/usr/src" / source.archive


def take(source: Source, target: Path) -> None:
    """Put drivers/vfio of the source into ``target``, and keep a copy of it."""
    kept = _CACHE / ("%s.tar" % source.version)
    if kept.is_file():
        _extract(kept, "vfio", target)
        return
    if _installed_version(source.package) == source.version:
        if not _is_intact(source):
            raise SourceError(
                "/usr/src/%s is not as the package %s %s contained it. Reinstall the package."
                % (source.archive, *source)
            )
        _extract(_ARCHIVES / source.archive, source.member, target)
    else:
        _CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Not in /tmp, which may be in memory: this needs 300 MB for a moment.
        with tempfile.TemporaryDirectory(dir=_CACHE) as directory:
            _extract(_download(source, Path(directory)), source.member, target)
    _keep(target, kept)


def _keep(target: Path, kept: Path) -> None:
    kept.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    for copy in kept.parent.glob("*.tar"):
        if not _is_needed(copy.stem):
            copy.unlink()
    unfinished = kept.with_suffix(".unfinished")
    _run(["tar", "--create", "--file", str(unfinished), "--directory", str(target), "vfio"])
    unfinished.replace(kept)


def _is_needed(version: str) -> bool:
    """Return whether headers of that version are installed."""
    words = ["dpkg-query", "--show", "--showformat=${Version}\n", "linux-headers-*"]
    answer = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    )
    return version in answer.stdout.split()


def main(arguments: Sequence[str]) -> int:
    """Put the source into the current directory, or print why there is none."""
    if len(arguments) != 1:
        sys.stderr.write("Usage: take_source.py RELEASE, as uname -r prints it\n")
        return 2
    (release,) = arguments
    # Neither a build's language nor a file of its user changes what the programs print.
    os.environ["LC_ALL"] = "C.UTF-8"
    try:
        if not _RELEASE.fullmatch(release):
            raise SourceError("%r is not the release of a kernel." % release)
        shutil.rmtree("vfio", ignore_errors=True)
        take(source_of(release), Path.cwd())
    except SourceError as error:
        sys.stderr.write("take_source.py: %s\n" % error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
