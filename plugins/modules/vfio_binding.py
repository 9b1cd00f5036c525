#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices given to VFIO."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vfio_binding
short_description: Bind devices to VFIO or release them
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Binds devices to the VFIO driver of their bus, C(vfio-platform) or C(vfio-amba), so that user
    space can open them through C(/dev/vfio). The override is set first, so that the native driver
    cannot bind them again in between.
  - Loads the VFIO module if it is not loaded. The kernel has marked C(vfio-amba) for removal since
    Linux 6.18.
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
      - V(bound) binds the devices to VFIO.
      - V(released) releases the devices that are bound to VFIO to their native drivers. A device
        with an override for another driver is left unchanged.
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
    description: How user space uses the nodes.
    link: https://www.kernel.org/doc/html/latest/driver-api/vfio.html
"""

EXAMPLES = r"""
- name: Bind two devices to VFIO
  armfleet.vfio.vfio_binding:
    devices:
      - dt_path: /soc/crypto@b000000
      - dt_path: crypto1
    reset_required: false

- name: Bind a device without an IOMMU to VFIO
  armfleet.vfio.vfio_binding:
    devices:
      - acpi_hid: LNRO0005
        expect: 1
    reset_required: false
    unsafe_noiommu: true

- name: Release them to their native drivers
  armfleet.vfio.vfio_binding:
    devices:
      - dt_path: /soc/crypto@b000000
      - dt_path: crypto1
    state: released
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
      sample: b000000.crypto
    bus:
      description: V(platform), V(amba), V(pci) or another bus with C(driver_override).
      returned: always
      type: str
      sample: platform
    dt_path:
      description: Path of its node in the device tree; null if it has none.
      returned: always
      type: str
      sample: /soc/crypto@b000000
    compatible:
      description: >-
        Its C(compatible) strings, most specific first; empty if it has no device-tree node.
      returned: always
      type: list
      elements: str
      sample: ["acme,crypto-v2", "acme,crypto"]
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
      sample: vfio-platform
    driver_override:
      description: Its override; null if unset.
      returned: always
      type: str
      sample: vfio-platform
    iommu_group:
      description:
        - Number of its IOMMU group; null if it has none. The number can change with each reboot.
        - Linux 6.1 and 6.12 create the group when the first driver is probed, so it can be null
          until then.
      returned: always
      type: str
      sample: "5"
    vfio_nodes:
      description: Nodes through which user space opens the device while it is bound to VFIO.
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
      description: >-
        C(driver) and C(driver_override) after the run, as read back, or in check mode as a run
        would set them.
      returned: always
      type: dict
      sample: {driver: vfio-platform, driver_override: vfio-platform}
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
        - set driver_override to vfio-platform (was unset)
        - unbind from acme-crypto
        - bind to vfio-platform
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
  sample: [load module vfio-platform with reset_required=N]
kept_settings:
  description:
    - Messages about settings of VFIO modules that keep a value which is no longer requested, with
      the reason. Usually empty.
    - If C(enable_unsafe_noiommu_mode) or C(allow_unsafe_interrupts) stays on, the run that would
      have turned it off also issues a warning.
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
