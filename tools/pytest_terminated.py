# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plugin of pytest for sessions of nox: end fixtures on SIGTERM as on SIGINT.

If nox is interrupted it ends parallel sessions by SIGTERM, by which pytest would die and leave its
simulated hosts running.
"""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Handle one of the two as the other."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
