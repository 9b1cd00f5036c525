# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option of the modules whose answers are kept."""

from __future__ import annotations


class ModuleDocFragment:
    """The digest by which a host knows a request again."""

    DOCUMENTATION = r"""
options:
  request_digest:
    description:
      - SHA-256 of the module, its options and the code of this collection, with which a host keeps
        the answer of a run that found nothing to do. See M(armfleet.vfio.last_answer).
      - The action plugin sets it; a value in a task is replaced.
    type: str
"""
