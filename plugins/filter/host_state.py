# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: host_state
short_description: Say in what state a host is, by what device_info returned
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Makes of a registered result of M(armfleet.vfio.device_info) the state of the host, one
    sentence for people and its devices in short.
  - Takes every result, that of a host which failed or cannot be reached as well. It never fails
    because of what a host said.
  - What a host said is data. It is never taken for a template, wherever the result is used.
positional: host
options:
  _input:
    description:
      - The registered result; null or empty where there is none.
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
  register: found
  ignore_errors: true
  ignore_unreachable: true

- name: Say how the host is
  ansible.builtin.debug:
    msg: "{{ (found | armfleet.vfio.host_state(inventory_hostname)).message }}"
"""

RETURN = r"""
_value:
  description: The host as a report shows it.
  type: dict
  contains:
    host:
      description: Its name in the inventory.
      returned: always
      type: str
      sample: board-7
    state:
      description:
        - V(in_sync) if a list was applied, and nothing differs from it, now or after the next
          boot.
        - V(unmanaged) if no list was applied, and the next boot changes nothing.
        - V(reboot_required) if the list was applied for the next boot only, and the host was not
          rebooted since.
        - V(drift) if a device differs from the list, or will after the next boot, or if a boot file
          is not as the list last applied renders it.
        - V(failed) if it was reached and its devices could not be read, or if it was not read at
          all.
        - V(unreachable) if it could not be reached.
      returned: always
      type: str
      sample: drift
    message:
      description: The same in plain words on one line, with what to do where that is known.
      returned: always
      type: str
      sample: >-
        It cannot be reached: connect to host 192.0.2.7 port 22: Connection refused. Check that its
        SSH server is running, and check ansible_port.
    devices:
      description: Its devices; empty where they could not be read.
      returned: always
      type: list
      elements: dict
      contains:
        device:
          description: Path in the device tree, or in the ACPI namespace, or else its name.
          returned: always
          type: str
          sample: /soc/crypto@b000000
        name:
          description: Name in C(/sys/bus/*/devices).
          returned: always
          type: str
          sample: b000000.crypto
        bus:
          description: V(platform) or V(amba).
          returned: always
          type: str
          sample: platform
        driver:
          description: The driver that it is bound to; null if none.
          returned: always
          type: str
          sample: acme-crypto
        driver_override:
          description: The override; null if it is not set.
          returned: always
          type: str
          sample: null
        desired:
          description: >-
            What the list last applied wants, C(driver) and C(driver_override); null where it says
            nothing of the device.
          returned: always
          type: dict
          sample: {driver: vfio-platform, driver_override: vfio-platform}
        next_boot:
          description: >-
            What it will be after the next boot, C(driver) and C(driver_override), whether that is
            C(known), and the C(reason).
          returned: always
          type: dict
          sample:
            driver: vfio-platform
            driver_override: vfio-platform
            known: true
            reason: policy vfio of the last-applied configuration
        drift:
          description: A sentence for each difference; empty where there is none.
          returned: always
          type: list
          elements: str
          sample:
            - >-
              it is bound to acme-crypto with driver_override unset, but the last-applied
              configuration requires it to be bound to vfio-platform with driver_override
              vfio-platform
        in_use_by:
          description: >-
            What would be hurt if it lost its driver now, C(kind) and C(message), as C(in_use_by) of
            M(armfleet.vfio.device_info); null where that is not known, as without root.
          returned: always
          type: list
          elements: dict
          sample: [{kind: network, message: network interface eth0 is up}]
    boot_files:
      description: >-
        A sentence for each difference of a boot file from what the list last applied renders, and
        for each directory in which others than root can replace one; empty where there is none.
      returned: always
      type: list
      elements: str
      sample: [/etc/modules-load.d/armfleet-vfio.conf is empty]
    notes:
      description: >-
        What an operator should know and is no drift, a sentence each, such as that an installed
        kernel lacks a module that the list needs. The first of them ends RV(_value.message).
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
