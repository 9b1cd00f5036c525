# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the variables of the playbooks may be. Reads the paths of files that are to be written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import ROLLOUT_NAME
from ansible_collections.armfleet.vfio.plugins.plugin_utils._answers import printable
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import STATES
from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import without_facts

_FORMATS = ("html", "json", "csv", "prometheus")
_MODE = re.compile(r"0?[0-7]{3,4}|[ugoa]*[-+=][rwxX]*(,[ugoa]*[-+=][rwxX]*)*")
_LONGEST_VALUE = 200


class Requirement(NamedTuple):
    """What a variable must be, what it is if unset, and whether all hosts need the same value."""

    is_met: Callable[[Any], bool]
    sentence: str
    default: Any
    is_common: bool = True


def problem_of(name: str, value: Any) -> str | None:
    """Return a sentence for an invalid value of this variable, or None if it is valid."""
    requirement = REQUIREMENTS[name]
    if requirement.is_met(value):
        return None
    return "%s is %s. It must be %s." % (name, shown(value), requirement.sentence)


def problems_of(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> list[str]:
    """Return a sentence for each variable with an invalid value, or with unequal ones.

    A variable that is not set has the default of its playbook. Facts are ignored.
    """
    problems = []
    all_variables = without_facts(hostvars)
    # hostvars computes the variables of a host again for each read.
    variables = {host: all_variables[host] for host in hosts}
    for name in names:
        values = {host: given[name] for host, given in variables.items() if name in given}
        problems_by_host = {host: problem_of(name, value) for host, value in values.items()}
        wrong = [(host, problem) for host, problem in problems_by_host.items() if problem]
        texts = {shown(values.get(host, "")) for host in hosts}
        if wrong:
            host, problem = wrong[0]
            problems.append(problem if len(texts) == 1 else "%s (%s)" % (problem, host))
        elif len(texts) > 1 and REQUIREMENTS[name].is_common:
            problems.append("%s must be the same for all hosts. Give it with `-e`." % name)
    return problems


def shown(value: Any) -> str:
    """Return the value as JSON, on one line, in printable characters."""
    text = printable(json.dumps(value, default=str, ensure_ascii=False))
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _is_number(value: Any, least: int) -> bool:
    if isinstance(value, str):
        return re.fullmatch("[0-9]{1,9}", value, re.ASCII) is not None and int(value) >= least
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_wave(value: Any) -> bool:
    if isinstance(value, str) and value.endswith("%"):
        return _is_number(value[:-1], 1) and int(value[:-1]) <= 100
    return _is_number(value, 1)


def _are_waves(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_wave, value))
    return _is_wave(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or str(value).lower() in ("true", "false")


def _are_patterns(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_text, value))
    # A list on the command line that is not given as JSON is a text.
    return _is_text(value) and not value.lstrip().startswith("[")


def _is_rollout(value: Any) -> bool:
    is_name = isinstance(value, (str, int)) and not isinstance(value, bool)
    return is_name and ROLLOUT_NAME.fullmatch(str(value)) is not None


def _is_new_file(value: Any) -> bool:
    if not _is_text(value) or value.endswith("/"):
        return False
    path = _absolute(value)
    return path.parent.is_dir() and (path.is_file() or not os.path.lexists(path))


def _is_directory_path(value: Any) -> bool:
    """Return whether it is the path of a directory that exists or can be created."""
    if not _is_text(value):
        return False
    path = _absolute(value)
    return next(filter(os.path.lexists, (path, *path.parents))).is_dir()


def _absolute(path: str) -> Path:
    return Path(os.path.realpath(path))


def _is_list_of(choices: Sequence[str], least: int) -> Callable[[Any], bool]:
    def is_met(value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) >= least
            and all(isinstance(item, str) and item in choices for item in value)
        )

    return is_met


REQUIREMENTS = {
    "rollout_waves": Requirement(
        _are_waves,
        'a number of hosts from 1, a percentage from "1%" to "100%", or a list of these',
        [1, "10%", "50%", "100%"],
    ),
    "rollout_max_failures": Requirement(
        lambda value: _is_number(value, 0), "the number of hosts that may fail, 0 or more", 0
    ),
    "passthrough_rollout": Requirement(
        _is_rollout,
        "up to 64 letters, digits and . _ : + -, beginning with a letter or a digit",
        None,
    ),
    "reboot_timeout": Requirement(
        lambda value: _is_number(value, 1), "a number of seconds, 1 or more", 600, is_common=False
    ),
    "drift_file": Requirement(
        _is_new_file,
        "the path of a file in a directory that exists on the control node",
        "drift.jsonl",
    ),
    "drift_accepted": Requirement(
        _is_list_of(STATES, 0),
        "a list of states from %s" % ", ".join(STATES),
        [],
        is_common=False,
    ),
    "candidates_only": Requirement(
        _are_patterns,
        "a pattern, such as crypto, several with commas between them, or a list of patterns",
        [],
    ),
    "candidates_unsafe_noiommu": Requirement(_is_flag, "true or false", default=False),
    "candidates_format": Requirement(
        lambda value: value in ("text", "json"), "text or json", "text"
    ),
    "report_path": Requirement(
        _is_directory_path,
        "the path of a directory on the control node that exists or can be created",
        "fleet-report",
    ),
    "report_formats": Requirement(
        _is_list_of(_FORMATS, 1),
        "a list of one or more of %s" % ", ".join(_FORMATS),
        list(_FORMATS),
    ),
    "report_title": Requirement(_is_text, "a text", "Devices of the fleet"),
    "report_mode": Requirement(
        lambda value: isinstance(value, str) and _MODE.fullmatch(value) is not None,
        'a string with the mode of a file, such as "0644"',
        "0600",
    ),
}
