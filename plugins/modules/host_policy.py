#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole policy list of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_policy
short_description: Decide which driver owns which device of a host
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Takes the list of all devices whose driver shall not be left to the kernel's choice, and brings
    the running system and the next boot to it in one transaction.
  - The list is the whole truth. A device that the last list claimed and this one does not is given
    back to its native driver. What was never claimed is never touched.
  - Devices are chosen by what firmware says they are, so the kernel may number and name them as it
    likes.
  - What the last run applied is read from the header of
    C(/etc/udev/rules.d/70-armfleet-vfio.rules). That file, C(/etc/modprobe.d/armfleet-vfio.conf)
    and C(/etc/modules-load.d/armfleet-vfio.conf) are written whole and make the same state at the
    next boot, with no helper on the host.
options:
  devices:
    description:
      - One entry for each device, or kind of device, with its policy. Several entries may match one
        device if they agree on the policy.
      - Each entry has exactly one of O(devices[].dt_path), O(devices[].compatible),
        O(devices[].acpi_path), O(devices[].acpi_hid) and O(devices[].name).
      - An empty list gives everything back. Required with O(state=present), so that a forgotten
        list never means that.
  state:
    description:
      - V(absent) gives every device back that the last list claimed and removes the files, whatever
        is in O(devices).
      - V(previous) brings back what the host had before O(rollout), list and options, whatever is
        in O(devices) and in the options that are kept. A host which that rollout did not change is
        left alone. It is refused where another run has changed the list since.
    type: str
    choices: [present, absent, previous]
    default: present
  rollout:
    description:
      - Name of the rollout that this run is a part of, up to 64 letters, digits and the
        characters V(._:+-).
      - Where the run changes the list last applied, or one of the options O(reset_required),
        O(unsafe_noiommu), O(vfio_group), O(vfio_mode) and O(initramfs) that it was applied with,
        what there was before is kept in C(/var/lib/armfleet-vfio/previous.json). Further runs of
        the same rollout leave it as it is.
      - O(state=previous) brings it back and removes the file.
      - Not with O(persistent=false) or O(driverctl=take_over).
    type: str
  runtime:
    description:
      - Whether the running system is brought to the list.
      - With V(false) the next boot does that. What it takes is checked for use all the same, and
        O(allow) accepts it by kind.
    type: bool
    default: true
  persistent:
    description:
      - Whether the files for the next boot are written.
      - With V(false) they stay as they are, and so does what the last list is known to be.
    type: bool
    default: true
  vfio_group:
    description:
      - Name of the group that may open the nodes in C(/dev/vfio) of the devices given to VFIO.
      - Unset leaves what the kernel gives, which is root alone.
    type: str
  vfio_mode:
    description:
      - Mode of these nodes, a string in octal such as V("0660").
      - Unset leaves what the kernel gives, which is V("0600").
      - A mode that lets others than the owner and the group open them is refused unless
        O(unsafe_vfio_mode=true).
    type: str
  unsafe_vfio_mode:
    description:
      - Whether O(vfio_mode) may let every user of the host open the nodes, as V("0666") does. Who
        opens a device has all that it can reach.
    type: bool
    default: false
  initramfs:
    description:
      - Whether the list is to hold in the initramfs too, where a native driver may be. The file
        that tells initramfs-tools (C(/etc/initramfs-tools/hooks/armfleet-vfio)) or dracut
        (C(/etc/dracut.conf.d/armfleet-vfio.conf)) what to add is then one of the boot files.
      - V(auto) does so if this host has one of them, V(always) fails if it has neither, V(never)
        leaves the initramfs alone.
      - V(always) also fails if this host has initramfs-tools and no image in C(/boot), because
        C(update-initramfs) creates none.
      - The initramfs itself is built by RV(initramfs_command), which this module does not run;
        M(armfleet.vfio.initramfs) does, and so does the role.
    type: str
    choices: [auto, always, never]
    default: auto
  driverctl:
    description:
      - What becomes of a device of the list for which driverctl has an override stored, in
        C(/etc/driverctl.d). At each boot driverctl sets it after all rules.
      - With V(refuse) the run stops before anything is touched, and names the file.
      - With V(take_over) the file is removed when the list has been applied. A run that fails puts
        it back.
      - Not looked at with O(persistent=false), nor for the devices that an image will have which
        has no C(/sys) of its own.
    type: str
    choices: [refuse, take_over]
    default: refuse
extends_documentation_fragment:
  - armfleet.vfio.attributes
  - armfleet.vfio.attributes.changes
  - armfleet.vfio.devices.policies
  - armfleet.vfio.safety
  - armfleet.vfio.safety.vfio
