# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers of hosts, marked so that ansible-core evaluates no template in them.

Before 2.19 ansible-core templates each text that is not marked, and a text made of marked ones is
not. Later ones template what is marked as trusted, and nothing else, and need no help.
"""

from __future__ import annotations

from typing import Any

try:
    from ansible.utils.unsafe_proxy import wrap_var
except ImportError:
    # ansible-core removes it once no supported version needs it.
    wrap_var = None


def make_unsafe(data: Any) -> Any:
    """Return the same data, marked so that no text in it is a template."""
    return wrap_var(data) if wrap_var else data
