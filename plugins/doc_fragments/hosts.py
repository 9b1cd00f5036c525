# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that the filters over the hosts of a play share."""

from __future__ import annotations


class ModuleDocFragment:
    """The hosts, and their variables."""

    DOCUMENTATION = r"""
options:
  _input:
    description: Names of hosts in the inventory, such as C(ansible_play_hosts_all).
    type: list
    elements: str
    required: true
  hostvars:
    description: Variables of all hosts, C(hostvars).
    type: dict
    required: true
"""
