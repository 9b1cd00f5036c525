#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole policy list of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_policy
short_description: Apply the device policy of a host
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Applies a host's device policy to the running system and to its boot configuration in one
    transaction.
  - The list is complete. A device that the last-applied configuration claims and the list does not
    is released to its native driver. A device that was never claimed is never changed.
  - Devices are selected by their firmware descriptions, so the numbers and names that the kernel
    gives them do not matter.
  - The last-applied configuration is read from the header of
    C(/etc/udev/rules.d/70-armfleet-vfio.rules). That file, C(/etc/modprobe.d/armfleet-vfio.conf)
    and C(/etc/modules-load.d/armfleet-vfio.conf) are written completely and produce the same state
    at the next boot, without a helper on the host.
options:
  devices:
    description:
      - Policy list, with one entry for each device or kind of device. Several entries may match one
        device if their policies agree.
      - Each entry has exactly one of O(devices[].dt_path), O(devices[].compatible),
        O(devices[].acpi_path), O(devices[].acpi_hid), O(devices[].pci_address),
        O(devices[].pci_id) and O(devices[].name).
      - An empty list releases all devices. Required if O(state=present); omitting it is an error
        rather than an empty list.
  state:
    description:
      - V(present) applies the list.
      - V(absent) releases all devices that the last-applied configuration claims and removes the
        files. O(devices) is ignored.
      - V(previous) restores the list and options that the host had before O(rollout). O(devices)
        and the options that were stored are ignored. A host that the rollout did not change, or on
        which it was rolled back already, is left unchanged. The run is rejected if a run without a
        rollout has changed the list since, or a later rollout unless O(rollback_overtaken=true).
      - V(finished) only notes that O(rollout) has ended, so that another rollout may change this
        host. O(devices) and all other options are ignored.
    type: str
    choices: [present, absent, previous, finished]
    default: present
  rollout:
    description:
      - Name of the rollout that this run belongs to, up to 64 letters, digits and the characters
        V(._:+-).
      - If the run changes the last-applied configuration, or one of the options O(reset_required),
        O(unsafe_noiommu), O(unsafe_interrupts), O(vfio_group), O(vfio_mode) and O(initramfs), the
        previous list and options are stored in C(/var/lib/armfleet-vfio/previous.json), with the
        changed devices, the time of the host's clock and O(rollout_by). The file has the last ten
        rollouts. Further runs of the same rollout do not add another one.
      - From then on, C(/run/armfleet-vfio-rollout) contains the name. While that file exists and
        the list is still that of this rollout, a run of another rollout is rejected.
        O(state=finished) removes it.
      - O(state=previous) restores them, marks the rollout as rolled back, and removes
        C(/run/armfleet-vfio-rollout). The name means the last rollout of this host that had it.
        Required if O(state=previous) or O(state=finished).
      - Mutually exclusive with O(persistent=false) and O(driverctl=take_over).
    type: str
  rollout_by:
    description:
      - Who applies or rolls back O(rollout), for people who read the history. Up to 64 letters,
        digits and the characters V(._@+:-) are stored; each other character becomes V(_).
      - If unset, it is the user of AWX (C(awx_user_name)), or the user and the name of the control
        node, such as V(alice@control). Ignored without O(rollout).
    type: str
  rollback_overtaken:
    description:
      - Whether O(state=previous) may roll back O(rollout) if later rollouts changed the list. It
        then restores the list before O(rollout), and so undoes the later ones as well, together
        with the runs without a rollout between them.
      - Ignored unless O(state=previous).
    type: bool
    default: false
  plan:
    description:
      - RV(plan_digest) that a run in check mode returned on this host with the same list. The run
        makes exactly the changes of that run.
      - If the list, its options, a device, a module or a boot file would be changed in another way
        than then, or an earlier run was interrupted since, the run fails before the first write.
        A host that is in sync with the same list already is left unchanged.
      - Requires O(state=present) or O(state=absent).
    type: str
  runtime:
    description:
      - Whether to change the running system.
      - If V(false), only the boot files are changed, and the next boot changes the devices. Devices
        in use are rejected in the same way unless O(allow) lists the kind of use.
    type: bool
    default: true
  persistent:
    description:
      - Whether to write the boot files.
      - If V(false), neither the boot files nor the last-applied configuration is changed.
    type: bool
    default: true
  vfio_group:
    description:
      - Name of the group that may open the nodes in C(/dev/vfio) of the devices with policy
        V(vfio).
      - If unset, the kernel's default applies, and only root may open them.
    type: str
  vfio_mode:
    description:
      - Mode of these nodes, as a string in octal such as V("0660").
      - If unset, the kernel's default V("0600") applies.
      - A mode that gives access to others than the owner and the group is rejected unless
        O(unsafe_vfio_mode=true).
    type: str
  unsafe_vfio_mode:
    description: >-
      Whether O(vfio_mode) may give every user of the host access to the nodes, as V("0666") does. A
      user who opens a device can access everything that the device can.
    type: bool
    default: false
  initramfs:
    description:
      - Whether to include the policy in the initramfs, where native drivers may load early. If so,
        the boot files include the configuration of initramfs-tools
        (C(/etc/initramfs-tools/hooks/armfleet-vfio)) or dracut
        (C(/etc/dracut.conf.d/armfleet-vfio.conf)).
      - V(auto) includes it if the host has one of these tools. V(always) fails if the host has
        neither. V(never) does not change the initramfs.
      - V(always) also fails if the host has initramfs-tools and no image in C(/boot), because
        C(update-initramfs) creates none.
      - This module does not rebuild the initramfs. Run RV(initramfs_command), or use
        M(armfleet.vfio.initramfs), as the role does.
    type: str
    choices: [auto, always, never]
    default: auto
  driverctl:
    description:
      - How to treat a device of the list for which driverctl has stored an override in
        C(/etc/driverctl.d). driverctl sets that override at each boot after all rules.
      - If V(refuse), the run fails before any change is made and reports the file.
      - If V(take_over), the file is removed after the list was applied. A run that fails restores
        it.
      - Ignored if O(persistent=false), and for devices that do not exist yet when an image without
        C(/sys) is prepared.
    type: str
    choices: [refuse, take_over]
    default: refuse
