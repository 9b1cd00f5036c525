# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module is asked, as a digest by which a host knows the same request again."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import ROLLOUT_NAME

_PLUGINS = Path(__file__).parent.parent


def request_digest(module: str, options: Mapping[str, Any]) -> str | None:
    """Return a SHA-256 in hexadecimal digits; None if the host never keeps the answer.

    ``options`` are those of the task, templated.
    """
    asked = _ASKED.get(module, lambda _options: None)(options)
    if asked is None:
        return None
    try:
        content = json.dumps([module, asked, code_digest()], sort_keys=True)
    except (TypeError, ValueError):
        return None
    return hashlib.sha256(content.encode()).hexdigest()


def _asked_of_policy(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without what only a run that changes something writes down."""
    asked = {key: value for key, value in options.items() if key != "rollout_by"}
    rollout = asked.get("rollout")
    is_name = isinstance(rollout, str) and ROLLOUT_NAME.fullmatch(rollout)
    if is_name and asked.get("state", "present") == "present":
        asked["rollout"] = True
    return asked


def _asked_of_inspection(options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the options, unless they ask who uses the devices: no file says that."""
    is_without_users = options.get("candidates") is False and options.get("in_use") is False
    return options if is_without_users else None


_ASKED = {"host_policy": _asked_of_policy, "device_info": _asked_of_inspection}


@functools.cache
def code_digest() -> str:
    """Return a digest of the files that modules can be made of."""
    digest = hashlib.sha256()
    for path in sorted(_PLUGINS.glob("module*/**/*.py")):
        name = path.relative_to(_PLUGINS).as_posix()
        content = path.read_bytes()
        digest.update(b"%s %d\n" % (name.encode(), len(content)))
        digest.update(content)
    return digest.hexdigest()
