#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text for people, as it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: print_text
short_description: Print lines of text on the control node without quotes
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Prints lines on the terminal of the control node as they are, where M(ansible.builtin.debug)
    prints them as JSON, so that a table can be read and YAML can be pasted.
  - Characters that are not printable are escaped.
options:
  lines:
    description: Lines of text.
    type: list
    elements: str
    required: true
attributes:
  action:
    description: It is an action plugin and runs on the control node alone.
    support: full
  check_mode:
    description: It prints the same in check mode.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: N/A
"""

EXAMPLES = r"""
- name: Print a table
  armfleet.vfio.print_text:
    lines:
      - "host     state"
      - "board-1  in_sync"
  run_once: true
"""

RETURN = r"""
lines:
  description: The lines as they were printed.
  returned: success
  type: list
  elements: str
  sample: ["host     state", "board-1  in_sync"]
"""
