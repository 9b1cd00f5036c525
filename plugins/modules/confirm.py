#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A question to the person at the terminal."""

from __future__ import annotations

DOCUMENTATION = r"""
module: confirm
short_description: Ask the operator whether to go on, if there is one
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Asks a question on the terminal of the control node until the answer is C(yes) or C(no), and
    returns the answer. Ctrl-C is C(no).
  - If C(ansible-playbook) does not run in the foreground of a terminal, as in AWX, CI or C(cron),
    nothing is asked and the answer is C(yes). M(ansible.builtin.pause) warns in this case.
  - The task does not fail. Use RV(confirmed) in the condition of the next one.
options:
  question:
    description: The question, on one line.
    type: str
    required: true
attributes:
  action:
    description: It is an action plugin and runs on the control node alone.
    support: full
  check_mode:
    description: It asks in check mode as well.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: N/A
"""

EXAMPLES = r"""
- name: Ask before all hosts are changed
  armfleet.vfio.confirm:
    question: Apply the list to all hosts?
  register: answer
  run_once: true
"""

RETURN = r"""
asked:
  description: Whether somebody was asked.
  returned: success
  type: bool
  sample: true
confirmed:
  description: Whether the answer is yes, or nobody was asked.
  returned: success
  type: bool
  sample: true
"""
