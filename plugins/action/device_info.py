# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs device_info, and the modules that meta/runtime.yml routes here."""

from __future__ import annotations

from ansible_collections.armfleet.vfio.plugins.plugin_utils._action_module import ActionModule

__all__ = ["ActionModule"]
