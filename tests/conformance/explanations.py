# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All accepted differences between the real kernel and the simulator, with their reasons."""

from __future__ import annotations

from .comparison import Explanation

_REVISION = Explanation(
    "the revision of an AMBA cell is in its registers, which the simulator does not have",
    scenario="boot|a device that goes away",
    what=r"amba/90[01]0000\.pl0[13]1 (id|uevent)",
    real=r"(.*d?)001410[13]1\n.*",
    simulated=r"(.*d?)000410[13]1\n.*",
)

EXPLANATIONS = (
    _REVISION,
    Explanation(
        "FUSE gives a file its second write when the first has returned, so that a second unbind "
        "begins when the device has no driver any more",
        scenario="a device that is open",
        operation="answer  by third",
        what="result",
        real="ok",
        simulated="ENODEV",
    ),
    Explanation(
        "gpio-keys depends on pl061 by nodes that are no devices; Linux makes that link anew when "
        "it is probed again, and the simulator has such links at boot only",
        scenario="deferral",
        operation=r"write '/sys/bus/amba/drivers/pl061_gpio/(un)?bind' .*",
        what=r"amba/9030000\.pl061 consumer:platform:gpio-keys"
        r"|platform/gpio-keys supplier:amba:9030000\.pl061",
        real=r"(available|dormant)\n",
        simulated="None",
    ),
)

# On board c, which has the corner cases of device trees.
CORNERS = (
    _REVISION,
    Explanation(
        "Linux counts a compatible without a value as one that is empty, the simulator as none",
        scenario="boot",
        what="platform/empty-compatible (modalias|uevent)",
        real=r".*T\(null\)C\n",
        simulated=r".*T\(null\)\n",
    ),
    Explanation(
        "the simulator makes no links that never make anybody wait: those in a cycle, and those of "
        "nodes that are no devices",
        scenario="boot",
        what=r"platform/links:(camera|sensor|clock|cycle-\d|family|family:child|holder|later) "
        r"(consumer|supplier):platform:links:\S+",
        real=r"dormant\n",
        simulated="None",
    ),
)

# Of PCI functions, on board pci.
OF_PCI = (
    Explanation(
        "drivers that are built in have a module only in Linux",
        scenario="boot",
        what=r"driver pci/(8250_pericom|pcieport|serial|shpchp) module",
        real="there",
        simulated="None",
    ),
    Explanation(
        "kmod prints a module once for each of its aliases that matches, the simulator once",
        scenario="modprobe",
        operation="modprobe '-R'.*",
        what="result",
        real="nvme\nnvme",
        simulated="nvme",
    ),
    Explanation(
        "the simulator has no ids that are added while a driver runs",
        scenario="boot|.*",
        what=r"driver pci/\S+ (new_id|remove_id)",
        real="there",
        simulated="None",
    ),
    Explanation(
        "the simulator has no ioctl: user space owns a group while it has its node open, not only "
        "from VFIO_GROUP_SET_CONTAINER on",
        scenario="functions that share a group",
        operation=r"(un)?bind.*|write '/sys/bus/pci/drivers/nvme/(un)?bind' '0000:00:04\.1'.*",
        what=r"result|driver pci/nvme 0000:00:04\.1|pci/0000:00:04\.1 (driver|uevent)",
        real=r"ok|there|nvme|DRIVER=nvme\n.*",
        simulated=r"EBUSY|ENODEV|None|PCI_CLASS=.*",
    ),
)
