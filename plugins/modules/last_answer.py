#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find out whether the last answer of a module is still true."""

from __future__ import annotations

DOCUMENTATION = r"""
module: last_answer
short_description: Return the answer that a host keeps of an earlier run if nothing has changed
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - The action plugins of M(armfleet.vfio.host_policy) and M(armfleet.vfio.device_info) run this
    module first. It is small, so a host on which nothing has changed receives and loads little.
    Tasks of your own do not need it.
  - A run that finds nothing to do keeps its answer, and a list of all that it read of C(/sys) and
    of files, in C(/run/armfleet-vfio). This module reads the same again, and returns the answer if
    all of it is the same.
  - Only root finds an answer.
options:
  request_digest:
    description:
      - SHA-256, in hexadecimal digits, of the module, its options and the code of this collection.
        An answer counts only for the digest with which it was kept.
    type: str
    required: true
  timeout:
    description: Seconds to wait for a device whose driver does not answer.
    type: int
    default: 30
attributes:
  check_mode:
    description: >-
      It writes nothing but the lock in C(/run/armfleet-vfio), and in check mode not that either.
    support: full
  diff_mode:
    description: It changes nothing.
    support: N/A
"""

EXAMPLES = r"""
- name: Ask for the answer to an earlier request
  armfleet.vfio.last_answer:
    request_digest: "{{ 'a request' | ansible.builtin.hash('sha256') }}"
"""

RETURN = r"""
is_kept:
  description:
    - Whether there is an answer, and all that it depends on is the same. The other keys are then
      those of the answer, as the module that gave it returns them.
  returned: always
  type: bool
  sample: false
"""

from typing import Any

from ansible_collections.armfleet.vfio.plugins.module_utils._ansible_module import (
    create_module,
    end_with,
    fail,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.host_lock import HostLock
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.last_answer import LastAnswer
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.file_reads import FileReader
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import (
    KernelBlockedError,
    Sysfs,
)

SPEC: dict[str, Any] = {
    "argument_spec": {
        "request_digest": {"type": "str", "required": True},
        "timeout": {"type": "int", "default": 30},
    }
}


def main() -> None:
    """Run the module."""
    module = create_module("last_answer", SPEC)
    timeout = module.params["timeout"]
    sysfs, files = Sysfs(timeout=timeout), FileReader()
    last = LastAnswer(HostLock("last_answer", timeout), module.params["request_digest"])
    try:
        answer = last.find(sysfs, files, check_mode=module.check_mode)
    except KernelBlockedError as error:
        # The run would wait for the same device once more.
        fail(module, error, is_kept=True)
    except PolicyError:
        # The run names whoever works on this host, once that takes too long.
        answer = None
    finally:
        sysfs.close()
    if answer is None:
        module.exit_json(changed=False, is_kept=False)
    end_with(answer)


if __name__ == "__main__":
    main()
