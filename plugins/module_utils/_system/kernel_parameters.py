# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel command line, as its readers split it."""

from __future__ import annotations

from typing import Iterator

from .. import _text

KERNEL_COMMAND_LINE = "/proc/cmdline"


def kernel_parameters(content: str) -> list[str]:
    """Return the parameters as the kernel reads them, without quotes, which keep blanks together.

    next_arg in lib/cmdline.c; quotes count around a parameter and around its value.
    """
    return [_unquoted(word) for word, _is_closed in quoted_words(content)]


def quoted_words(content: str) -> Iterator[tuple[str, bool]]:
    """Yield what stands between blanks outside of quotation marks, with its marks.

    Beside it whether all marks are closed, which those of the last word may not be.
    """
    word, is_quoted = "", False
    for character in content.rstrip("\n"):
        if character not in _text.BLANKS or is_quoted:
            word += character
            is_quoted ^= character == '"'
        elif word:
            yield word, True
            word = ""
    if word:
        yield word, not is_quoted


def parameters_of_any_reader(content: str) -> list[str]:
    """Return the parameters as the kernel reads them, and as scripts of an initramfs do.

    These cut at each blank, whatever is quoted.
    """
    by_scripts = map(_unquoted, _text.words(content))
    return list(dict.fromkeys([*kernel_parameters(content), *by_scripts]))


def _unquoted(word: str) -> str:
    is_quoted = word.startswith('"')
    word = word[1:] if is_quoted else word
    # A name has one character at least.
    equals = word.find("=", 1)
    if equals > 0 and word[equals + 1 :].startswith('"'):
        value = word[equals + 2 :]
        if value.endswith('"'):
            value, is_quoted = value[:-1], False
        word = word[: equals + 1] + value
    return word[:-1] if is_quoted and word.endswith('"') else word