extends_documentation_fragment:
  - armfleet.vfio.answers
  - armfleet.vfio.attributes
  - armfleet.vfio.attributes.changes
  - armfleet.vfio.devices.policies
  - armfleet.vfio.safety
  - armfleet.vfio.safety.vfio
seealso:
  - module: armfleet.vfio.initramfs
  - module: armfleet.vfio.device_info
  - name: driver_override in the kernel's documentation
    description: The kernel's specification of the override.
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

- name: Link the nodes of two devices as /dev/vfio/by-tag/left-eth and right-eth on every board
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

- name: Apply one list to two kinds of boards
  armfleet.vfio.host_policy:
    devices:
      - dt_path: /smb/xgmac@e0700000
        when_board: amd,seattle
        policy: vfio
      - acpi_hid: AMDI0095
        when_board: [WhiteBox-A, WhiteBox-B]
        policy: vfio

- name: Select by ACPI and give a group access to the devices
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

- name: Apply a list as part of a rollout
  armfleet.vfio.host_policy:
    devices:
      - compatible: acme,crypto-v3
        policy: vfio
    rollout: crypto-v3

- name: Roll the host back to the list before that rollout
  armfleet.vfio.host_policy:
    state: previous
    rollout: crypto-v3

- name: Roll the host back to the list before an earlier rollout, without the later ones
  armfleet.vfio.host_policy:
    state: previous
    rollout: crypto-v1
    rollback_overtaken: true

- name: Find what a list would change
  armfleet.vfio.host_policy:
    devices:
      - compatible: acme,crypto-v3
        policy: vfio
  check_mode: true
  register: planned

- name: Apply exactly that, or fail if the host has changed since
  armfleet.vfio.host_policy:
    devices:
      - compatible: acme,crypto-v3
        policy: vfio
    plan: "{{ planned.plan_digest }}"

