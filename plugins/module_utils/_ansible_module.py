# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""AnsibleModule as all modules of this collection use it."""

from __future__ import annotations

import os
import sys
from typing import Any, Mapping, NoReturn, Sequence

from ansible.module_utils.basic import AnsibleModule

from . import _text
from ._errors import PolicyError


def create_module(name: str, spec: Mapping[str, Any]) -> AnsibleModule:
    """Return the module of that name; it fails on a Python that is too old.

    ``spec`` are arguments of AnsibleModule.
    """
    # Directories that are made on the way have no mode of their own.
    os.umask(0o022)
    module = AnsibleModule(supports_check_mode=True, **spec)
    if sys.version_info < (3, 8):
        module.fail_json(
            msg="armfleet.vfio.%s needs Python 3.8 or later on the target; %s is %d.%d. Point "
            "ansible_python_interpreter to a newer one"
            % (name, sys.executable, *sys.version_info[:2])
        )
    return module


def end(module: AnsibleModule, result: Mapping[str, Any], warnings: Sequence[str]) -> None:
    """End the module with its result and its warnings."""
    for sentence in warnings:
        module.warn(sentence)
    module.exit_json(**result)


def end_with(answer: str) -> NoReturn:
    """End the module with an answer that is JSON already.

    Formatting it as exit_json does takes as long as reading the state of 64 devices.
    """
    sys.stdout.write(answer + "\n")
    raise SystemExit(0)


def fail(module: AnsibleModule, error: PolicyError, **returned: Any) -> None:
    """End the module with a line for each problem, and with what it returned before it failed."""
    module.fail_json(msg="\n".join(map(_text.printable_result, error.problems)), **returned)
