# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text of the kernel and of configuration files is parsed, whatever bytes it contains."""

from __future__ import annotations

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils import _text


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), (str(1 << 64), 1 << 64)])
def test_a_number_is_digits_of_ascii(text: str, number: int) -> None:
    assert _text.number(text) == number


# Python 3.11 refuses to convert more than 4,300 digits.
@pytest.mark.parametrize("text", [None, "", "-1", "1 ", "0x1", "²", "٣", "9" * 21, "9" * 5000])
def test_all_else_is_no_number(text: str | None) -> None:
    assert _text.number(text) is None


@pytest.mark.parametrize(
    ("pattern", "is_like"),
    [("b[a-c]r", True), ("b[!x]r", True), ("b*", True), ("B?r", False), ("b[c-a]r", False)],
)
def test_a_pattern_of_others_is_compared_as_glibc_does(*, pattern: str, is_like: bool) -> None:
    """With a reversed range, fnmatch of Python 3.8 and 3.9 raises re.error."""
    assert _text.is_like("bar", pattern) is is_like
