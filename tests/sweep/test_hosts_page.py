# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tables of docs/hosts.md are those of the device trees."""

from __future__ import annotations

from tools import board_table


def test_the_page_has_the_tables_of_the_device_trees() -> None:
    page = board_table.PAGE.read_text()
    is_current = board_table.rewritten(page, board_table.tables()) == page
    assert is_current, "run: tools/setup guest tools/board_table.py --write"
