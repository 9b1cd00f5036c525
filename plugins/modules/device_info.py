#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of devices."""

from __future__ import annotations

DOCUMENTATION = r"""
module: device_info
short_description: Tell which driver has which device, and why
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Reads devices of the C(platform) and C(amba) buses, their drivers, overrides, IOMMU groups and
    nodes in C(/dev/vfio), why a device has its driver, what would be hurt if it lost that, and what
    it will be after the next boot.
  - Root is not needed. What another user cannot see is null, and a warning says what root would
    see. A configuration file that cannot be read fails the module.
options:
  devices:
    description:
      - The devices; all of both buses if it is not given. Each entry has exactly one of
        O(devices[].dt_path), O(devices[].compatible), O(devices[].acpi_path), O(devices[].acpi_hid)
        and O(devices[].name).
  only_claimed:
    description:
      - Whether to read only those devices that the list last applied to this host claims. On a host
        with many devices that is quicker.
    type: bool
    default: false
extends_documentation_fragment:
  - armfleet.vfio.attributes
  - armfleet.vfio.attributes.reads
  - armfleet.vfio.devices
seealso:
  - module: armfleet.vfio.host_policy
"""

EXAMPLES = r"""
- name: Read all devices
  armfleet.vfio.device_info:
  register: host

- name: List those that are with VFIO
  ansible.builtin.debug:
    msg: "{{ host.devices | selectattr('vfio_nodes') | map(attribute='name') }}"

- name: See which board a host is, and nothing else
  armfleet.vfio.device_info:
    devices: []

- name: See what two devices carry
  armfleet.vfio.device_info:
    devices:
      - dt_path: ethernet0
      - compatible: acme,crypto-v2
        required: false

- name: See why a device has its driver, and who has a say in it at the next boot
  ansible.builtin.debug:
    msg: "{{ item.bound_by.message | default('no driver') }}; {{ item.next_boot.reason }}"
  loop: "{{ host.devices }}"
  loop_control:
    label: "{{ item.name }}"

- name: See what became of the devices of the list last applied
  armfleet.vfio.device_info:
    only_claimed: true
  register: listed

- name: Fail where something is not as the list last applied wants it, now or after the next boot
  ansible.builtin.assert:
    that: differences | length == 0
    fail_msg: "{{ differences }}"
  vars:
    differences: "{{ (host.devices + host.boot_files) | map(attribute='drift') | flatten }}"
"""

