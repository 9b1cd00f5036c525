#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices given to VFIO."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vfio_binding
short_description: Bind devices to VFIO or give them back
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Sets the override of devices and binds them to C(vfio-platform) or C(vfio-amba), whichever their
    bus has, so that user space can open them by C(/dev/vfio). The override comes first, so there is
    no moment in which the native driver can take a device back.
  - Loads the module of VFIO if it is not loaded.
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
      - V(bound) gives the devices to VFIO.
      - V(released) gives those that are with VFIO back to their native drivers. A device with an
        override for another driver is left as it is.
    type: str
    choices: [bound, released]
    default: bound
extends_documentation_fragment:
  - armfleet.vfio.attributes
  - armfleet.vfio.attributes.changes
  - armfleet.vfio.devices
  - armfleet.vfio.safety
  - armfleet.vfio.safety.vfio
seealso:
  - module: armfleet.vfio.host_policy
  - name: VFIO in the kernel's documentation
    description: What user space does with the nodes.
    link: https://www.kernel.org/doc/html/latest/driver-api/vfio.html
"""

EXAMPLES = r"""
- name: Give two devices to VFIO
  armfleet.vfio.vfio_binding:
    devices:
      - dt_path: /soc/crypto@b000000
      - dt_path: crypto1
    reset_required: false

- name: Give a device to VFIO that has no IOMMU
  armfleet.vfio.vfio_binding:
    devices:
      - acpi_hid: LNRO0005
        expect: 1
    reset_required: false
    unsafe_noiommu: true

- name: Give them back to their native drivers
  armfleet.vfio.vfio_binding:
    devices:
      - dt_path: /soc/crypto@b000000
      - dt_path: crypto1
    state: released
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
      sample: b000000.crypto
    bus:
      description: V(platform) or V(amba).
      returned: always
      type: str
      sample: platform
    dt_path:
      description: Path of its node in the device tree; null without one.
      returned: always
      type: str
      sample: /soc/crypto@b000000
    compatible:
      description: Its C(compatible) strings, most specific first; empty without such a node.
      returned: always
      type: list
      elements: str
      sample: ["acme,crypto-v2", "acme,crypto"]
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
      sample: vfio-platform
    driver_override:
      description: The override; null if it is not set.
      returned: always
      type: str
      sample: vfio-platform
    iommu_group:
      description:
        - Number of its IOMMU group; null without one. Not the same from boot to boot.
        - Linux 6.1 and 6.12 make the group when the first driver is tried, so it can be null until
          then.
      returned: always
      type: str
      sample: "5"
    vfio_nodes:
      description: The nodes by which user space opens it, while it is bound to VFIO.
      returned: always
      type: list
      elements: str
      sample: [/dev/vfio/5, /dev/vfio/devices/vfio0]
    before:
      description: C(driver) and C(driver_override) before the run.
      returned: always
      type: dict
      sample: {driver: acme-crypto, driver_override: null}
    after:
      description: The same after the run, as read back; in check mode as a run would leave it.
      returned: always
      type: dict
      sample: {driver: vfio-platform, driver_override: vfio-platform}
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
        - set driver_override to vfio-platform (was unset)
        - unbind from acme-crypto
        - bind to vfio-platform
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
  sample: [load module vfio-platform with reset_required=N]
kept_settings:
  description:
    - A sentence for each setting of the modules of VFIO that stays as it was asked for, though
      nothing asks for it now, and why. Usually empty.
    - That C(enable_unsafe_noiommu_mode) stays on is also a warning of the run that would have
      turned it off.
  returned: success
  type: list
  elements: str
  sample:
    - >-
      vfio.enable_unsafe_noiommu_mode stays Y: platform/b200000.serial is bound to VFIO without an
      IOMMU
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
        /soc/crypto@b000000 (platform device b000000.crypto): driver acme-crypto,
        driver_override (unset)
      after: >
        /soc/crypto@b000000 (platform device b000000.crypto): driver vfio-platform,
        driver_override vfio-platform
    - before_header: kernel modules
      after_header: kernel modules
      before: ""
      after: |
        load module vfio-platform with reset_required=N
"""

from typing import Any, Mapping

from ansible_collections.armfleet.vfio.plugins.module_utils import _argspec
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import VFIO, Policy
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._report import results, state_module

SPEC: dict[str, Any] = {
    "argument_spec": {
        "devices": _argspec.devices(required=True),
        "state": _argspec.state("bound", "released"),
        **_argspec.VFIO_SETTINGS,
        **_argspec.SAFETY,
    }
}


def to_request(params: Mapping[str, Any]) -> Request:
    """Return what the options ask for."""
    request = state_module.request_of_one_policy(
        params, Policy(VFIO), is_release=params["state"] == "released"
    )
    return request._replace(settings=state_module.vfio_settings(params))


def main() -> None:
    """Run the module."""
    state_module.run("vfio_binding", SPEC, to_request, results.vfio_result)


if __name__ == "__main__":
    main()
