# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: host_state
short_description: Return the state of a host from a result of device_info
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Returns the state of a host, a message and a summary of its devices, from a registered result of
    M(armfleet.vfio.device_info).
  - Accepts every result, including those of hosts that failed or are unreachable. It never fails
    because of the content of a host's answer.
  - Texts from a host are data. They are never evaluated as templates, wherever the result is used.
positional: host
options:
  _input:
    description:
      - Registered result; null or empty if there is none.
      - Its task needs C(ignore_unreachable) and C(ignore_errors), so that hosts which cannot be
        read have one.
    type: dict
    required: true
  host:
    description: Name of the host, as in the inventory.
    type: str
    required: true
seealso:
  - module: armfleet.vfio.device_info
"""

EXAMPLES = r"""
- name: Read the devices
  armfleet.vfio.device_info:
  register: device_info
  ignore_errors: true
  ignore_unreachable: true

- name: Show the state of the host
  ansible.builtin.debug:
    msg: "{{ (device_info | armfleet.vfio.host_state(inventory_hostname)).message }}"
"""

RETURN = r"""
_value:
  description: State of the host for a report.
  type: dict
  contains:
    host:
      description: Name of the host in the inventory.
      returned: always
      type: str
      sample: board-7
    state:
      description:
        - V(in_sync) if a list was applied and nothing differs from it, now or after the next boot.
        - V(unmanaged) if no list was applied and the next boot changes nothing.
        - V(reboot_required) if the list was applied only for the next boot, and the host was not
          rebooted since.
        - V(drift) if a device differs from the last-applied configuration, now or after the next
          boot, if a boot file differs from it, or if an entry matches no device any more.
        - V(failed) if the host was reached but its devices could not be read, or if it was not
          read.
        - V(unreachable) if the host could not be reached.
      returned: always
      type: str
      sample: drift
    message:
      description: The same as text on one line, with a remedy if one is known.
      returned: always
      type: str
      sample: >-
        It cannot be reached: connect to host 192.0.2.7 port 22: Connection refused. Check that its
        SSH server is running, and check ansible_port.
    devices:
      description: Devices of the host; empty if they could not be read.
      returned: always
      type: list
      elements: dict
      contains:
        device:
          description: >-
            Path in the device tree or in the ACPI namespace, or its name if it has neither.
          returned: always
          type: str
          sample: /soc/crypto@b000000
        name:
          description: Name in C(/sys/bus/*/devices).
          returned: always
          type: str
          sample: b000000.crypto
        bus:
          description: V(platform), V(amba), V(pci) or another bus with C(driver_override).
          returned: always
          type: str
          sample: platform
        driver:
          description: Driver that it is bound to; null if none.
          returned: always
          type: str
          sample: acme-crypto
        driver_override:
          description: Its override; null if unset.
          returned: always
          type: str
          sample: null
        desired:
          description: >-
            C(driver) and C(driver_override) that the last-applied configuration requires; null if
            it does not claim the device.
          returned: always
          type: dict
          sample: {driver: vfio-platform, driver_override: vfio-platform}
        next_boot:
          description: >-
            C(driver) and C(driver_override) after the next boot, whether they are C(known), the
            C(reason), and whether it is in a message of RV(_value.devices[].drift) as well
            (C(in_drift)).
          returned: always
          type: dict
          sample:
            driver: vfio-platform
            driver_override: vfio-platform
            known: true
            reason: policy vfio of the last-applied configuration
            in_drift: false
        drift:
          description: Messages about differences; empty if there are none.
          returned: always
          type: list
          elements: str
          sample:
            - >-
              it is bound to acme-crypto with driver_override unset, but the last-applied
              configuration requires it to be bound to vfio-platform with driver_override
              vfio-platform, as it will be after the next boot
        in_use_by:
          description: >-
            C(kind) and C(message) of each use that would fail if the device were unbound now, as
            C(in_use_by) of M(armfleet.vfio.device_info); null if unknown, as without root
            privileges.
          returned: always
          type: list
          elements: dict
          sample: [{kind: network, message: network interface eth0 is up}]
        compatible:
          description: Its C(compatible) strings, the most specific first.
          returned: always
          type: list
          elements: str
          sample: ["acme,crypto-v2", "acme,crypto"]
        acpi_hid:
          description: ACPI hardware ID; null if it has none.
          returned: always
          type: str
          sample: null
        pci_id:
          description: >-
            Vendor, device, and those of the subsystem of a PCI function; null for other devices.
          returned: always
          type: str
          sample: null
        iommu_group:
          description: Number of its IOMMU group; null if it is in none.
          returned: always
          type: str
          sample: "5"
        iommu_group_devices:
          description: Other devices of its IOMMU group.
          returned: always
          type: list
          elements: str
          sample: []
        reset_function:
          description: >-
            Whether the kernel has a reset function for it, as C(reset_function) of
            M(armfleet.vfio.device_info).
          returned: always
          type: bool
          sample: false
        candidate:
          description: >-
            Whether it can be bound to VFIO; null if unknown, as with
            O(armfleet.vfio.device_info#module:candidates=false).
          returned: always
          type: bool
          sample: false
        why_not:
          description: >-
            C(kind) and C(message) of each reason why it is not a candidate; empty if it is one. All
            uses that are in RV(_value.devices[].in_use_by) are one reason, V(in_use).
          returned: always
          type: list
          elements: dict
          sample: [{kind: in_use, message: in use}]
        entry:
          description: Entry of a policy list for a candidate; null for other devices.
          returned: always
          type: dict
          sample: {dt_path: /soc/crypto@b000000, policy: vfio}
        settings:
          description: >-
            Options of M(armfleet.vfio.host_policy) that a candidate requires; null for other
            devices.
          returned: always
          type: dict
          sample: {reset_required: false}
    boot_files:
      description: >-
        Messages about differences between boot files and the last-applied configuration, and about
        directories in which users other than root can replace them; empty if there are none.
      returned: always
      type: list
      elements: str
      sample: [/etc/modules-load.d/armfleet-vfio.conf is empty]
    lost_entries:
      description: >-
        C(message) of each of C(lost_entries) of M(armfleet.vfio.device_info): entries of the list
        that matched devices when it was applied, and match none now.
      returned: always
      type: list
      elements: str
      sample: []
    notes:
      description: >-
        Messages that are not drift, such as that an installed kernel lacks a module that the list
        requires, or that the history of rollouts cannot be read. The first of them is appended to
        RV(_value.message).
      returned: always
      type: list
      elements: str
      sample: []
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _host_report
from ansible_collections.armfleet.vfio.plugins.plugin_utils._unsafe import make_unsafe


def host_state(result: Mapping[str, Any] | None, host: str) -> Any:
    """As documented above."""
    if result is not None and not isinstance(result, Mapping):
        raise AnsibleFilterError(
            "armfleet.vfio.host_state takes the registered result of armfleet.vfio.device_info, a "
            "dictionary, and was given %s" % type(result).__name__
        )
    return make_unsafe(_host_report.host_state(str(host), result))


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"host_state": host_state}
