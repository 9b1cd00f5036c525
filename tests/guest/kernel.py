# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel of a series: compiled here, or the distribution's own."""

from __future__ import annotations

from .artefacts import Artefact
from .debian_kernel import debian_kernel
from .packages import Series
from .small_kernel import kernel as small_kernel


def kernel(series: Series) -> Artefact:
    """Image, config, tree (its modules) and headers (to build more)."""
    return debian_kernel() if series.stock else small_kernel(series)
