# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports a rollout that ends before it has reported itself, as on Ctrl-C.

Ansible runs no task after an interruption. But its process ends as others do, and has what tasks
recorded. SIGTERM, as of a CI system that cancels a job, and SIGHUP, as of a terminal that is lost,
would end it at once; they interrupt it as Ctrl-C does.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
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
        for number in (signal.SIGTERM, signal.SIGHUP):
            _interrupt_by(number)
    _watched[process] = hosts, hostvars


def _interrupt_by(number: signal.Signals) -> None:
    """Let this signal interrupt the run, unless it is ignored, as SIGHUP is below nohup."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        # Only the main thread may set one.
        with suppress(ValueError):
            signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # Workers of ansible-core are forks, and end as they would without this.
    if os.getpid() in _watched:
        signal.raise_signal(signal.SIGINT)
    else:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _report() -> None:
    if os.getpid() not in _watched:
        return
    # A second Ctrl-C must not prevent the results from being written.
    with suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    hosts, hostvars = _watched[os.getpid()]
    # Whatever it cannot read, write or print, the process ends for another reason.
    with suppress(Exception):
        given = without_facts(hostvars)
        lines = report(hosts, given)
        if lines:
            problems = write_results(hosts, given)
            Display().display("\n".join([*lines, *problems]))


def write_results(hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write the files of a rollout that was interrupted; return a sentence for each that fails."""
    texts = _texts([hostvars[host] for host in hosts])
    results = _rollout_result.results(_rollout_result.states(hosts, hostvars), texts)
    problems = []
    for path in texts["results"]:
        try:
            _result_files.write(path, results)
        except OSError as error:
            problems.append(_not_written(path, error))
    if texts["retry_file"]:
        try:
            _result_files.write_retry(texts["retry_file"], results.failed)
        except OSError as error:
            problems.append(_not_written(texts["retry_file"], error))
    return problems


def _not_written(path: str, error: OSError) -> str:
    return "The results cannot be written: %s (%s)." % (error.strerror, path)


def report(hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what to print; nothing if the rollout was reported, or has no name yet."""
    variables = [hostvars[host] for host in hosts]
    texts = _texts(variables)
    if not texts or any(given.get("rollout_is_reported") for given in variables):
        return []
    return ["", *_rollout_result.interruption(hosts, hostvars, texts)]


def _texts(variables: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the texts of the rollout, which each host that takes part has."""
    return next((given["rollout_texts"] for given in variables if given.get("rollout_texts")), {})