seealso:
  - module: armfleet.vfio.initramfs
  - module: armfleet.vfio.device_info
  - name: driver_override in the kernel's documentation
    description: What the kernel promises of the override.
    link: https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-platform
"""

EXAMPLES = r"""
- name: Give one network device and both crypto engines to VFIO, and keep drivers off a third device
  armfleet.vfio.host_policy:
    devices:
      - dt_path: /soc/ethernet@e0700000
        policy: vfio
      - compatible: acme,crypto-v2
        expect: 2
        policy: vfio
      - dt_path: serial3
        policy: no_autobind
    reset_required: false

- name: Have the nodes of two devices at /dev/vfio/by-tag/left-eth and right-eth on every board
  armfleet.vfio.host_policy:
    devices:
      - dt_path: ethernet0
        policy: vfio
        tag: left-eth
      - dt_path: ethernet1
        policy: vfio
        tag: right-eth

- name: Pin a driver where the device exists, for a fleet of different boards
  armfleet.vfio.host_policy:
    devices:
      - compatible: acme,dma-v1
        required: false
        policy: driver
        driver: acme-dma-uio

- name: Have one list for two kinds of boards
  armfleet.vfio.host_policy:
    devices:
      - dt_path: /smb/xgmac@e0700000
        when_board: amd,seattle
        policy: vfio
      - acpi_hid: AMDI0095
        when_board: [WhiteBox-A, WhiteBox-B]
        policy: vfio

- name: Choose by ACPI, and let a group use the devices
  armfleet.vfio.host_policy:
    devices:
      - acpi_path: '\_SB_.VR00'
        policy: vfio
    unsafe_noiommu: true
    vfio_group: kvm
    vfio_mode: "0660"

- name: Prepare the next boot of an image that is not running
  armfleet.vfio.host_policy:
    devices:
      - dt_path: /soc/ethernet@e0700000
        policy: vfio
    runtime: false

- name: Apply a list as a part of a rollout
  armfleet.vfio.host_policy:
    devices:
      - compatible: acme,crypto-v3
        policy: vfio
    rollout: crypto-v3

- name: Put the host back to what it had before that rollout
  armfleet.vfio.host_policy:
    state: previous
    rollout: crypto-v3

- name: Give everything back
  armfleet.vfio.host_policy:
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
    links:
      description:
        - Links to these nodes by names that stay the same, in C(/dev/vfio) and, for the node of the
          device itself, in C(/dev/vfio/devices). C(by-path) has the device-tree path with V(:) for
          V(/), or the ACPI path, and C(by-tag) has O(devices[].tag).
        - Rules of udev make them again whenever the device is bound.
        - Empty in check mode where the device is not bound to VFIO yet.
      returned: always
      type: list
      elements: str
      sample:
        - /dev/vfio/by-path/soc:crypto@b000000
        - /dev/vfio/devices/by-path/soc:crypto@b000000
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
        - link its nodes in /dev/vfio as by-path/soc:crypto@b000000
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
  description:
    - What was, or in check mode would be, done to the modules of VFIO, and links to nodes that were
      removed because no entry asks for them any more; empty if nothing.
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
boot_files:
  description: The files for the next boot; empty with O(persistent=false).
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Where it is.
      returned: always
      type: str
      sample: /etc/udev/rules.d/70-armfleet-vfio.rules
    changed:
      description: Whether it was, or in check mode would be, written or removed.
      returned: always
      type: bool
      sample: true
    state:
      description: V(present) or V(absent), as it is after the run.
      returned: always
      type: str
      sample: present
initramfs_tool:
  description:
    - What builds this host's initramfs, V(initramfs-tools) or V(dracut).
    - Null if it has neither of them, and with O(initramfs=never) or O(persistent=false).
  returned: success
  type: str
  sample: initramfs-tools
initramfs_command:
  description:
    - The command that brings the files into the initramfs of each kernel of this host.
    - Null if no file changed and the running kernel's initramfs is not older than the files,
      where RV(initramfs_tool) is null, and if there is no image for initramfs-tools to update.
  returned: success
  type: list
  elements: str
  sample: [/usr/sbin/update-initramfs, -u, -k, all]
reboot_required:
  description:
    - With O(runtime=false), whether the next boot is to change a device of the running system.
    - V(false) with O(runtime=true), and in an image that has no C(/sys) of its own.
  returned: success
  type: bool
  sample: false
