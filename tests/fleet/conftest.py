# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The counts of tests/simulated, and guests.

No other tests boot guests of these names, so that all can run at the same time.
"""

from __future__ import annotations

from tests.harness.guests import start
from tests.simulated.conftest import (
    counts,
    pytest_configure,
    pytest_terminal_summary,
)

__all__ = ["counts", "pytest_configure", "pytest_terminal_summary", "start"]
