#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that no driver takes by itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: no_autobind
short_description: Keep drivers from taking devices by themselves
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Sets C(driver_override) of devices to V(none), which no driver is called, so that none takes
    them until somebody asks for it. It makes no difference whether the native driver is loaded
    already, comes later or is built in.
  - Lasts until the next boot. Use M(armfleet.vfio.host_policy) for what shall last.
options:
  devices:
    description:
      - The devices. Each entry has exactly one of O(devices[].dt_path), O(devices[].compatible),
        O(devices[].acpi_path), O(devices[].acpi_hid) and O(devices[].name). An empty list is an
        error.
    required: true
  state:
    description:
      - V(present) keeps drivers off the devices.
      - V(absent) clears the override V(none) and gives the devices back to their native drivers. A
        device with another override is left as it is.
    type: str
    choices: [present, absent]
    default: present
  unbind:
    description:
      - Whether a device is also taken from the driver that it has, or with O(state=absent) bound to
        its native driver. With V(false) the override alone is changed.
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

- name: The same from the next probe on, without taking it from its driver now
  armfleet.vfio.no_autobind:
    devices:
      - compatible: acme,uart-v1
    unbind: false

- name: Let the native driver have it again
  armfleet.vfio.no_autobind:
    devices:
      - dt_path: /soc/serial@b200000
    state: absent
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
      sample: b200000.serial
    bus:
      description: V(platform) or V(amba).
      returned: always
      type: str
      sample: platform
    dt_path:
      description: Path of its node in the device tree; null without one.
      returned: always
      type: str
      sample: /soc/serial@b200000
    compatible:
      description: Its C(compatible) strings, most specific first; empty without such a node.
      returned: always
      type: list
      elements: str
      sample: ["acme,uart-v1"]
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
      sample: null
    driver_override:
      description: The override; null if it is not set.
      returned: always
      type: str
      sample: none
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
      sample: {driver: acme-uart, driver_override: null}
    after:
      description: The same after the run, as read back; in check mode as a run would leave it.
      returned: always
      type: dict
      sample: {driver: null, driver_override: none}
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
        - set driver_override to none (was unset)
        - unbind from acme-uart
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
from ansible_collections.armfleet.vfio.plugins.module_utils._report import state_module

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
    state_module.run("no_autobind", SPEC, to_request)


if __name__ == "__main__":
    main()
