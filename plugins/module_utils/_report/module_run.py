# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of a module that changes devices, from its options to its answer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable, Mapping

from .._ansible_module import create_module, fail
from .._apply.last_answer import Answer, LastAnswer, code_digest
from .._apply.run_lock import RunLock
from .._errors import PolicyError
from .._system.host import open_readers

if TYPE_CHECKING:
    from .._apply.reconcile import Outcome
    from .._model.request import Request


def run(
    name: str,
    spec: Mapping[str, Any],
    to_request: Callable[[Mapping[str, Any]], Request],
    to_result: Callable[[Outcome], dict[str, Any]],
    *,
    keeps_answer: bool = False,
) -> None:
    """Run the module of that name and end the process with its answer.

    ``to_request`` may raise PolicyError. A module that ``keeps_answer`` gives the last one again
    while all that it depends on is the same.
    """
    module = create_module(name, spec)
    timeout = module.params["timeout"]
    readers = open_readers(timeout)
    lock = RunLock(name, timeout)
    asked = {"module": name, "options": module.params, "kernel": os.uname().release}
    last = LastAnswer(lock, asked, code_digest() if keeps_answer else None)

    def find_answer() -> Answer:
        # The boundary: a run that gives the last answer again loads nothing of this.
        from . import (  # noqa: PLC0415
            state_module,
        )

        request = to_request(module.params)
        return state_module.find_answer(
            readers, lock, request, to_result, last, check_mode=module.check_mode
        )

    try:
        if timeout < 1:
            raise PolicyError("`timeout` must be 1 or more seconds")
        answer = last.find(*readers, check_mode=module.check_mode) or find_answer()
    except PolicyError as error:
        fail(module, error)
    finally:
        readers.sysfs.close()
    for sentence in answer.warnings:
        module.warn(sentence)
    module.exit_json(**answer.result)
