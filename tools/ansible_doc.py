# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks that ansible-doc shows every module and filter, all of each, and every role."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

COLLECTION = "armfleet.vfio"


def _documented() -> dict[str, Any]:
    dump = subprocess.run(
        ["ansible-doc", "--metadata-dump", COLLECTION], stdout=subprocess.PIPE, check=True
    )
    return json.loads(dump.stdout)["all"]


def _present() -> dict[str, set[str]]:
    return {
        "module": {path.stem for path in Path("plugins/modules").glob("*.py")},
        "filter": {path.stem for path in Path("plugins/filter").glob("*.py")},
        "role": {path.name for path in Path("roles").iterdir()},
    }


def main() -> int:
    """Returns the exit status."""
    documented = _documented()
    problems = [
        f"ansible-doc does not know the {kind} {name}"
        for kind, names in _present().items()
        for name in sorted(names)
        if f"{COLLECTION}.{name}" not in documented[kind]
    ]
    for plugin in [*documented["module"].values(), *documented["filter"].values()]:
        missing = {"doc", "examples", "return"} - {part for part in plugin if plugin[part]}
        problems += [f"{plugin['doc']['name']} has no {part}" for part in sorted(missing)]
    print("\n".join(problems))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
