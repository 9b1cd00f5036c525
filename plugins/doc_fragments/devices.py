# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How devices are named: the option C(devices) of every module."""

from __future__ import annotations


class ModuleDocFragment:
    """Selectors alone, and selectors with a policy.

    Ansible does not merge suboptions, so both have the selectors' text, which a test keeps equal.
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
            V(/proc/device-tree) or V(/sys/firmware/devicetree/base) is dropped.
          - Without a leading slash it starts with an alias of the device tree, for example
            V(ethernet0) or V(soc0/crypto@1). The aliases are listed in
            C(/proc/device-tree/aliases).
        type: str
      compatible:
        description:
          - Every device that lists this string among its C(compatible) strings, exactly.
        type: str
      acpi_path:
        description:
          - Absolute path in the ACPI namespace, for example V(\\_SB_.VR00), as in
            C(firmware_node/path).
        type: str
      acpi_hid:
        description:
          - Every device with this ACPI hardware id, for example V(LNRO0005), as in
            C(firmware_node/hid).
        type: str
      name:
        description:
          - The device's name in C(/sys/bus/*/devices).
          - The kernel makes such names from addresses and numbers, so prefer the other selectors.
        type: str
      bus:
        description:
          - The bus of the device, together with O(devices[].name) only.
        type: str
        choices: [platform, amba]
      expect:
        description:
          - The exact number of devices that this entry must match, V(1) or more. Any other number
            is an error before anything is touched.
        type: int
      required:
        description:
          - Whether an entry that matches no device is an error. V(false) suits lists that serve
            different machines.
        type: bool
        default: true
      when_board:
        description:
          - The board, or a list of boards, that the entry is for. On any other board it is as if it
            were not there, so that one list serves a fleet. Unset, it is for all boards.
          - A board is named by one of the C(compatible) strings of the device tree's root, as in
            C(/proc/device-tree/compatible). Where the machine boots with ACPI and has no such file,
            it is named by C(product_name) or C(board_name) in C(/sys/class/dmi/id). Names are
            compared exactly; RV(armfleet.vfio.device_info#module:board) has them.
          - Where it is not known which board this is, as in an image without a C(/sys), such an
            entry is an error before anything is touched.
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
            V(/proc/device-tree) or V(/sys/firmware/devicetree/base) is dropped.
          - Without a leading slash it starts with an alias of the device tree, for example
            V(ethernet0) or V(soc0/crypto@1). The aliases are listed in
            C(/proc/device-tree/aliases).
        type: str
      compatible:
        description:
          - Every device that lists this string among its C(compatible) strings, exactly.
        type: str
      acpi_path:
        description:
          - Absolute path in the ACPI namespace, for example V(\\_SB_.VR00), as in
            C(firmware_node/path).
        type: str
      acpi_hid:
        description:
          - Every device with this ACPI hardware id, for example V(LNRO0005), as in
            C(firmware_node/hid).
        type: str
      name:
        description:
          - The device's name in C(/sys/bus/*/devices).
          - The kernel makes such names from addresses and numbers, so prefer the other selectors.
        type: str
      bus:
        description:
          - The bus of the device, together with O(devices[].name) only.
        type: str
        choices: [platform, amba]
      expect:
        description:
          - The exact number of devices that this entry must match, V(1) or more. Any other number
            is an error before anything is touched.
        type: int
      required:
        description:
          - Whether an entry that matches no device is an error. V(false) suits lists that serve
            different machines.
        type: bool
        default: true
      when_board:
        description:
          - The board, or a list of boards, that the entry is for. On any other board it is as if it
            were not there, so that one list serves a fleet. Unset, it is for all boards.
          - A board is named by one of the C(compatible) strings of the device tree's root, as in
            C(/proc/device-tree/compatible). Where the machine boots with ACPI and has no such file,
            it is named by C(product_name) or C(board_name) in C(/sys/class/dmi/id). Names are
            compared exactly; RV(armfleet.vfio.device_info#module:board) has them.
          - Where it is not known which board this is, as in an image without a C(/sys), such an
            entry is an error before anything is touched.
        type: raw

      policy:
        description:
          - V(vfio) sets the override and binds the device to C(vfio-platform) or C(vfio-amba),
            whichever its bus has.
          - V(no_autobind) sets the override to V(none), so that no driver takes the device by
            itself, and takes it from the driver that it has.
          - V(driver) sets the override to O(devices[].driver) and binds the device to that driver.
          - V(default) clears the override and gives the device back to its native driver.
        type: str
        required: true
        choices: [vfio, no_autobind, driver, default]
      driver:
        description:
          - Name of the driver as in C(/sys/bus/*/drivers), not of its module.
          - Required with O(devices[].policy=driver).
        type: str
      tag:
        description:
          - A name of your own for the device. The links C(/dev/vfio/by-tag/NAME) and, where the
            kernel makes a node for the device itself, C(/dev/vfio/devices/by-tag/NAME) lead to its
            nodes, however these are numbered.
          - Up to 64 letters, digits, V(.), V(_) and V(-); not V(.) or V(-) at the beginning. No two
            entries have the same, and an entry that has one matches one device at most.
          - Goes with O(devices[].policy=vfio) only.
        type: str
"""
