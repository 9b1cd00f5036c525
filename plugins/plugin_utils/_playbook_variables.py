# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the variables of the playbooks may be. Reads the paths of files that are to be written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import ROLLOUT_NAME
from ansible_collections.armfleet.vfio.plugins.plugin_utils._answers import printable
from ansible_collections.armfleet.vfio.plugins.plugin_utils._file_modes import is_mode
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import STATES
from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import without_facts
from ansible_collections.armfleet.vfio.plugins.plugin_utils._result_files import SUFFIXES

_FORMATS = ("html", "json", "csv", "prometheus")
_LONGEST_VALUE = 200
_DURATION = re.compile(r"([0-9]{1,9})\s*(s|m|min|h)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}
# Between the items of a list that is given as a text: [1, "10%"], 1,10% or a line for each.
_BETWEEN_ITEMS = re.compile(r"[\s,;]+")
_FLAGS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def _as_given(value: Any) -> Any:
    return value


class Requirement(NamedTuple):
    """What a variable must be, what it is if unset, and whether all hosts need the same value.

    ``meaning`` returns what the user meant by a value, such as a list by a text with commas, and a
    value that nobody can mean as it is. If ``may_be_empty``, null and an empty text mean unset, as
    in the answer to an optional question of a survey.
    """

    is_met: Callable[[Any], bool]
    sentence: str
    default: Any
    is_common: bool = True
    meaning: Callable[[Any], Any] = _as_given
    may_be_empty: bool = False

    def is_unset(self, value: Any) -> bool:
        is_empty = value is None or (isinstance(value, str) and not value.strip())
        return self.may_be_empty and is_empty


def meaning_of(name: str, value: Any) -> Any:
    """Return what the user meant by this value of a variable, its default if that is unset."""
    requirement = REQUIREMENTS[name]
    return requirement.default if requirement.is_unset(value) else requirement.meaning(value)


def problem_of(name: str, value: Any) -> str | None:
    """Return a sentence for an invalid value of this variable, or None if it is valid."""
    requirement = REQUIREMENTS[name]
    if requirement.is_unset(value) or requirement.is_met(requirement.meaning(value)):
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
        texts = {
            shown(meaning_of(name, values[host]) if host in values else REQUIREMENTS[name].default)
            for host in hosts
        }
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
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_amount(value: Any, least: int) -> bool:
    """Return whether it is a number or a percentage, ``least`` or more."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}%", value, re.ASCII):
        return least <= int(value[:-1]) <= 100
    return _is_number(value, least)


def _are_waves(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_amount(item, 1) for item in value)


def _amount(value: Any) -> Any:
    """Return the number or the percentage of a text."""
    if not isinstance(value, str):
        return value
    text = re.sub(r"\s+%$", "%", value.strip())
    return int(text) if re.fullmatch("[0-9]{1,9}", text, re.ASCII) else text


def _items(value: Any) -> Any:
    """Return the items of a list that is given as a text."""
    if not isinstance(value, str):
        return value
    text = value.strip().removeprefix("[").removesuffix("]")
    return [item.strip("'\"") for item in _BETWEEN_ITEMS.split(text) if item]


def _waves(value: Any) -> Any:
    if isinstance(value, str):
        value = _items(re.sub(r"\s+%", "%", value))
    return [_amount(item) for item in (value if isinstance(value, list) else [value])]


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    duration = _DURATION.fullmatch(value.strip())
    return int(duration[1]) * _SECONDS[duration[2]] if duration else _amount(value)


def _flag(value: Any) -> Any:
    return _FLAGS.get(str(value).strip().lower(), value)


def _name(value: Any) -> Any:
    # YAML has numbers and dates where a user wrote a name.
    if isinstance(value, datetime):
        return value
    is_text = isinstance(value, (str, int, date)) and not isinstance(value, bool)
    return str(value).strip() if is_text else value


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
    return isinstance(value, str) and ROLLOUT_NAME.fullmatch(value) is not None


def _is_new_file(value: Any) -> bool:
    if not _is_text(value) or value.endswith("/"):
        return False
    path = _absolute(value)
    return path.parent.is_dir() and (path.is_file() or not os.path.lexists(path))


def _are_result_files(value: Any) -> bool:
    return isinstance(value, list) and all(
        _is_new_file(path) and path.endswith(SUFFIXES) for path in value
    )


def _paths(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return [path.strip() for path in value.split(",")] if isinstance(value, str) else value


def result_files(values: Mapping[str, Any]) -> list[str]:
    """Return the files for programs that the variables name, as far as they can be such files."""
    return [
        path
        for name, value in values.items()
        if name.endswith("_results") and problem_of(name, value) is None
        for path in meaning_of(name, value)
    ]


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
        meaning=_waves,
        may_be_empty=True,
    ),
    "rollout_max_failures": Requirement(
        lambda value: _is_amount(value, 0),
        'the number of hosts that may fail, 0 or more, or a percentage from "0%" to "100%"',
        0,
        meaning=_amount,
        may_be_empty=True,
    ),
    "rollout_soak": Requirement(
        lambda value: _is_number(value, 0),
        "a number of seconds, 0 or more, or a text such as 10m or 1h",
        0,
        meaning=_seconds,
        may_be_empty=True,
    ),
    "rollout_confirm": Requirement(
        lambda value: isinstance(value, bool),
        "true or false",
        default=True,
        meaning=_flag,
        may_be_empty=True,
    ),
    "passthrough_rollout": Requirement(
        _is_rollout,
        "up to 64 letters, digits and . _ : + - without blanks, beginning with a letter or a digit",
        None,
        meaning=_name,
        may_be_empty=True,
    ),
    "passthrough_rollback_overtaken": Requirement(_is_flag, "true or false", default=False),
    "history_format": Requirement(lambda value: value in ("text", "json"), "text or json", "text"),
    "rollout_results": Requirement(
        _are_result_files,
        "the path of a file that ends in .json or .xml, in a directory that exists on the control "
        "node, or a list of such paths",
        [],
        meaning=_paths,
        may_be_empty=True,
    ),
    "rollout_retry_file": Requirement(
        _is_new_file,
        "the path of a file in a directory that exists on the control node",
        None,
        may_be_empty=True,
    ),
    "reboot_timeout": Requirement(
        lambda value: _is_number(value, 1),
        "a number of seconds, 1 or more, or a text such as 10m or 1h",
        600,
        is_common=False,
        meaning=_seconds,
        may_be_empty=True,
    ),
    "passthrough_plan": Requirement(
        lambda value: _is_text(value) and _absolute(value).is_file(),
        "the path of a plan file on the control node, as armfleet.vfio.plan writes it",
        None,
        may_be_empty=True,
    ),
    "plan_file": Requirement(
        _is_new_file,
        "the path of a file in a directory that exists on the control node",
        None,
        may_be_empty=True,
    ),
    "plan_boot_files": Requirement(
        lambda value: isinstance(value, bool),
        "true or false",
        default=False,
        meaning=_flag,
        may_be_empty=True,
    ),
    "drift_file": Requirement(
        _is_new_file,
        "the path of a file in a directory that exists on the control node",
        "drift.jsonl",
    ),
    "drift_fail_outdated": Requirement(
        lambda value: isinstance(value, bool),
        "true or false",
        default=False,
        meaning=_flag,
        may_be_empty=True,
    ),
    "drift_results": Requirement(
        _are_result_files,
        "the path of a file that ends in .json or .xml, in a directory that exists on the control "
        "node, or a list of such paths",
        [],
        meaning=_paths,
        may_be_empty=True,
    ),
    "drift_retry_file": Requirement(
        _is_new_file,
        "the path of a file in a directory that exists on the control node",
        None,
        may_be_empty=True,
    ),
    "drift_accepted": Requirement(
        _is_list_of(STATES, 0),
        "a list of states from %s" % ", ".join(STATES),
        [],
        is_common=False,
        meaning=_items,
        may_be_empty=True,
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
        meaning=_items,
        may_be_empty=True,
    ),
    "report_title": Requirement(_is_text, "a text", "Devices of the fleet"),
    "report_mode": Requirement(
        is_mode,
        'a string with the mode of a file, such as "0644"',
        "0600",
    ),
}
