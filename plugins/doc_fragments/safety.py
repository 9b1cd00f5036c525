# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules that change something have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Time limit and accepted hazards; settings of VFIO."""

    DOCUMENTATION = r"""
options:
  timeout:
    description:
      - Seconds that one write to the kernel may take, V(1) or more. A probe or a removal runs
        inside the write, and a driver that hangs there is given up on instead of hanging the run.
    type: int
    default: 30
  allow:
    description:
      - What may be lost when a device loses its driver. Without its word here, a device in such use
        is refused before anything is touched.
      - V(console) is the system console or a terminal in use, V(storage) a disk that is mounted,
        used as swap, part of a volume or held open, V(network) an interface that is up, or one
        below it (bond, bridge, VLAN), V(consumers) another device that depends on this one, a
        process that has one of its nodes open, or what else the kernel uses it for, V(clock) the
        chip that keeps the system's time, V(watchdog) a watchdog that is running.
      - V(group) is another device of the same IOMMU group that stays on its own driver. Without
        this word such a device is not given to VFIO, because VFIO could not open it.
      - What is written for the next boot is checked likewise, with what is configured and not in
        use now. That is disks of C(/etc/fstab), C(/etc/crypttab) and the kernel's command line
        (V(storage)), interfaces that a file of ifupdown, systemd-networkd, NetworkManager or
        netplan names (V(network)), and terminals of C(console=) (V(console)).
      - A device that a process holds open through C(/dev/vfio) is always refused, because the
        kernel would wait for that process; and so is a DMA engine whose channels are in use,
        because the kernel would crash.
    type: list
    elements: str
    choices: [console, storage, network, consumers, clock, watchdog, group]
    default: []
requirements:
  - Root on the target.
  - A kernel with the drivers asked for. C(vfio-platform) and C(vfio-amba) need
    C(CONFIG_VFIO_PLATFORM) and C(CONFIG_VFIO_AMBA).
notes:
  - The drivers of all devices of one call are changed in one transaction. If one of them fails, all
    that the call changed is put back, and what could not be put back is named in the error.
"""

    VFIO = r"""
options:
  reset_required:
    description:
      - Whether C(vfio-platform) takes only devices which it can reset (its module parameter of that
        name, on by default). Most devices have no reset function in the kernel and need V(false).
      - Unset leaves the setting as it is. The kernel takes it only while the module is loaded, so a
        loaded module is loaded anew where the setting differs, and that is refused while devices
        which are not in the list are bound to it.
    type: bool
  unsafe_noiommu:
    description:
      - Whether VFIO takes devices without an IOMMU group (C(enable_unsafe_noiommu_mode) of the
        module C(vfio)). Such a device can read and write all memory of the host, and the kernel is
        tainted.
      - Unset leaves the setting as it is. What a list of M(armfleet.vfio.host_policy) has turned on
        is turned off again when the list does not ask for it any more, unless it was on before or a
        device is still bound to VFIO without an IOMMU; see RV(kept_settings).
      - With M(armfleet.vfio.vfio_binding) and O(state=released), V(false) turns it off unless such
        a device is left.
    type: bool
"""
