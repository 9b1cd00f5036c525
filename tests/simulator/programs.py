# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs that the collection's rules have udev run, as far as they are played."""

from __future__ import annotations

import re

PROGRAMS = ("/bin/sed", "/usr/bin/realpath", "/bin/mkdir", "/bin/ln", "/bin/rm")


def sed(expressions: list[str], text: str) -> str:
    """What 'sed -n' prints, of y and of s with p; neither has its mark within."""
    printed = []
    for line in text.splitlines():
        now = line
        for expression in expressions:
            _kind, left, right, _flags = expression.split(expression[1])
            if expression.startswith("y"):
                now = now.translate(str.maketrans(left, right))
            elif re.search(left, now):
                now = re.sub(left, right, now, count=1)
                printed.append(now)
    return "\n".join(printed)
