# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs every gate on the staged collection, two at a time, and says how each of them went."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from ansible_test._internal.python_requirements import get_venv_packages

_BUILD = Path.cwd().parents[2]
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "armfleet-vfio"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_ABREAST = 2

# What ansible-test would download from a host of its own.
_GET_PIP = """\
import subprocess
import sys

subprocess.run([sys.executable, "-m", "ensurepip"], check=True)
"""


class Gate(NamedTuple):
    """Commands that must succeed, one after the other."""

    name: str
    commands: Sequence[Sequence[str]]
    environment: Mapping[str, str] = {}


class Verdict(NamedTuple):
    """What came of a gate."""

    gate: Gate
    seconds: float
    is_passed: bool
    output: str


def _ansible_test_environment() -> dict[str, str]:
    """A home of its own, so that the user's is not given our way to get pip."""
    home = _CACHE / "ansible-test"
    version = get_venv_packages(SimpleNamespace(version=_PYTHON))["pip"]
    script = home / ".ansible/test/cache" / f"get_pip_{version.replace('.', '_')}.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(_GET_PIP)
    return {
        "HOME": str(home),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
        "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config"),
        # Without it git is asked for the files, and git ignores the copy.
        "ANSIBLE_TEST_CONTENT_ROOT": str(Path.cwd()),
        "PATH": os.pathsep.join([*_other_pythons(), os.environ["PATH"]]),
    }


def _other_pythons() -> list[str]:
    """Folders of the interpreters that pyenv keeps; its own shims would only run some of them."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    own = str(Path(sys.executable).parent)
    return [own, *(str(path) for path in sorted(root.glob("versions/3.*/bin")))]


def _gates() -> list[Gate]:
    """The slow ones first, so that none of them is left over at the end.

    Of the sanity tests compile and import run on each Python that is there, the others on ours.
    """
    sanity = ["ansible-test", "sanity", "--color", "no"]
    on_one = ["--python", _PYTHON, "--skip-test", "compile", "--skip-test", "import"]
    on_each = ["--test", "compile", "--test", "import"]
    docs = ["antsibull-docs", "lint-collection-docs", "--plugin-docs"]
    references = ["--validate-collection-refs", "all", "--disallow-unknown-collection-refs"]
    scripts = ["tools/setup", "tests/simulator/ssh", "extensions/molecule/image", ".ci/run"]
    return [
        Gate(
            "ansible-test sanity",
            [[*sanity, *on_one], [*sanity, *on_each]],
            _ansible_test_environment(),
        ),
        Gate("ansible-lint", [["ansible-lint", "--nocolor"]]),
        Gate("unit tests", [["pytest", "tests/unit"]]),
        Gate("simulated machines", [["pytest", "tests/simulated"]]),
        Gate("package", [["python", "tools/package.py", str(_BUILD / "package")]]),
        Gate("antsibull-docs", [[*docs, *references, "."]]),
        Gate("mypy", [["mypy"]]),
        Gate("ansible-doc", [["python", "tools/ansible_doc.py"]]),
        Gate("antsibull-changelog", [["antsibull-changelog", "lint"]]),
        Gate("yamllint", [["yamllint", "--strict", "."]]),
        Gate("shellcheck", [["shellcheck", *scripts]]),
        Gate("role defaults", [["python", "tools/role_defaults.py"]]),
        Gate("ruff", [["ruff", "check"], ["ruff", "format", "--check"]]),
    ]


def _run(gate: Gate) -> Verdict:
    began = time.monotonic()
    output = ""
    is_passed = True
    for command in gate.commands:
        done = subprocess.run(
            command,
            env={**os.environ, **gate.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        output += done.stdout
        is_passed = is_passed and done.returncode == 0
    return Verdict(gate, time.monotonic() - began, is_passed, output)


def main() -> int:
    """Returns the exit status."""
    verdicts: dict[str, Verdict] = {}
    with ThreadPoolExecutor(_ABREAST) as executor:
        for future in as_completed([executor.submit(_run, gate) for gate in _gates()]):
            verdict = future.result()
            verdicts[verdict.gate.name] = verdict
            word = "ok" if verdict.is_passed else "FAILED"
            print(f"{verdict.gate.name:20}{verdict.seconds:6.1f} s  {word}", flush=True)
            if not verdict.is_passed:
                print(verdict.output, flush=True)
    failed = [name for name, verdict in verdicts.items() if not verdict.is_passed]
    if failed:
        print(f"failed: {', '.join(failed)}")
    for name in ("unit tests", "simulated machines"):
        print(f"{name}: {verdicts[name].output.rstrip().rpartition(chr(10))[2].strip('= ')}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
