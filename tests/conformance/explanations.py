# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every difference that there may be between the real kernel and the simulator, and why."""

from __future__ import annotations

from .comparison import Explanation

EXPLANATIONS = (
    Explanation(
        "boot|a device that goes away",
        r"amba/90[01]0000\.pl0[13]1 (id|uevent)",
        "the revision of an AMBA cell is in its registers, which the simulator does not have",
    ),
    Explanation(
        "a device that is open",
        "result",
        "FUSE gives a file its second write when the first has returned, so that a second unbind "
        "begins when the device has no driver any more",
    ),
    Explanation(
        "a device that is open",
        r"module vfio_platform|driver platform/vfio-platform (un)?bind",
        "a module that waits for its driver's remove is 'going', which the simulator does not show",
    ),
    Explanation(
        "suppliers",
        r"\S+ (consumer|supplier):\S+",
        "a link is 'supplier unbinding' while the consumer's remove runs, which the simulator does "
        "not show",
    ),
    Explanation(
        "deferral",
        r"(amba/9030000\.pl061 consumer:platform:gpio-keys)"
        r"|(platform/gpio-keys supplier:amba:9030000\.pl061)",
        "gpio-keys depends on pl061 by nodes that are no devices; Linux makes that link anew when "
        "it is probed again, and the simulator has such links at boot only",
    ),
)

# On board c, which has every corner of device trees.
CORNERS = (
    Explanation(
        "boot",
        r"amba/90[01]0000\.pl0[13]1 (id|uevent)",
        "the revision of an AMBA cell is in its registers, which the simulator does not have",
    ),
    Explanation(
        "boot",
        r"platform/empty-compatible (modalias|uevent)",
        "Linux counts a compatible without a value as one that is empty, the simulator as none",
    ),
    Explanation(
        "boot",
        r"platform/links:(camera|sensor|clock|cycle-\d|family|family:child|holder|later) "
        r"(consumer|supplier):platform:links:\S+",
        "the simulator makes no links that never make anybody wait: those in a cycle, and those of "
        "nodes that are no devices",
    ),
)