RETURN = r"""
devices:
  description:
    - The devices that the entries match, in the order of the list, each once.
    - All devices without a list.
    - With O(only_claimed=true) those of them that RV(policy_list) claims.
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
    bound_by:
      description:
        - Why it has its driver.
        - Null if it has none, and where a hanging driver holds it.
      returned: always
      type: dict
      contains:
        kind:
          description:
            - V(override) if its C(driver_override) names the driver.
            - V(compatible), V(acpi), V(amba) or V(name) if the driver's module claims one of its
              C(compatible) strings, its ACPI ids, its AMBA id or its name. Of a module with several
              drivers it is not known which of them claims what.
            - V(manual) if the module does not claim the device, as VFIO's modules never do. The
              device was bound with an override that has since been cleared.
            - V(unknown) if the reason is unknown, as for most built-in drivers.
          returned: always
          type: str
          sample: override
        message:
          description: The same as text, with what was claimed, or who sets the override.
          returned: always
          type: str
          sample: >-
            its driver_override is vfio-platform, which the last-applied configuration sets (policy
            vfio)
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
    links:
      description:
        - Links to these nodes by names that stay the same, in C(/dev/vfio) and, for the node of the
          device itself, in C(/dev/vfio/devices). C(by-path) has the device-tree path with V(:) for
          V(/), or the ACPI path, and C(by-tag) the tag that the list has for the device.
        - M(armfleet.vfio.host_policy) makes them for the devices of its list, and udev whenever
          such a device is bound.
      returned: always
      type: list
      elements: str
      sample:
        - /dev/vfio/by-path/soc:crypto@b000000
        - /dev/vfio/devices/by-path/soc:crypto@b000000
    in_use_by:
      description:
        - What would be hurt if it lost its driver now; empty if it has none.
        - Null where nothing is known and there may be something, because open files and mounts of
          other users' processes cannot be read, as without root. A warning names these devices, and
          those of which only a part is known.
      returned: always
      type: list
      elements: dict
      contains:
        kind:
          description:
            - V(console), V(storage), V(network), V(consumers), V(clock), V(watchdog) or
              V(group), as in O(armfleet.vfio.host_policy#module:allow), V(open) for a device that a
              process holds open, or V(blocked) for one that a hanging driver holds; the override of
              the latter cannot be read and is null.
          returned: always
          type: str
          sample: network
        subject:
          description: The interface, disk, terminal, device or node concerned.
          returned: always
          type: str
          sample: eth0
        message:
          description: The same in words.
          returned: always
          type: str
          sample: network interface eth0 is up
    claimed_by:
      description:
        - The entry that claims it in the list last applied by M(armfleet.vfio.host_policy).
        - Null if none does.
      returned: always
      type: dict
      sample: {dt_path: /soc/crypto@b000000, policy: vfio}
    desired:
      description:
        - What that entry asks for.
        - Null where no entry claims it, or one that leaves it to its native driver.
      returned: always
      type: dict
      contains:
        driver:
          description: The driver; null for none.
          returned: always
          type: str
          sample: vfio-platform
        driver_override:
          description: The override.
          returned: always
          type: str
          sample: vfio-platform
    next_boot:
      description:
        - How it will be after the next boot, by the list last applied, by what driverctl has
          stored, by other people's udev rules in the order of their files, and by whether the
          driver's module will be loaded.
        - Of a module that the list needs it counts whether the running kernel has it; of other
          kernels see RV(kernels).
        - What is in an initramfs is not looked at, nor services that load modules.
      returned: always
      type: dict
      contains:
        known:
          description:
            - Whether the rest is known. It is not for a device that was bound to another driver, or
              unbound, while the system runs, if its native driver is not recorded in the header of
              the rules file. Such a device is in RV(devices[].drift) unless it is without a driver
              and without an override now.
          returned: always
          type: bool
          sample: true
        driver:
          description: The driver; null for none and where it is not known.
          returned: always
          type: str
          sample: vfio-platform
        driver_override:
          description: The override; null if it will not be set.
          returned: always
          type: str
          sample: vfio-platform
        reason:
          description: Why, in words.
          returned: always
          type: str
          sample: policy vfio of the last-applied configuration
    lost_at_boot:
      description:
        - What would be hurt because the next boot gives the device to another driver than now. That
          is what is in RV(devices[].in_use_by), but for open nodes of VFIO and for groups, and what
          is configured for each boot, as O(armfleet.vfio.host_policy#module:allow) describes it.
        - Empty where the next boot leaves the device to its driver.
      returned: always
      type: list
      elements: dict
      contains:
        kind:
          description: As in RV(devices[].in_use_by).
          returned: always
          type: str
          sample: network
        subject:
          description: The interface, disk, terminal, device or node concerned.
          returned: always
          type: str
          sample: eth0
        message:
          description: The same in words.
          returned: always
          type: str
          sample: network interface eth0 is up
        accepted:
          description: >-
            Whether the kind was in O(armfleet.vfio.host_policy#module:allow) and met when the list
            was applied that waits for the next boot.
          returned: always
          type: bool
          sample: false
      sample: []
    drift:
      description:
        - One sentence where the running system differs from the list last applied, one where it
          differs from what will be after the next boot, or from what would be after a boot of a
          kernel that was installed since the last one, and one for each RV(devices[].lost_at_boot)
          that was not accepted.
        - Empty where all agree.
      returned: always
      type: list
      elements: str
      sample: []
    driverctl:
      description: What driverctl has stored of the device; null if nothing.
      returned: always
      type: dict
      contains:
        path:
          description: The file, in C(/etc/driverctl.d).
          returned: always
          type: str
          sample: /etc/driverctl.d/platform-b000000.crypto
        entry:
          description: >-
            The entry of a policy list that says the same, by the path of the device's node where it
            has one for itself.
          returned: always
          type: dict
          sample: {dt_path: /soc/crypto@b000000, policy: vfio}
    foreign_rules:
      description:
        - Rules of other people's files that may set its override, in the order in which they do.
      returned: always
      type: list
      elements: dict
      contains:
        location:
          description: File and line.
          returned: always
          type: str
          sample: /etc/udev/rules.d/80-vfio.rules:3
        driver_override:
          description: What it sets; null where it is not told in plain words.
          returned: always
          type: str
          sample: vfio-platform
    module_configuration:
      description:
        - What others say in C(modprobe.d), in C(modules-load.d) and on the kernel's command line of
          the module of its driver, of those that the list last applied needs for it, and, where it
          has no driver or was bound by hand, of those that claim it.
      returned: always
      type: list
      elements: dict
      contains:
        location:
          description: File and line, or V(/proc/cmdline).
          returned: always
          type: str
          sample: /etc/modprobe.d/local.conf:2
        text:
          description: The line, or the word of the command line.
          returned: always
          type: str
          sample: blacklist acme
    kernel_command_line:
      description:
        - Its native driver, where that is built into the kernel and so has the device for a moment
          at each boot before the rules of the list take it away. Only the kernel's command line
          prevents that.
        - Null for any other device.
      returned: always
      type: dict
      contains:
        name:
          description: Name of the device in C(/sys/bus/*/devices).
          returned: always
          type: str
          sample: a000000.virtio_mmio
        driver:
          description: That driver.
          returned: always
          type: str
          sample: virtio-mmio
        parameter:
          description: What to add to the command line; null where this kernel does not tell.
          returned: always
          type: str
          sample: initcall_blacklist=virtio_mmio_init
        message:
          description: The same in words, with the other devices that would lose the driver.
          returned: always
          type: str
policy_list:
  description: >-
    The list last applied by M(armfleet.vfio.host_policy), as it was given, without the entries that
    did not count on this board; empty without one.
  returned: success
  type: list
  elements: dict
  sample: [{dt_path: /soc/crypto@b000000, policy: vfio}]
boot_files:
  description:
    - The boot files that the list last applied needs, those of this collection that are there
      all the same, and each directory above them in which others than root can replace them.
    - The list itself is in the header of C(/etc/udev/rules.d/70-armfleet-vfio.rules), and what the
      files have to be is rendered from it.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file or directory.
      returned: always
      type: str
      sample: /etc/modules-load.d/armfleet-vfio.conf
    state:
      description: V(present) or V(absent).
      returned: always
      type: str
      sample: present
    drift:
      description:
        - A sentence for each difference in content, owner, mode and kind; empty where there is
          none. M(armfleet.vfio.host_policy) with the same list restores the files; directories are
          not its own.
        - Null where the file cannot be read, as without root.
      returned: always
      type: list
      elements: str
      sample:
        - >-
          /etc/modules-load.d/armfleet-vfio.conf is nobody:nogroup mode 0777, but must be
          root:root mode 0644
kernels:
  description:
    - The kernels that are installed (C(/lib/modules)), and what they lack of the modules that the
      list last applied needs. A module that is built in is not missing.
    - Empty where that list needs no module.
  returned: success
  type: list
  elements: dict
  contains:
    release:
      description: The kernel, as C(uname -r) calls it.
      returned: always
      type: str
      sample: 6.12.48+deb13-arm64
    running:
      description: Whether it runs now. What it lacks is in RV(devices[].drift).
      returned: always
      type: bool
      sample: false
    new:
      description:
        - Whether it was installed after the running one was booted, as by C(apt upgrade), so that
          the next boot is likely to start it. What it lacks is in RV(devices[].drift).
      returned: always
      type: bool
      sample: false
    missing:
      description: The modules that it lacks.
      returned: always
      type: list
      elements: str
      sample: [vfio_platform]
    note:
      description: >-
        A sentence if it lacks a module and neither runs nor is new, which is no drift; else null.
      returned: always
      type: str
      sample: >-
        The installed kernel 6.12.48+deb13-arm64 has no module vfio_platform, which the
        last-applied configuration requires. Do not boot it, or install one that has the module
reboot_required:
  description: >-
    Whether the list was last applied for the next boot alone, and that boot has not come yet
    (O(armfleet.vfio.host_policy#module:runtime=false)).
  returned: success
  type: bool
  sample: false
board:
  description: What firmware calls this machine, which is what O(devices[].when_board) names.
  returned: success
  type: dict
  contains:
    compatible:
      description: >-
        The C(compatible) strings of the device tree's root, most specific first; empty where the
        machine did not boot with a device tree.
      returned: always
      type: list
      elements: str
      sample: ["marvell,armada8040-mcbin", "marvell,armada8040"]
    product_name:
      description: >-
        C(/sys/class/dmi/id/product_name) of a machine that boots with ACPI; null where there is
        none, and with a device tree.
      returned: always
      type: str
      sample: null
    board_name:
      description: C(/sys/class/dmi/id/board_name), likewise.
      returned: always
      type: str
      sample: null
skipped_entries:
  description:
    - One sentence for each entry that does not count on this board, by its
      O(devices[].when_board), with the names of this board. Usually empty.
  returned: success
  type: list
  elements: str
  sample:
    - compatible 'acme,crypto-v2' applies to acme,two only, and this board is acme,one
"""

