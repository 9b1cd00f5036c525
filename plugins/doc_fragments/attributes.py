# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attributes of all modules: check mode, diff mode, idempotency and platform."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of all modules, of those that change something, and of those that only read."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and returns what a run would do, without changing the host.
    support: full
  platform:
    description: The operating systems that the module works on.
    support: full
    platforms: linux
  action_group:
    description: C(group/armfleet.vfio.vfio) in C(module_defaults) sets defaults for this module.
    support: full
    membership:
      - armfleet.vfio.vfio
"""

    CHANGES = r"""
options: {}
attributes:
  diff_mode:
    description: Returns what changed, or in check mode what would change.
    support: full
  idempotent:
    description: A second run with the same arguments changes nothing and writes nothing to C(/sys).
    support: full
"""

    READS = r"""
options: {}
attributes:
  diff_mode:
    description: Returns what changed, or in check mode what would change.
    support: N/A
    details: The module only reads.
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: N/A
    details: The module only reads.
"""
