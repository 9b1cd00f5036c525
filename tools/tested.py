# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python tools/tested.py begin | end

Remembers in build/tested which tree of git has passed make test, for make release. What is not
committed is not remembered, nor is a tree that was changed while its tests ran.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BEGUN = ROOT / "build/testing"
_PASSED = ROOT / "build/tested"


def git(*words: str) -> str:
    """What git says to this, without the last line's end."""
    done = subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.rstrip("\n")


def committed_tree() -> str | None:
    """The working tree by git's hash, or None where it has what is not committed."""
    return None if git("status", "--porcelain") else git("rev-parse", "HEAD^{tree}")


def is_tested(tree: str) -> bool:
    """Whether make test has passed on this very tree."""
    return _PASSED.exists() and _PASSED.read_text() == tree


def _begin() -> None:
    _BEGUN.parent.mkdir(exist_ok=True)
    _PASSED.unlink(missing_ok=True)
    _BEGUN.write_text(committed_tree() or "")


def _end() -> None:
    tree = committed_tree()
    if tree and _BEGUN.exists() and _BEGUN.read_text() == tree:
        _PASSED.write_text(tree)
        print("this tree can be released")
    _BEGUN.unlink(missing_ok=True)


if __name__ == "__main__":
    {"begin": _begin, "end": _end}[sys.argv[1]]()
