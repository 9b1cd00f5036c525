#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that no driver takes by itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: no_autobind
short_description: Prevent drivers from binding devices automatically
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Sets C(driver_override) of devices to V(none), which is the name of no driver, so that no driver
    binds them until another override is set. This works whether the native driver is loaded
    already, is loaded later or is built in.
  - The change does not persist across reboots. Use M(armfleet.vfio.host_policy) for a persistent
    configuration.
options:
  devices:
    description: >-
      Devices to change. Each entry has exactly one of O(devices[].dt_path),
      O(devices[].compatible), O(devices[].acpi_path), O(devices[].acpi_hid),
      O(devices[].pci_address), O(devices[].pci_id) and O(devices[].name).
      An empty list is an error.
    required: true
  state:
    description:
      - V(present) keeps drivers off the devices.
      - V(absent) clears the override V(none) and releases the devices to their native drivers. A
        device with another override is left unchanged.
    type: str
    choices: [present, absent]
    default: present
  unbind:
    description: >-
      Whether to also unbind the devices from their drivers, or if O(state=absent), to bind them to
      their native drivers. If V(false), only the override is changed.
    type: bool
    default: true
extends_documentation_fragment:
  - armfleet.vfio.attributes
  - armfleet.vfio.attributes.changes
  - armfleet.vfio.devices
  - armfleet.vfio.safety
seealso:
  - module: armfleet.vfio.host_policy
  - module: armfleet.vfio.driver_override
"""

EXAMPLES = r"""
- name: Keep drivers off a device
  armfleet.vfio.no_autobind:
    devices:
      - dt_path: /soc/serial@b200000

- name: Keep drivers off devices from the next probe on, without unbinding them now
  armfleet.vfio.no_autobind:
    devices:
      - compatible: acme,uart-v1
    unbind: false

- name: Release the device to its native driver
  armfleet.vfio.no_autobind:
    devices:
      - dt_path: /soc/serial@b200000
    state: absent
"""

RETURN = r"""
devices:
  description: Devices that match the entries, in the order of the list, each once.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name in C(/sys/bus/*/devices).
      returned: always
      type: str
      sample: b200000.serial
    bus:
      description: V(platform), V(amba), V(pci) or another bus with C(driver_override).
      returned: always
      type: str
      sample: platform
    dt_path:
      description: Path of its node in the device tree; null if it has none.
      returned: always
      type: str
      sample: /soc/serial@b200000
    compatible:
      description: >-
        Its C(compatible) strings, most specific first; empty if it has no device-tree node.
      returned: always
      type: list
      elements: str
      sample: ["acme,uart-v1"]
    acpi_path:
      description: Path in the ACPI namespace; null if it has none.
      returned: always
      type: str
      sample: null
    acpi_hid:
      description: ACPI hardware id; null if it has none.
      returned: always
      type: str
      sample: null
    acpi_uid:
      description: ACPI C(_UID), as in C(firmware_node/uid); null if it has none.
      returned: always
      type: str
      sample: null
    pci_id:
      description: >-
        Vendor, device, and those of the subsystem of a PCI function; null for other devices.
      returned: always
      type: str
      sample: null
    driver:
      description: Driver that it is bound to; null if none.
      returned: always
      type: str
      sample: null
    driver_override:
      description: Its override; null if unset.
      returned: always
      type: str
      sample: none
    iommu_group:
      description:
        - Number of its IOMMU group; null if it has none. The number can change with each reboot.
        - Linux 6.1 and 6.12 create the group when the first driver is probed, so it can be null
          until then.
      returned: always
      type: str
      sample: null
    vfio_nodes:
      description: Nodes through which user space opens the device while it is bound to VFIO.
      returned: always
      type: list
      elements: str
      sample: []
    before:
      description: C(driver) and C(driver_override) before the run.
      returned: always
      type: dict
      sample: {driver: acme-uart, driver_override: null}
    after:
      description: >-
        C(driver) and C(driver_override) after the run, as read back, or in check mode as a run
        would set them.
      returned: always
      type: dict
      sample: {driver: null, driver_override: none}
    changed:
      description: Whether the device was changed, or in check mode would be changed.
      returned: always
      type: bool
      sample: true
    steps:
      description: >-
        Steps that were done, or in check mode would be done; empty if the device was already in
        sync.
      returned: always
      type: list
      elements: str
      sample:
        - set driver_override to none (was unset)
        - unbind from acme-uart
skipped_entries:
  description: >-
    Messages about entries that do not apply to this board because of O(devices[].when_board), one
    for each, with the names of this board. Usually empty.
  returned: success
  type: list
  elements: str
  sample:
    - compatible 'acme,crypto-v2' applies to acme,two only, and this board is acme,one
interrupted:
  description: >-
    Messages about an earlier run since the last boot that was interrupted, or could not be rolled
    back completely. This run rolls its changes back first. Usually empty.
  returned: success
  type: list
  elements: str
  sample: []
host_steps:
  description: >-
    Changes of VFIO modules that were done, or in check mode would be done; empty if none.
  returned: success
  type: list
  elements: str
  sample: []
diff:
  description:
    - Where something differs, one part for the devices, one for the modules of VFIO.
  returned: success
  type: list
  elements: dict
  sample:
    - before_header: devices
      after_header: devices
      before: >
        /soc/serial@b200000 (platform device b200000.serial): driver acme-uart,
        driver_override (unset)
      after: >
        /soc/serial@b200000 (platform device b200000.serial): driver (none),
        driver_override none
"""

from typing import Any, Mapping

from ansible_collections.armfleet.vfio.plugins.module_utils import _argspec
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import NO_AUTOBIND, Policy
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._report import results, state_module

SPEC: dict[str, Any] = {
    "argument_spec": {
        "devices": _argspec.devices(required=True),
        "state": _argspec.state("present", "absent"),
        "unbind": {"type": "bool", "default": True},
        **_argspec.SAFETY,
    }
}


def to_request(params: Mapping[str, Any]) -> Request:
    """Return what the options ask for."""
    policy = Policy(NO_AUTOBIND, rebind=params["unbind"])
    return state_module.request_of_one_policy(
        params, policy, is_release=params["state"] == "absent"
    )


def main() -> None:
    """Run the module."""
    state_module.run("no_autobind", SPEC, to_request, results.result)


if __name__ == "__main__":
    main()
