# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that the modules which change devices share."""

from __future__ import annotations


class ModuleDocFragment:
    """The time limit and the accepted kinds of use; settings of VFIO."""

    DOCUMENTATION = r"""
options:
  timeout:
    description: >-
      Time limit in seconds for a single write to the kernel, V(1) or more. A probe or remove runs
      inside such a write; if the driver hangs there, the run fails instead of hanging.
    type: int
    default: 30
  allow:
    description:
      - Kinds of use to accept. A device that is in use in a way not listed here is rejected before
        any change is made.
      - V(console) is the system console or a terminal in use. V(storage) is a disk that is mounted,
        used as swap, part of a volume or held open. V(network) is an interface that is up, or is
        below one that is up (bond, bridge, VLAN). V(consumers) is another device that depends on
        this one, a process that holds one of its nodes open, or another use by the kernel. V(clock)
        is the chip that keeps the system time. V(watchdog) is a running watchdog.
      - V(group) is another device of the same IOMMU group that stays bound to its native driver. As
        long as it is bound, VFIO cannot open the device.
      - What is written for the next boot is checked in the same way, including uses that are
        configured but do not exist now. These are disks in C(/etc/fstab), C(/etc/crypttab) and the
        kernel command line (V(storage)), interfaces that a file of ifupdown, systemd-networkd,
        NetworkManager or netplan names (V(network)), and terminals in C(console=) (V(console)).
      - Two uses are never accepted, because the kernel would hang or crash. One is a device that a
        process holds open through C(/dev/vfio), the other a DMA engine whose channels are in use.
    type: list
    elements: str
    choices: [console, storage, network, consumers, clock, watchdog, group]
    default: []
requirements:
  - Root privileges on the target.
  - A kernel with the requested drivers. C(vfio-platform) and C(vfio-amba) need
    C(CONFIG_VFIO_PLATFORM) and C(CONFIG_VFIO_AMBA).
notes:
  - All devices of a call are changed in one transaction. If one of them fails, all changes of the
    call are rolled back, and the error lists what could not be rolled back.
"""

    VFIO = r"""
options:
  reset_required:
    description:
      - Whether C(vfio-platform) accepts only devices that it can reset (its module parameter of
        that name, which is on by default). The kernel has no reset function for most devices, which
        need V(false).
      - If unset, the setting is not changed. The kernel reads it only when it loads the module, so
        the module is reloaded if the setting differs. The reload is rejected while devices that are
        not in the list are bound to the module.
      - A persistent list of M(armfleet.vfio.host_policy) with a device that needs V(false) is
        rejected if neither the list nor anything else sets it for the next boot.
    type: bool
  unsafe_noiommu:
    description:
      - Whether VFIO accepts devices without an IOMMU group (C(enable_unsafe_noiommu_mode) of the
        module C(vfio)). Such a device can read and write all memory of the host, and the kernel is
        tainted.
      - If unset, the setting is not changed, with one exception. If a list of
        M(armfleet.vfio.host_policy) turned it on, it is turned off when the list no longer sets it.
        It stays on if it was on before, or if a device is still bound to VFIO without an IOMMU; see
        RV(kept_settings).
      - A persistent list of M(armfleet.vfio.host_policy) with a device that needs V(true) is
        rejected if neither the list nor anything else sets it for the next boot.
      - If V(false) with M(armfleet.vfio.vfio_binding) and O(state=released), it is turned off
        unless such a device remains.
    type: bool
  unsafe_interrupts:
    description:
      - Whether a container of VFIO accepts devices whose interrupts the kernel does not isolate
        (C(allow_unsafe_interrupts) of the module C(vfio_iommu_type1)). User space that has such a
        device can raise interrupts of other devices. If V(false), user space that opens the device
        through a container gets C(EPERM).
      - Interrupts of PCI functions are isolated by the ITS of a GICv3, those of nearly all platform
        and AMBA devices are not. RV(armfleet.vfio.device_info#module:devices[].isolated_interrupts)
        shows which are. It has no effect on user space that opens devices through iommufd, whose
        module has a parameter of that name.
      - If unset, the setting is not changed, and a run that gives such a device to VFIO issues a
        warning. There is one exception. If a list of M(armfleet.vfio.host_policy) turned it on, it
        is turned off when the list no longer sets it. It stays on if it was on before, or if
        another device is bound to VFIO that may need it; see RV(kept_settings).
      - If V(false) with M(armfleet.vfio.vfio_binding) and O(state=released), it is turned off
        unless such a device remains.
    type: bool
"""
