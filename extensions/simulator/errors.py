# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one error that users of the simulator see."""

from __future__ import annotations


class SimulatorError(Exception):
    """One line: what was tried, and what is wrong with it."""
