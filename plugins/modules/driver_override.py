#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The override of devices."""

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_override
short_description: Set or clear the driver override of devices
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Sets C(driver_override) of devices, so that only the driver of that name can bind them, or
    clears it.
  - As with the kernel's own file, a device stays bound to its driver unless O(rebind=true).
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
  driver:
    description:
      - Name of the driver as in C(/sys/bus/*/drivers), not the name of its module.
      - Required if O(state=present).
      - A driver that is not registered yet is accepted if O(rebind=false). The name of a driver of
        another bus is rejected, and so is the name of a loaded module whose drivers have other
        names.
    type: str
  state:
    description: V(present) sets the override. V(absent) clears it.
    type: str
    choices: [present, absent]
    default: present
  rebind:
    description: >-
      Whether to also bind each device to the driver that the override names, or if O(state=absent),
      to its native driver.
    type: bool
    default: false
extends_documentation_fragment:
  - armfleet.vfio.attributes
  - armfleet.vfio.attributes.changes
  - armfleet.vfio.devices
  - armfleet.vfio.safety
seealso:
  - module: armfleet.vfio.host_policy
  - module: armfleet.vfio.no_autobind
"""

EXAMPLES = r"""
- name: Reserve a device for a driver that is loaded later
  armfleet.vfio.driver_override:
    devices:
      - dt_path: /soc/dma@b100000
    driver: acme-dma-uio

- name: Move both devices of a kind to another driver now
  armfleet.vfio.driver_override:
    devices:
      - compatible: acme,dma-v1
        expect: 2
    driver: acme-dma-uio
    rebind: true

- name: Clear the override and release the device to its native driver
  armfleet.vfio.driver_override:
    devices:
      - dt_path: /soc/dma@b100000
    state: absent
    rebind: true
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
      sample: b100000.dma
    bus:
      description: V(platform), V(amba), V(pci) or another bus with C(driver_override).
      returned: always
      type: str
      sample: platform
    dt_path:
      description: Path of its node in the device tree; null if it has none.
      returned: always
      type: str
      sample: /soc/dma@b100000
    compatible:
      description: >-
        Its C(compatible) strings, most specific first; empty if it has no device-tree node.
      returned: always
      type: list
      elements: str
      sample: ["acme,dma-v1"]
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
      sample: acme-dma
    driver_override:
      description: Its override; null if unset.
      returned: always
      type: str
      sample: acme-dma-uio
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
      sample: {driver: acme-dma, driver_override: null}
    after:
      description: >-
        C(driver) and C(driver_override) after the run, as read back, or in check mode as a run
        would set them.
      returned: always
      type: dict
      sample: {driver: acme-dma, driver_override: acme-dma-uio}
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
        - set driver_override to acme-dma-uio (was unset)
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
        /soc/dma@b100000 (platform device b100000.dma): driver acme-dma,
        driver_override (unset)
      after: >
        /soc/dma@b100000 (platform device b100000.dma): driver acme-dma,
        driver_override acme-dma-uio
"""

from typing import Any, Mapping

from ansible_collections.armfleet.vfio.plugins.module_utils import _argspec
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import Problems
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import (
    DEFAULT,
    DRIVER,
    Policy,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector_entry import (
    check_driver,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._report import results, state_module

SPEC: dict[str, Any] = {
    "argument_spec": {
        "devices": _argspec.devices(required=True),
        "driver": {"type": "str"},
        "state": _argspec.state("present", "absent"),
        "rebind": {"type": "bool", "default": False},
        **_argspec.SAFETY,
    },
    "required_if": [["state", "present", ["driver"]]],
}


def to_request(params: Mapping[str, Any]) -> Request:
    """Return what the options ask for; PolicyError if the driver's name can be none."""
    if params["state"] == "absent":
        return state_module.request_of_one_policy(params, Policy(DEFAULT, rebind=params["rebind"]))
    problems = Problems()
    with problems.collecting():
        check_driver(params["driver"])
    policy = Policy(DRIVER, params["driver"], rebind=params["rebind"])
    request = state_module.request_of_one_policy(params, policy)
    if problems.sentences:
        # What the devices make of such a name need not be inspected.
        for position, sentence in request.problems:
            problems.add(sentence, position=position)
        problems.end()
    return request


def main() -> None:
    """Run the module."""
    state_module.run("driver_override", SPEC, to_request, results.result)


if __name__ == "__main__":
    main()
