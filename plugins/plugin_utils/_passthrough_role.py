# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the role passthrough: named in messages, and looked for in variables. Pure."""

from __future__ import annotations

import difflib
import re
from typing import Any, Mapping

from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE

NAME = "armfleet.vfio.passthrough"
PREFIX = "passthrough_"
REGISTERED = "passthrough_applied"
# The options of host_policy, each an option of the role with the prefix, and what it is if unset.
DEFAULTS: dict[str, Any] = {
    "allow": [],
    "devices": None,
    "driverctl": "refuse",
    "initramfs": "auto",
    "persistent": True,
    "reset_required": None,
    "rollback_overtaken": False,
    "rollout": None,
    "rollout_by": None,
    "runtime": True,
    "state": "present",
    "timeout": 30,
    "unsafe_interrupts": None,
    "unsafe_noiommu": None,
    "unsafe_vfio_mode": False,
    "vfio_group": None,
    "vfio_mode": None,
}
# What the playbooks read or set, and what the role registers.
_OTHERS = (
    "passthrough_hosts",
    "passthrough_is_planning",
    "passthrough_plan",
    "passthrough_planned",
    "passthrough_rollout_name",
    REGISTERED,
)
_OPTIONS = "|".join(DEFAULTS)
_MARKED = re.compile("`(?=(?:%s)\\b)" % _OPTIONS)
# AnsibleModule's own sentences; the role's own specification answers for all others of them.
_ARGUMENT_SPEC = re.compile(
    "(?<=found in )(?=devices\\b)|^(?=state is \\w+ but)|(?<=are missing: )(?=(?:%s)$)" % _OPTIONS,
    re.MULTILINE,
)
_BOOLEAN = re.compile("true|false|yes|no|on|off", re.IGNORECASE)
# Values by which a variable without the prefix is surely meant for the role. A timeout, a state
# that others have too, a list of devices or a name of a rollout may be anybody's.
_VALUES = {
    "allow": re.compile("|".join(ACCEPTABLE)),
    "driverctl": re.compile("refuse|take_over"),
    "initramfs": re.compile("auto|always|never"),
    "persistent": _BOOLEAN,
    "reset_required": re.compile(".*"),
    "rollback_overtaken": _BOOLEAN,
    "runtime": _BOOLEAN,
    "state": re.compile("previous|finished"),
    "unsafe_interrupts": re.compile(".*"),
    "unsafe_noiommu": re.compile(".*"),
    "unsafe_vfio_mode": re.compile(".*"),
    "vfio_group": re.compile(".*"),
    "vfio_mode": re.compile(".*"),
}


def with_prefix(text: str) -> str:
    """Return a message with the prefix at each option of host_policy that it has in backquotes."""
    return _ARGUMENT_SPEC.sub(PREFIX, _MARKED.sub("`" + PREFIX, text))


def translated(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of host_policy with the role's names in its sentences."""
    translated = {key: _translated_value(value) for key, value in result.items()}
    if translated.get("msg") != result.get("msg"):
        # From 2.19 on ansible-core shows what it has kept of a failure in place of the sentence.
        translated.pop("exception", None)
    return translated


def _translated_value(value: Any) -> Any:
    if isinstance(value, str):
        return with_prefix(value)
    if isinstance(value, list):
        return [with_prefix(item) if isinstance(item, str) else item for item in value]
    return value


def ignored_variables(variables: Mapping[str, Any]) -> list[str]:
    """Return a warning for each variable of a host that was meant for the role but is not read.

    The values in ``variables`` are as they were given, with their templates.
    """
    options = [PREFIX + name for name in DEFAULTS]
    templates = " ".join(str(variables[name]) for name in variables if name.startswith(PREFIX))
    used = set(re.findall(r"\w+", templates))
    warnings = []
    for name in sorted(variables):
        if name in used or name in options or name in _OTHERS:
            continue
        if name.startswith(PREFIX):
            similar = difflib.get_close_matches(name, options, 1, 0.85)
            meant = "Did you mean `%s`?" % similar[0] if similar else "Remove or rename it."
        elif _is_meant_for_role(name, variables):
            meant = "Set `%s` instead." % (PREFIX + name)
        else:
            continue
        warnings.append(
            "Variable %s is ignored: the role %s has no such option. %s" % (name, NAME, meant)
        )
    return warnings


def _is_meant_for_role(name: str, variables: Mapping[str, Any]) -> bool:
    """Return whether a variable without the prefix is certainly meant for the role."""
    value = variables[name]
    if name not in _VALUES or value is None:
        return False
    if variables.get(PREFIX + name, DEFAULTS[name]) != DEFAULTS[name]:
        return False
    values = value if name == "allow" and isinstance(value, list) else [value]
    return bool(values) and all(_VALUES[name].fullmatch(str(item)) for item in values)