- name: Release all devices
  armfleet.vfio.host_policy:
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
    links:
      description:
        - Symbolic links to these nodes by persistent names, in C(/dev/vfio) and, for the node of
          the device itself, in C(/dev/vfio/devices). C(by-path) has the device-tree path with V(:)
          for V(/), or the ACPI path. C(by-tag) has O(devices[].tag).
        - udev rules create them again whenever the device is bound.
        - Empty in check mode if the device is not bound to VFIO yet.
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
        - link its nodes in /dev/vfio as by-path/soc:crypto@b000000
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
    Changes of VFIO modules and removals of stale symbolic links that were done, or in check mode
    would be done; empty if none.
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
boot_files:
  description: Boot files; empty if O(persistent=false).
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Path of the file.
      returned: always
      type: str
      sample: /etc/udev/rules.d/70-armfleet-vfio.rules
    changed:
      description: Whether the file was written or removed, or in check mode would be.
      returned: always
      type: bool
      sample: true
    state:
      description: State of the file after the run, V(present) or V(absent).
      returned: always
      type: str
      sample: present
initramfs_tool:
  description:
    - Tool that builds the initramfs of this host, V(initramfs-tools) or V(dracut).
    - Null if the host has neither, or if O(initramfs=never) or O(persistent=false).
  returned: success
  type: str
  sample: initramfs-tools
initramfs_command:
  description:
    - Command that adds the files to the initramfs of each kernel of this host.
    - Null if no file changed and the running kernel's initramfs is not older than the files, if
      RV(initramfs_tool) is null, or if initramfs-tools has no image to update.
  returned: success
  type: list
  elements: str
  sample: [/usr/sbin/update-initramfs, -u, -k, all]
reboot_required:
  description:
    - If O(runtime=false), whether the next boot will change a device of the running system.
    - V(false) if O(runtime=true), and in an image without a C(/sys) of its own.
  returned: success
  type: bool
  sample: false
not_checked:
  description:
    - Messages about what could not be checked for use, if O(runtime=false), because C(/sys) has no
      devices, as in an image, or because the run is in a container or a chroot. Each is also issued
      as a warning.
    - Empty if everything was checked, and for an empty list.
  returned: success
  type: list
  elements: str
  sample: []
kernel_command_line:
  description:
    - Devices that this run unbound from a driver that is built into the kernel. That driver binds
      them at the start of each boot, before any udev rule runs. Only a kernel parameter prevents
      this. Boot loaders are never edited.
    - Empty if the run changes nothing; M(armfleet.vfio.device_info) always returns it.
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
      description: Kernel parameter to add; null if this kernel does not expose it.
      returned: always
      type: str
      sample: initcall_blacklist=virtio_mmio_init
    message:
      description: >-
        The same as text, with the other devices that the parameter keeps from the driver.
      returned: always
      type: str
  sample: []
policy_digest:
  description: >-
    SHA-256 of the list and options that are applied after the run, as M(armfleet.vfio.device_info)
    returns it, without the entries that do not apply to this board.
  returned: success
  type: str
  sample: 80f0de075efff840fd15dd1e022220806aafcd3c2e2c40d70c690819443ec386
plan_digest:
  description: >-
    Digest of the changes that were made, or in check mode would be made, and of the state from
    which they start, for O(plan). It has no dot if there are none. Null if
    O(state=finished), and if O(state=previous) leaves the host unchanged.
  returned: success
  type: str
  sample: "80f0de075efff840fd15dd1e02222080.6eed90c9143d948db22d3c94fa16b719.\
    eb59198929420854a52fe27753d0c033.704066f3c620c3dd5d8fd144b186b29a"
rollout:
  description: >-
    Rollout that can be rolled back on this host after the run; null if there is none, or without
    O(rollout).
  returned: success
  type: dict
  contains:
    name:
      description: Its name.
      returned: always
      type: str
      sample: crypto-v3
    ended:
      description: >-
        Whether it has ended: C(/run/armfleet-vfio-rollout) does not contain its name. The playbook
        C(armfleet.vfio.rollout) ends it with O(state=finished).
      returned: always
      type: bool
      sample: false
rolled_back:
  description: >-
    Names of the rollouts that this run rolled back, or in check mode would roll back, newest first;
    empty unless O(state=previous).
  returned: success
  type: list
  elements: str
  sample: [crypto-v3, crypto-v2]