from typing import Any

from ansible_collections.armfleet.vfio.plugins.module_utils import _argspec, _text
from ansible_collections.armfleet.vfio.plugins.module_utils._ansible_module import (
    create_module,
    fail,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError, Problems
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.checker import Usage
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import good_selectors
from ansible_collections.armfleet.vfio.plugins.module_utils._report.device_info import (
    inspections,
    unknown,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import inspect
from ansible_collections.armfleet.vfio.plugins.module_utils._system.host import open_host

SPEC: dict[str, Any] = {
    "argument_spec": {
        "devices": _argspec.devices(),
        "only_claimed": {"type": "bool", "default": False},
    }
}

# Seconds for a device whose lock a hanging driver holds: nothing but its override is lost.
_PATIENCE = 5


def main() -> None:
    """Run the module."""
    module = create_module("device_info", SPEC)
    given = module.params["devices"]
    host = open_host(_PATIENCE)
    try:
        problems = Problems()
        selectors = None if given is None else list(good_selectors(given, problems).values())
        with problems.ending():
            findings = inspect(
                host, Usage(host.sysfs), selectors, only_claimed=module.params["only_claimed"]
            )
        problems.end()
    except PolicyError as error:
        fail(module, error)
    finally:
        host.sysfs.close()
    for sentence in unknown(findings):
        module.warn(_text.printable_result(sentence))
    module.exit_json(changed=False, **_text.printable_result(inspections(findings)))


if __name__ == "__main__":
    main()
