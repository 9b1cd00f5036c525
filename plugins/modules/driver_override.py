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
  - Sets C(driver_override) of devices, so that only the driver of that name can take them, or
    clears it.
  - As with the kernel's own file, a device stays on the driver that it has unless O(rebind=true).
  - Lasts until the next boot. Use M(armfleet.vfio.host_policy) for what shall last.
options:
  devices:
    description:
      - The devices. Each entry has exactly one of O(devices[].dt_path), O(devices[].compatible),
        O(devices[].acpi_path), O(devices[].acpi_hid) and O(devices[].name). An empty list is an
        error.
    required: true
  driver:
    description:
      - Name of the driver as in C(/sys/bus/*/drivers), not of its module. Required with
        O(state=present).
      - A driver that is not registered yet is accepted with O(rebind=false). A name that no driver
        of the device's bus can have, such as that of a driver of another bus or of a loaded module
        whose drivers are called otherwise, is refused.
    type: str
  state:
    description: V(present) sets the override, V(absent) clears it.
    type: str
    choices: [present, absent]
    default: present
  rebind:
    description:
      - Whether each device also changes to the driver that the override asks for, or with
        O(state=absent) to its native driver.
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

- name: Clear the override and give the device back to its native driver
  armfleet.vfio.driver_override:
    devices:
      - dt_path: /soc/dma@b100000
    state: absent
    rebind: true
"""

RETURN = r"""
devices:
  description: The devices that the entries match, in the order of the list, each once.
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
      description: V(platform) or V(amba).
      returned: always
      type: str
      sample: platform
    dt_path:
      description: Path of its node in the device tree; null without one.
      returned: always
      type: str
      sample: /soc/dma@b100000
    compatible:
      description: Its C(compatible) strings, most specific first; empty without such a node.
      returned: always
      type: list
      elements: str
      sample: ["acme,dma-v1"]
    acpi_path:
      description: Path in the ACPI namespace; null without one.
      returned: always
      type: str
      sample: null
    acpi_hid:
      description: ACPI hardware id; null without one.
      returned: always
      type: str
      sample: null
    driver:
      description: The driver that it is bound to; null if none.
      returned: always
      type: str
      sample: acme-dma
    driver_override:
      description: The override; null if it is not set.
      returned: always
      type: str
      sample: acme-dma-uio
    iommu_group:
      description:
        - Number of its IOMMU group; null without one. Not the same from boot to boot.
        - Linux 6.1 and 6.12 make the group when the first driver is tried, so it can be null until
          then.
      returned: always
      type: str
      sample: null
    vfio_nodes:
      description: The nodes by which user space opens it, while it is bound to VFIO.
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
      description: The same after the run, as read back; in check mode as a run would leave it.
      returned: always
      type: dict
      sample: {driver: acme-dma, driver_override: acme-dma-uio}
    changed:
      description: Whether anything was, or in check mode would be, changed on this device.
      returned: always
      type: bool
      sample: true
    steps:
      description: What was, or in check mode would be, done; empty if it was as asked already.
      returned: always
      type: list
      elements: str
      sample:
        - set driver_override to acme-dma-uio (was unset)
skipped_entries:
  description:
    - One sentence for each entry that does not count on this board, by its
      O(devices[].when_board), with the names of this board. Usually empty.
  returned: success
  type: list
  elements: str
  sample:
    - compatible 'acme,crypto-v2' applies to acme,two only, and this board is acme,one
interrupted:
  description:
    - Messages about an earlier run on this host that was interrupted, or could not be rolled back
      completely, since the last boot. Its changes are undone first. Usually empty.
  returned: success
  type: list
  elements: str
  sample: []
host_steps:
  description: What was, or in check mode would be, done to the modules of VFIO; empty if nothing.
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
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import check_driver
from ansible_collections.armfleet.vfio.plugins.module_utils._report import state_module

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
    state_module.run("driver_override", SPEC, to_request)


if __name__ == "__main__":
    main()