inspection:
  description: >-
    What M(armfleet.vfio.device_info) returns of the devices that the list claims, without what uses
    them, if O(rollout) is given, O(state) is V(present) or V(absent) and
    nothing had to be changed. Null otherwise, and in check mode. The playbook C(rollout) judges a
    host by it that it did not change; it logs in again to one that it changed.
  returned: success
  type: dict
  sample: null
diff:
  description: >-
    Differences, one part each for the devices, the removed symbolic links, the VFIO modules and
    each file.
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
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.plan_digest import (
    is_plan_digest,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import check_access
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError, Problems
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
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
                "vfio_driver": {"type": "str"},
                "sriov_numvfs": {"type": "int"},
                "tag": {"type": "str"},
            },
            required_if=[["policy", DRIVER, ["driver"]]],
        ),
        "state": _argspec.state("present", "absent", "previous", "finished"),
        "rollout": {"type": "str"},
        "rollout_by": {"type": "str"},
        "rollback_overtaken": {"type": "bool", "default": False},
        "plan": {"type": "str"},
        "runtime": {"type": "bool", "default": True},
        "persistent": {"type": "bool", "default": True},
        "vfio_group": {"type": "str"},
        "vfio_mode": {"type": "str"},
        "unsafe_vfio_mode": {"type": "bool", "default": False},
        "initramfs": {"type": "str", "choices": [AUTO, ALWAYS, NEVER], "default": AUTO},
        "driverctl": {"type": "str", "choices": ["refuse", "take_over"], "default": "refuse"},
        "request_digest": {"type": "str"},
        **_argspec.VFIO_SETTINGS,
        **_argspec.SAFETY,
    },
    "required_if": [
        ["state", "present", ["devices"]],
        ["state", "previous", ["rollout"]],
        ["state", "finished", ["rollout"]],
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
    if params["rollout"] is not None:
        _check_rollout(params, problems)
    if params["plan"] is not None:
        _check_plan(params, problems)
    good = good_entries(params["devices"] if params["state"] == "present" else [], problems)
    access = None
    with problems.collecting():
        access = check_access(params["vfio_group"], params["vfio_mode"])
        _check_mode(params, access, problems)
    return Request(
        list(good.values()),
        is_whole_list=True,
        runtime=params["runtime"],
        persistent=params["persistent"],
        settings=state_module.vfio_settings(params),
        access=access,
        allow=params["allow"],
        takes_over=_takes_over(params),
        initramfs=params["initramfs"],
        rollout=params["rollout"],
        rollout_by=params["rollout_by"],
        rollback_overtaken=params["rollback_overtaken"],
        restores=params["state"] == "previous",
        ends=params["state"] == "finished",
        plan=params["plan"],
        problems=problems.by_position,
        positions=list(good),
    )


def _takes_over(params: Mapping[str, Any]) -> bool:
    return bool(params["driverctl"] == "take_over")


def _check_rollout(params: Mapping[str, Any], problems: Problems) -> None:
    if not params["persistent"]:
        problems.add(
            "`rollout` requires `persistent: true`, because the rollback restores the persistent "
            "list. Omit `rollout`, or set `persistent: true`"
        )
    if _takes_over(params):
        problems.add(
            "`rollout` cannot be combined with `driverctl: take_over`, which removes driverctl's "
            "files, so the rollout could not be rolled back. Run the playbook "
            "armfleet.vfio.migrate_driverctl first"
        )


def _check_mode(params: Mapping[str, Any], access: NodeAccess | None, problems: Problems) -> None:
    is_present = params["state"] == "present"
    if is_present and access and access.is_for_all and not params["unsafe_vfio_mode"]:
        problems.add(
            "`vfio_mode` %r gives every user of the host access to the devices. Set a mode "
            "that ends in 0 and `vfio_group`, or set `unsafe_vfio_mode: true`" % access.mode
        )


def _check_plan(params: Mapping[str, Any], problems: Problems) -> None:
    if params["state"] not in ("present", "absent"):
        problems.add("`plan` requires `state: present` or `state: absent`. Omit `plan`")
    if not is_plan_digest(params["plan"]):
        problems.add(
            "`plan` must be the `plan_digest` that a run in check mode returned on this host. Make "
            "a new plan"
        )


def main() -> None:
    """Run the module."""
    state_module.run("host_policy", SPEC, to_request, results.list_result)


if __name__ == "__main__":
    main()
