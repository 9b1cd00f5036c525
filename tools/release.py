# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python tools/release.py VERSION

Makes a release: sets the version, writes the changelog, builds and verifies the package, commits
and tags. It pushes and publishes nothing. If it refuses or fails, it changes nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml
from stage import ROOT
from suite import not_passed

_BRANCH = "main"
_PACKAGE = ROOT / "build/package"
_GALAXY = ROOT / "galaxy.yml"
_CHANGELOGS = ROOT / "changelogs"


class RefusedError(Exception):
    """The reason why there is no release, and the remedy."""


def git(*words: str) -> str:
    """Run git, and return its output without the last newline."""
    done = subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.rstrip("\n")


def _numbers(version: str) -> tuple[int, ...]:
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise RefusedError(f"{version!r} is not a version. Set VERSION=1.2.3")
    return tuple(map(int, version.split(".")))


def _check(version: str) -> None:
    numbers = _numbers(version)
    changed = git("status", "--short")
    if changed:
        raise RefusedError(f"the working tree has uncommitted changes. Commit them:\n{changed}")
    branch = git("branch", "--show-current")
    if branch != _BRANCH:
        raise RefusedError(
            f"this is {branch or 'no branch'}; releases are made on {_BRANCH}: git switch {_BRANCH}"
        )
    released = _released()
    if released and numbers <= max(map(_numbers, released)):
        newest = max(released, key=_numbers)
        raise RefusedError(f"{version} is not newer than {newest}, which was released")
    if not list((_CHANGELOGS / "fragments").glob("*.y*ml")):
        raise RefusedError(
            "changelogs/fragments is empty. Add a fragment for what users notice (CONTRIBUTING.md)"
        )
    lacking = not_passed()
    if lacking:
        raise RefusedError(
            f"make test has not passed on this tree ({', '.join(lacking)}). Run make test"
        )


def _released() -> list[str]:
    listed = yaml.safe_load((_CHANGELOGS / "changelog.yaml").read_text())["releases"]
    tagged = git("tag", "--list", "[0-9]*.[0-9]*.[0-9]*").split()
    return [*listed, *tagged]


def _write(version: str) -> None:
    text = _GALAXY.read_text()
    before = yaml.safe_load(text)["version"]
    _GALAXY.write_text(text.replace(f"\nversion: {before}\n", f"\nversion: {version}\n"))
    for name in git("ls-files", "*.md").splitlines():
        page = ROOT / name
        page.write_text(
            page.read_text().replace(f"-vfio-{before}.tar.gz", f"-vfio-{version}.tar.gz")
        )
    _run("antsibull-changelog", "release")


def _verify() -> Path:
    """Return the package, after a check by Galaxy's importer and an installation."""
    _run("nox", "--sessions", "build-import-check")
    (archive,) = _PACKAGE.glob("*.tar.gz")
    return archive


def _run(*command: str) -> None:
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise RefusedError(f"{' '.join(command)} failed, as it says above")


def _put_back() -> None:
    """Discard all changes to the tree; it was clean, so that all of them are of this run."""
    git("reset", "--quiet", "--hard")
    git("clean", "--quiet", "-d", "--force", "--", "CHANGELOG.md", "changelogs")


def _release(version: str) -> Path:
    try:
        _write(version)
        archive = _verify()
        git("add", "--all")
        git("commit", "--quiet", "--message", f"Release {version}")
    except BaseException:
        _put_back()
        raise
    git("tag", "--annotate", "--message", f"Release {version}", version)
    return archive


def main(version: str) -> None:
    """Check that a release is possible, then make it."""
    try:
        _check(version)
        archive = _release(version)
    except RefusedError as error:
        sys.exit(f"release: {error}")
    print(f"{version} is committed and tagged, and its package is verified. To publish it:\n")
    print(f"  git push origin {_BRANCH} {version}")
    print(f"  ansible-galaxy collection publish {archive.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
