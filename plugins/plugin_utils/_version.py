# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The version of this collection, as it was installed or as a checkout has it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

_COLLECTION = Path(__file__).parents[2]


def version(collection: Path = _COLLECTION) -> str:
    """Such as 1.2.3; a checkout has a galaxy.yml and what was installed a MANIFEST.json."""
    manifest = collection / "MANIFEST.json"
    if manifest.is_file():
        return str(json.loads(manifest.read_text())["collection_info"]["version"])
    return str(yaml.safe_load((collection / "galaxy.yml").read_text())["version"])
