# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs that the collection's udev rules run, as far as they are simulated."""

from __future__ import annotations

import re

PROGRAMS = ("/bin/sed", "/usr/bin/realpath", "/bin/mkdir", "/bin/ln", "/bin/rm")


def operands(words: list[str]) -> list[str]:
    """Return what follows "--"; rules give a program no operand without it."""
    return words[words.index("--") + 1 :]


def sed(expressions: list[str], text: str) -> str:
    """Return what 'sed -n' prints; it knows y, s with flag p, /regex/!d and q.

    No operand contains its delimiter. An s without a regex uses the one of the last d.
    """
    printed: list[str] = []
    for line in re.sub(r"\n\Z", "", text).split("\n"):
        now, last = line, ""
        for expression in expressions:
            if expression == "q":
                return "\n".join(printed)
            if expression.startswith("/"):
                last = expression[1 : -len("/!d")]
                if not re.search(last, now):
                    break
                continue
            _kind, left, right, _flags = expression.split(expression[1])
            if expression.startswith("y"):
                now = now.translate(str.maketrans(left, right))
            elif re.search(left or last, now):
                now = re.sub(left or last, right, now, count=1)
                printed.append(now)
    return "\n".join(printed)
