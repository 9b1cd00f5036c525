# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What hosts said must never be taken for a template.

Before 2.19 ansible-core templates each text that is not marked, and a text made of marked ones is
not. Later ones template what is marked as trusted, and nothing else, and need no help.
"""

from __future__ import annotations

from typing import Any

try:
    from ansible.utils.unsafe_proxy import wrap_var
except ImportError:
    # It is to go from ansible-core when no version needs it any more.
    wrap_var = None


def make_unsafe(data: Any) -> Any:
    """The same data, marked so that no text in it is a template."""
    return wrap_var(data) if wrap_var else data
