# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Selectors of devices: the option C(devices) of every module."""

from __future__ import annotations


class ModuleDocFragment:
    """Selectors alone, and selectors with a policy.

    Ansible does not merge suboptions, and ansible-test reads nothing but one string for each, so
    both contain the selectors' text. A test compares them.
    """

    DOCUMENTATION = r"""
options:
  devices:
    type: list
    elements: dict
    suboptions:
      dt_path:
        description:
          - Path of the node in the device tree, for example V(/soc/ethernet@e0700000). A leading
            V(/proc/device-tree) or V(/sys/firmware/devicetree/base) is removed.
          - A path without a leading slash starts with a device-tree alias, for example V(ethernet0)
            or V(soc0/crypto@1). The aliases are listed in C(/proc/device-tree/aliases).
        type: str
      compatible:
        description: >-
          Matches every device that lists exactly this string among its C(compatible) strings. With
          ACPI, these are the strings of the C(_DSD) of a device with the id C(PRP0001).
        type: str
      acpi_path:
        description: >-
          Absolute path in the ACPI namespace, for example V(\\_SB_.VR00), as in
          C(firmware_node/path).
        type: str
      acpi_hid:
        description: >-
          Matches every device with this ACPI hardware id, for example V(LNRO0005), as in
          C(firmware_node/hid). V(PRP0001) is refused, since devices of all kinds have it; select
          them by O(devices[].compatible).
        type: str
      acpi_uid:
        description: >-
          ACPI C(_UID) of the device, for example V("0"), as in C(firmware_node/uid). It is compared
          as text, so give it in quotes. Valid only with O(devices[].acpi_hid).
        type: str
      pci_address:
        description:
          - Address of a PCI function, for example V(0000:01:00.0), as in C(/sys/bus/pci/devices).
          - Addresses can change when cards are added or moved. With O(devices[].pci_id) beside it,
            another card at the address is an error, and is not bound at boot either.
        type: str
      pci_id:
        description:
          - Matches every PCI function with this vendor and device, for example V(8086:10d3), or
            with this vendor, device and subsystem, for example V(8086:10d3:8086:a01f). C(lspci -nn)
            prints them.
          - Beside O(devices[].pci_address), what the function at that address must be.
        type: str
      name:
        description:
          - Name of the device in C(/sys/bus/*/devices).
          - The kernel derives these names from addresses and numbers, so prefer the other
            selectors.
        type: str
      bus:
        description: Bus of the device. Valid only with O(devices[].name).
        type: str
        choices: [platform, amba, pci, fsl-mc, cdx, spi, rpmsg, vmbus]
      expect:
        description: >-
          Exact number of devices that the entry must match, V(1) or more. Any other number is an
          error before any change is made.
        type: int
      required:
        description: >-
          Whether an entry that matches no device is an error. Set this to V(false) in lists for
          different machines.
        type: bool
        default: true
      when_board:
        description:
          - Board, or list of boards, that the entry applies to. On other boards the entry is
            skipped, so that one list can serve a fleet. If unset, the entry applies to all boards.
          - A board is identified by any of the C(compatible) strings of the device tree's root, as
            in C(/proc/device-tree/compatible). On machines that boot with ACPI and have no such
            file, it is identified by C(product_name) or C(board_name) in C(/sys/class/dmi/id).
            Names are compared exactly, but for spaces at their ends;
            RV(armfleet.vfio.device_info#module:board) lists them.
          - If the board is unknown, as in an image without C(/sys), such an entry is an error
            before any change is made.
        type: raw
"""

    POLICIES = r"""
options:
  devices:
    type: list
    elements: dict
    suboptions:
      dt_path:
        description:
          - Path of the node in the device tree, for example V(/soc/ethernet@e0700000). A leading
            V(/proc/device-tree) or V(/sys/firmware/devicetree/base) is removed.
          - A path without a leading slash starts with a device-tree alias, for example V(ethernet0)
            or V(soc0/crypto@1). The aliases are listed in C(/proc/device-tree/aliases).
        type: str
      compatible:
        description: >-
          Matches every device that lists exactly this string among its C(compatible) strings. With
          ACPI, these are the strings of the C(_DSD) of a device with the id C(PRP0001).
        type: str
      acpi_path:
        description: >-
          Absolute path in the ACPI namespace, for example V(\\_SB_.VR00), as in
          C(firmware_node/path).
        type: str
      acpi_hid:
        description: >-
          Matches every device with this ACPI hardware id, for example V(LNRO0005), as in
          C(firmware_node/hid). V(PRP0001) is refused, since devices of all kinds have it; select
          them by O(devices[].compatible).
        type: str
      acpi_uid:
        description: >-
          ACPI C(_UID) of the device, for example V("0"), as in C(firmware_node/uid). It is compared
          as text, so give it in quotes. Valid only with O(devices[].acpi_hid).
        type: str
      pci_address:
        description:
          - Address of a PCI function, for example V(0000:01:00.0), as in C(/sys/bus/pci/devices).
          - Addresses can change when cards are added or moved. With O(devices[].pci_id) beside it,
            another card at the address is an error, and is not bound at boot either.
        type: str
      pci_id:
        description:
          - Matches every PCI function with this vendor and device, for example V(8086:10d3), or
            with this vendor, device and subsystem, for example V(8086:10d3:8086:a01f). C(lspci -nn)
            prints them.
          - Beside O(devices[].pci_address), what the function at that address must be.
        type: str
      name:
        description:
          - Name of the device in C(/sys/bus/*/devices).
          - The kernel derives these names from addresses and numbers, so prefer the other
            selectors.
        type: str
      bus:
        description: Bus of the device. Valid only with O(devices[].name).
        type: str
        choices: [platform, amba, pci, fsl-mc, cdx, spi, rpmsg, vmbus]
      expect:
        description: >-
          Exact number of devices that the entry must match, V(1) or more. Any other number is an
          error before any change is made.
        type: int
      required:
        description: >-
          Whether an entry that matches no device is an error. Set this to V(false) in lists for
          different machines.
        type: bool
        default: true
      when_board:
        description:
          - Board, or list of boards, that the entry applies to. On other boards the entry is
            skipped, so that one list can serve a fleet. If unset, the entry applies to all boards.
          - A board is identified by any of the C(compatible) strings of the device tree's root, as
            in C(/proc/device-tree/compatible). On machines that boot with ACPI and have no such
            file, it is identified by C(product_name) or C(board_name) in C(/sys/class/dmi/id).
            Names are compared exactly, but for spaces at their ends;
            RV(armfleet.vfio.device_info#module:board) lists them.
          - If the board is unknown, as in an image without C(/sys), such an entry is an error
            before any change is made.
        type: raw

      policy:
        description:
          - V(vfio) sets the override and binds the device to the VFIO driver of its bus,
            C(vfio-platform), C(vfio-amba) or C(vfio-pci). The kernel has marked C(vfio-amba) for
            removal since Linux 6.18. A PCI function is bound to the driver that the kernel's
            modules name for it (an alias with C(vfio_pci:)), such as C(mlx5_vfio_pci), if there is
            one.
          - V(no_autobind) sets the override to V(none), so that no driver binds the device
            automatically, and unbinds the device.
          - V(driver) sets the override to O(devices[].driver) and binds the device to that driver.
          - V(default) clears the override and releases the device to its native driver.
        type: str
        required: true
        choices: [vfio, no_autobind, driver, default]
      driver:
        description:
          - Name of the driver as in C(/sys/bus/*/drivers), not the name of its module.
          - Required if O(devices[].policy=driver).
        type: str
      vfio_driver:
        description:
          - Name of the VFIO driver to bind a PCI function to, for example V(vfio-pci), instead of
            the one that the kernel's modules name for it.
          - Valid only if O(devices[].policy=vfio).
        type: str
      sriov_numvfs:
        description:
          - Number of virtual functions that a PCI function creates (SR-IOV), as in its attribute
            C(sriov_numvfs). Other entries can select them. If unset, the number is not changed.
          - An entry that no longer has it, and an empty list, restore the number from before the
            first list that set it.
          - The kernel removes all virtual functions of the device before it creates another number
            of them, so a change is refused while one of them is in use.
          - Valid only if O(devices[].policy=default) or O(devices[].policy=driver).
        type: int
      tag:
        description:
          - Name that you choose for the device. The symbolic links C(/dev/vfio/by-tag/NAME) and, if
            the kernel creates a node for the device itself, C(/dev/vfio/devices/by-tag/NAME) point
            to its nodes, whatever their numbers are.
          - Up to 64 letters, digits, V(.), V(_) and V(-), not beginning with V(.) or V(-). Each tag
            must be unique, and an entry with a tag must not match more than one device.
          - Valid only if O(devices[].policy=vfio).
        type: str
"""
