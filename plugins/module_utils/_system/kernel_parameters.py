# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel command line, as the kernel splits it."""

from __future__ import annotations

import re

KERNEL_COMMAND_LINE = "/proc/cmdline"
_PARAMETER = re.compile(r'(?:[^\s"]|"[^"]*"?)+')


def kernel_parameters(content: str) -> list[str]:
    """Return the parameters of a kernel command line, without quotes, which keep blanks together.

    next_arg in lib/cmdline.c, and kmod_config_parse_kcmdline in libkmod/libkmod-config.c: quotes
    are around a parameter or around its value.
    """
    return list(map(_unquoted, _PARAMETER.findall(content)))


def _unquoted(word: str) -> str:
    if word.startswith('"'):
        word = word[1:].rstrip('"')
    key, equals, value = word.partition("=")
    return key + equals + value.strip('"')
