# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks that the defaults and the argument specs of each role say the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _problems(role: Path) -> list[str]:
    defaults = _load(role / "defaults/main.yml")
    options = _load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    problems = [f"{name} has a default and no specification" for name in defaults.keys() - options]
    for name, option in options.items():
        if option.get("required"):
            if name in defaults:
                problems.append(f"{name} is required and has a default")
        elif name not in defaults:
            problems.append(f"{name} is neither required nor among the defaults")
        # A null default is one that the specification leaves out.
        elif defaults[name] != option.get("default"):
            problems.append(
                f"{name} is {defaults[name]!r} in defaults/main.yml "
                f"and {option.get('default')!r} in meta/argument_specs.yml"
            )
    return [f"{role}: {problem}" for problem in problems]


def main() -> int:
    """Returns the exit status."""
    problems = [problem for role in sorted(Path("roles").iterdir()) for problem in _problems(role)]
    print("\n".join(problems))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
