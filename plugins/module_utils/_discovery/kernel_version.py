# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The version of the running kernel, as two numbers. Reads only."""

from __future__ import annotations

import re
from typing import Tuple

from .._system.files import Files

Version = Tuple[int, int]

# linux_proc_banner in init/version.c.
_BANNER = "/proc/version"
_NUMBERS = re.compile(r"Linux version (\d{1,4})\.(\d{1,4})(?!\d)")


def running_version(files: Files) -> Version | None:
    """Return major and minor version; None if they are unknown.

    A distribution can have brought changes of later versions into its kernel.
    """
    match = _NUMBERS.match(files.read(_BANNER) or "")
    return (int(match.group(1)), int(match.group(2))) if match else None
