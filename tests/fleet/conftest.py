# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counts as the tests on simulated machines have them, and guests.

The guests have names of their own, so that these tests can run beside the others that boot some.
"""

from __future__ import annotations

from tests.harness.guests import start
from tests.simulated.conftest import (
    counts,
    pytest_configure,
    pytest_terminal_summary,
)

__all__ = ["counts", "pytest_configure", "pytest_terminal_summary", "start"]
