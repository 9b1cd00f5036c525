# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that modules share: parts of the argument_spec of AnsibleModule."""

from __future__ import annotations

import itertools
from typing import Any, Mapping

from ._in_use.kinds import ACCEPTABLE
from ._model.buses import BUSES
from ._model.selector import CONFIRMED_BY, KINDS

_SELECTOR: dict[str, Any] = {
    **{kind: {"type": "str"} for kind in KINDS},
    "acpi_uid": {"type": "str"},
    "bus": {"type": "str", "choices": list(BUSES)},
    "expect": {"type": "int"},
    "required": {"type": "bool", "default": True},
    # As a list, a text would be split at the comma that nearly every board's name has.
    "when_board": {"type": "raw"},
}
_SELECTOR_RULES: dict[str, Any] = {
    # Each has one of two kinds that may be in one entry.
    "mutually_exclusive": [
        [kind for kind in KINDS if kind not in others]
        for others in itertools.product(*(pair[::-1] for pair in CONFIRMED_BY.items()))
    ],
    "required_one_of": [list(KINDS)],
}

SAFETY: dict[str, Any] = {
    "timeout": {"type": "int", "default": 30},
    "allow": {"type": "list", "elements": "str", "choices": list(ACCEPTABLE), "default": []},
}
VFIO_SETTINGS: dict[str, Any] = {
    "reset_required": {"type": "bool"},
    "unsafe_noiommu": {"type": "bool"},
    "unsafe_interrupts": {"type": "bool"},
}


def state(*choices: str) -> dict[str, Any]:
    """Return the option ``state``; the first choice is the default."""
    return {"type": "str", "choices": list(choices), "default": choices[0]}


def devices(suboptions: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """Return a list of selectors with ``suboptions``; ``settings`` are those of the option."""
    return {
        "type": "list",
        "elements": "dict",
        "options": dict(_SELECTOR, **(suboptions or {})),
        **_SELECTOR_RULES,
        **settings,
    }