not_checked:
  description:
    - With O(runtime=false), one sentence for what could not be checked for use, because there is no
      C(/sys) with devices, as in an image, or the run is in a container or a chroot. Each is a
      warning as well.
    - Empty if all was checked, and for an empty list.
  returned: success
  type: list
  elements: str
  sample: []
kernel_command_line:
  description:
    - Devices that this run took from a driver which is built into the kernel. It has them for a
      moment at each boot, before any rule can run, and only the kernel's command line prevents
      that. Boot loaders are never edited.
    - Empty in a run that changes nothing; M(armfleet.vfio.device_info) tells it at any time.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the device in C(/sys/bus/*/devices).
      returned: always
      type: str
      sample: a000000.virtio_mmio
    driver:
      description: Its native driver.
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
  sample: []
diff:
  description:
    - Where something differs, one part for the devices, one for links that are removed, one for the
      modules of VFIO and one for each file.
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
        driver_override vfio-platform; link its nodes in /dev/vfio as
        by-path/soc:crypto@b000000
    - before_header: kernel modules
      after_header: kernel modules
      before: ""
      after: |
        load module vfio-platform with reset_required=N
"""

from typing import Any, Mapping

from ansible_collections.armfleet.vfio.plugins.module_utils import _argspec
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import check_access
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError, Problems
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import (
    ALWAYS,
    AUTO,
    DEFAULT,
    DRIVER,
    NEVER,
    NO_AUTOBIND,
    VFIO,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import good_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._report import results, state_module

SPEC: dict[str, Any] = {
    "argument_spec": {
        "devices": _argspec.devices(
            {
                "policy": {
                    "type": "str",
                    "required": True,
                    "choices": [VFIO, NO_AUTOBIND, DRIVER, DEFAULT],
                },
                "driver": {"type": "str"},
                "tag": {"type": "str"},
            },
            required_if=[["policy", DRIVER, ["driver"]]],
        ),
        "state": _argspec.state("present", "absent", "previous"),
        "rollout": {"type": "str"},
        "runtime": {"type": "bool", "default": True},
        "persistent": {"type": "bool", "default": True},
        "vfio_group": {"type": "str"},
        "vfio_mode": {"type": "str"},
        "unsafe_vfio_mode": {"type": "bool", "default": False},
        "initramfs": {"type": "str", "choices": [AUTO, ALWAYS, NEVER], "default": AUTO},
        "driverctl": {"type": "str", "choices": ["refuse", "take_over"], "default": "refuse"},
        **_argspec.VFIO_SETTINGS,
        **_argspec.SAFETY,
    },
    "required_if": [
        ["state", "present", ["devices"]],
        ["state", "previous", ["rollout"]],
    ],
}


def to_request(params: Mapping[str, Any]) -> Request:
    """Return what the options ask for; PolicyError if they contradict one another."""
    if not params["runtime"] and not params["persistent"]:
        raise PolicyError(
            "`runtime` and `persistent` are both false, so there is nothing to do. Set one "
            "of them to true"
        )
    problems = Problems()
    is_present = params["state"] == "present"
    rollout = params["rollout"]
    takes_over = params["driverctl"] == "take_over"
    if rollout is not None and not params["persistent"]:
        problems.add(
            "`rollout` requires `persistent: true`, because the rollback restores the persistent "
            "list. Omit `rollout`, or set `persistent: true`"
        )
    if rollout is not None and takes_over:
        problems.add(
            "`rollout` cannot be combined with `driverctl: take_over`, which removes driverctl's "
            "files, so the rollout could not be rolled back. Run the playbook "
            "armfleet.vfio.migrate_driverctl first"
        )
    good = good_entries(params["devices"] if is_present else [], problems)
    access = None
    with problems.collecting():
        access = check_access(params["vfio_group"], params["vfio_mode"])
        if is_present and access and access.is_for_all and not params["unsafe_vfio_mode"]:
            problems.add(
                "`vfio_mode` %r gives every user of the host access to the devices. Set a mode "
                "that ends in 0 and `vfio_group`, or set `unsafe_vfio_mode: true`" % access.mode
            )
    return Request(
        list(good.values()),
        is_whole_list=True,
        runtime=params["runtime"],
        persistent=params["persistent"],
        settings=state_module.vfio_settings(params),
        access=access,
        allow=params["allow"],
        takes_over=takes_over,
        initramfs=params["initramfs"],
        rollout=rollout,
        restores=params["state"] == "previous",
        problems=problems.by_position,
        positions=list(good),
    )


def main() -> None:
    """Run the module."""
    state_module.run("host_policy", SPEC, to_request, results.list_result)


if __name__ == "__main__":
    main()
