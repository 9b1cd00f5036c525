# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports a rollout that ends before it has reported itself, as on Ctrl-C.

Ansible runs no task after an interruption. But its process ends as others do, and has what tasks
recorded.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ansible.utils.display import Display

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _result_files, _rollout_result
from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import without_facts

# Of the last rollout of this process: its hosts, and their variables.
_watched: dict[int, tuple[Sequence[str], Mapping[str, Mapping[str, Any]]]] = {}


def watch(hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a report at the end of this process unless the rollout of ``hosts`` has ended."""
    process = os.getpid()
    if process not in _watched:
        atexit.register(_report)
    _watched[process] = hosts, hostvars


def _report() -> None:
    # Workers of ansible-core are forks.
    if os.getpid() not in _watched:
        return
    hosts, hostvars = _watched[os.getpid()]
    # Whatever it cannot read or print, the process ends for another reason.
    with suppress(Exception):
        given = without_facts(hostvars)
        lines = report(hosts, given)
        if lines:
            Display().display("\n".join(lines))
            write_results(hosts, given)


def write_results(hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the files of a rollout that was interrupted; OSError if that fails."""
    texts = _texts([hostvars[host] for host in hosts])
    results = _rollout_result.results(_rollout_result.states(hosts, hostvars), texts)
    for path in texts["results"]:
        _result_files.write(path, results)
    if texts["retry_file"]:
        _result_files.write_retry(texts["retry_file"], results.failed)


def report(hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what to print; nothing if the rollout was reported, or has no name yet."""
    variables = [hostvars[host] for host in hosts]
    texts = _texts(variables)
    if not texts or any(given.get("rollout_is_reported") for given in variables):
        return []
    states = _rollout_result.states(hosts, hostvars)
    return ["", *_rollout_result.interruption(states, texts)]


def _texts(variables: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the texts of the rollout, which each host that takes part has."""
    return next((given["rollout_texts"] for given in variables if given.get("rollout_texts")), {})
