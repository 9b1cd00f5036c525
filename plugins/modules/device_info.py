#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of devices."""

from __future__ import annotations

DOCUMENTATION = r"""
module: device_info
short_description: Gather information about devices, their drivers and their next boot
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Gathers information about the devices of all buses with C(driver_override). For each
    device it returns the driver, override, IOMMU group and nodes in C(/dev/vfio), why it is bound
    to its driver, what uses it, and its state after the next boot.
  - Root privileges are not required. Values that the user cannot read are null, and a warning
    reports what root could read. The module fails if it cannot read a configuration file.
options:
  devices:
    description:
      - Devices to read. If unset, all devices of these buses are read.
      - Each entry has exactly one of O(devices[].dt_path), O(devices[].compatible),
        O(devices[].acpi_path), O(devices[].acpi_hid), O(devices[].pci_address),
        O(devices[].pci_id) and O(devices[].name).
  only_claimed:
    description: >-
      Whether to read only the devices that the last-applied configuration claims. This is faster on
      a host with many devices.
    type: bool
    default: false
  candidates:
    description: >-
      Whether to find out which of the devices can be bound to VFIO. This takes longer on a host
      with many devices.
    type: bool
    default: true
  in_use:
    description: >-
      Whether to find out what uses each device. If false, RV(devices[].in_use_by) is null unless
      the device drifts or the next boot unbinds it from its driver, which saves about a third of
      the time. O(candidates=true) finds it out as well.
    type: bool
    default: true
  nulls:
    description: >-
      Whether to return the keys of a device whose value is null. If false, they are omitted.
    type: bool
    default: false
extends_documentation_fragment:
  - armfleet.vfio.answers
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

- name: List the devices that are bound to VFIO
  ansible.builtin.debug:
    msg: "{{ host.devices | selectattr('vfio_nodes') | map(attribute='name') }}"

- name: Read only the names of the board
  armfleet.vfio.device_info:
    devices: []

- name: Read what uses two devices
  armfleet.vfio.device_info:
    devices:
      - dt_path: ethernet0
      - compatible: acme,crypto-v2
        required: false

- name: Show why a device is bound to its driver, and what decides at the next boot
  ansible.builtin.debug:
    msg: "{{ item.bound_by.message | default('no driver') }}; {{ item.next_boot.reason }}"
  loop: "{{ host.devices }}"
  loop_control:
    label: "{{ item.name }}"

- name: Read the devices of the last-applied configuration
  armfleet.vfio.device_info:
    only_claimed: true
  register: listed

- name: Fail if anything differs from the last-applied configuration, now or after the next boot
  ansible.builtin.assert:
    that: differences | length == 0
    fail_msg: "{{ differences }}"
  vars:
    differences: "{{ (host.devices + host.boot_files) | map(attribute='drift') | flatten }}"
"""

RETURN = r"""
devices:
  description:
    - Devices that match the entries, in the order of the list, each once.
    - All devices if O(devices) is unset.
    - Only those of them that RV(policy_list) claims if O(only_claimed=true).
    - A key whose value is null is returned only if O(nulls=true).
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
    sriov_numvfs:
      description: Number of its virtual functions; null if it is no PCI function with SR-IOV.
      returned: always
      type: int
      sample: null
    sriov_totalvfs:
      description: Number of virtual functions that it can have; null if it can have none.
      returned: always
      type: int
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
    bound_by:
      description:
        - Why the device is bound to its driver.
        - Null if it is not bound, or if a hanging driver blocks it.
      returned: always
      type: dict
      contains:
        kind:
          description:
            - V(override) if C(driver_override) names the driver.
            - V(compatible), V(acpi), V(amba) or V(name) if the driver's module matches one of the
              device's C(compatible) strings, its ACPI ids, its AMBA id or its name. If a module has
              several drivers, it is unknown which of them matches.
            - V(manual) if the module does not match the device, as VFIO's modules never do. The
              device was bound with an override that has since been cleared.
            - V(unknown) if the reason is unknown, as for most built-in drivers.
          returned: always
          type: str
          sample: override
        message:
          description: The same as text, with what matched or what sets the override.
          returned: always
          type: str
          sample: >-
            its driver_override is vfio-platform, which the last-applied configuration sets (policy
            vfio)
    iommu_group:
      description:
        - Number of its IOMMU group; null if it has none. The number can change with each reboot.
        - Linux 6.1 and 6.12 create the group when the first driver is probed, so it can be null
          until then.
      returned: always
      type: str
      sample: "5"
    candidate:
      description:
        - Whether M(armfleet.vfio.host_policy) would bind the device to VFIO, alone or with the
          whole of its IOMMU group, if RV(devices[].entry) and RV(devices[].settings) were in its
          list. True if it is bound to VFIO already.
        - Null if this is unknown, as in RV(devices[].in_use_by), and with O(candidates=false). The
          next five values are null as well then, but for an unknown use.
      returned: always
      type: bool
      sample: true
    why_not:
      description: Reasons why it is not a candidate; empty if it is one.
      returned: always
      type: list
      elements: dict
      contains:
        kind:
          description:
            - V(no_iommu_group), V(no_firmware_id), V(iommu_not_coherent), V(no_vfio_driver),
              V(no_unbind), V(no_reset), V(unsigned_module), V(driverctl), V(foreign_rule) or
              V(other), or one of the kinds of use in RV(devices[].in_use_by).
            - V(no_registers) or V(provider) for a device that VFIO accepts and no program can use,
              such as a board's LEDs, or that the kernel may use without a driver, such as its
              interrupt controller.
            - V(group) if another device of its IOMMU group cannot be bound to VFIO.
          returned: always
          type: str
          sample: no_iommu_group
        subject:
          description: >-
            What uses the device, as in RV(devices[].in_use_by), if that is the reason.
          returned: for a use
          type: str
          sample: eth0
        message:
          description: The same as text.
          returned: always
          type: str
          sample: no IOMMU group
    entry:
      description: >-
        Entry of a policy list that binds this device and no other to VFIO, with the most stable
        selector: an alias of the device tree, a path, or its name if it has neither.
      returned: always
      type: dict
      sample: {dt_path: /soc/crypto@b000000, policy: vfio}
    settings:
      description: >-
        Options of M(armfleet.vfio.host_policy) that it requires, of
        O(armfleet.vfio.host_policy#module:reset_required),
        O(armfleet.vfio.host_policy#module:unsafe_noiommu) and
        O(armfleet.vfio.host_policy#module:unsafe_interrupts). The last one is not required by
        user space that opens the device through iommufd.
      returned: always
      type: dict
      sample: {reset_required: false}
    iommu_group_devices:
      description: Names of the other devices of its IOMMU group, of any bus.
      returned: always
      type: list
      elements: str
      sample: []
    reset_function:
      description: >-
        Whether the kernel has a reset function for it; null if its VFIO driver requires none, or if
        only the kernel knows, as with ACPI.
      returned: always
      type: bool
      sample: false
    isolated_interrupts:
      description: >-
        Whether the kernel isolates its interrupts and those of its IOMMU group. If V(false), VFIO
        refuses user space that opens it (C(EPERM)) unless C(allow_unsafe_interrupts) is set; see
        O(armfleet.vfio.host_policy#module:unsafe_interrupts). Null if only the kernel knows, as
        with most devices before Linux 6.3, with ACPI if its tables lead to an ITS, and with
        interrupt controllers of other makers.
      returned: always
      type: bool
      sample: false
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
          for V(/), or the ACPI path. C(by-tag) has the tag of the device in the list.
        - M(armfleet.vfio.host_policy) creates them for the devices of its list, and udev creates
          them whenever such a device is bound.
      returned: always
      type: list
      elements: str
      sample:
        - /dev/vfio/by-path/soc:crypto@b000000
        - /dev/vfio/devices/by-path/soc:crypto@b000000
    in_use_by:
      description:
        - Uses that would fail if the device were unbound now; empty if there are none.
        - Null if no use is known but some may exist, because open files and mounts of other users'
          processes cannot be read, as without root privileges. A warning lists these devices, and
          those whose uses are only partly known.
      returned: always
      type: list
      elements: dict
      contains:
        kind:
          description: >-
            Kind of use: V(console), V(storage), V(network), V(consumers), V(clock), V(watchdog) or
            V(group), as in O(armfleet.vfio.host_policy#module:allow), V(open) for a device that a
            process holds open, or V(blocked) for a device that a hanging driver blocks. The
            override of a blocked device cannot be read and is null.
          returned: always
          type: str
          sample: network
        subject:
          description: Interface, disk, terminal, device or node that is in use.
          returned: always
          type: str
          sample: eth0
        message:
          description: The same as text.
          returned: always
          type: str
          sample: network interface eth0 is up
    claimed_by:
      description:
        - Entry of the last-applied configuration that claims the device.
        - Null if none does.
      returned: always
      type: dict
      sample: {dt_path: /soc/crypto@b000000, policy: vfio}
    desired:
      description:
        - State that this entry requires.
        - Null if no entry claims the device, or if the entry releases it to its native driver.
      returned: always
      type: dict
      contains:
        driver:
          description: Driver; null for none.
          returned: always
          type: str
          sample: vfio-platform
        driver_override:
          description: Override.
          returned: always
          type: str
          sample: vfio-platform
    next_boot:
      description:
        - State after the next boot. It follows from the last-applied configuration, the overrides
          of driverctl, foreign udev rules in the order of their files, and whether the driver's
          module will be loaded.
        - A module that the list requires is looked up for the running kernel; for other kernels see
          RV(kernels).
        - The content of an initramfs is not read, nor are services that load modules.
      returned: always
      type: dict
      contains:
        known:
          description: >-
            Whether the rest is known. It is unknown for a device that was bound to another driver
            or unbound while the system runs, if the header of the rules file does not record its
            native driver. RV(devices[].drift) reports such a device unless it has neither a driver
            nor an override now.
          returned: always
          type: bool
          sample: true
        driver:
          description: Driver; null for none and if unknown.
          returned: always
          type: str
          sample: vfio-platform
        driver_override:
          description: Override; null if it will be unset.
          returned: always
          type: str
          sample: vfio-platform
        in_drift:
          description: >-
            Whether RV(devices[].drift) has a message that the next boot changes the device, or may
            do so, with the same reason.
          returned: always
          type: bool
          sample: false
        reason:
          description: Reason, as text.
          returned: always
          type: str
          sample: policy vfio of the last-applied configuration
    lost_at_boot:
      description:
        - Uses that would fail because the next boot binds the device to another driver. They are
          those in RV(devices[].in_use_by), except open VFIO nodes and IOMMU groups, and what is
          configured for each boot, as O(armfleet.vfio.host_policy#module:allow) describes.
        - Empty if the next boot binds the device to the same driver.
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
          description: Interface, disk, terminal, device or node that is in use.
          returned: always
          type: str
          sample: eth0
        message:
          description: The same as text.
          returned: always
          type: str
          sample: network interface eth0 is up
        accepted:
          description: >-
            Whether O(armfleet.vfio.host_policy#module:allow) accepted the kind when the list that
            waits for the next boot was applied.
          returned: always
          type: bool
          sample: false
      sample: []
    drift:
      description:
        - Messages, one for each difference. The running system is compared with the last-applied
          configuration, with the state after the next boot, and with the state after a boot of a
          kernel that was installed since the last boot.
        - Each of RV(devices[].lost_at_boot) that was not accepted is a difference as well. So is a
          parameter of a loaded VFIO module that has another value than the list sets.
        - Empty if there are none.
      returned: always
      type: list
      elements: str
      sample: []
    driverctl:
      description: Override that driverctl has stored for the device; null if none.
      returned: always
      type: dict
      contains:
        path:
          description: File in C(/etc/driverctl.d).
          returned: always
          type: str
          sample: /etc/driverctl.d/platform-b000000.crypto
        entry:
          description: >-
            Equivalent entry of a policy list. It uses the path of the device's node if no other
            device shares that node.
          returned: always
          type: dict
          sample: {dt_path: /soc/crypto@b000000, policy: vfio}
    foreign_rules:
      description: >-
        Foreign udev rules that set the override of the device, or unbind or bind it, or may do so,
        in the order in which they apply.
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
          description: >-
            Override that the rule sets; null if it cannot be determined, or if the rule unbinds or
            binds the device.
          returned: always
          type: str
          sample: vfio-platform
    module_configuration:
      description: >-
        Foreign lines in C(modprobe.d), in C(modules-load.d) and on the kernel command line about
        the modules of the device. These are the module of its driver, the modules that the
        last-applied configuration requires for it, and, if it is unbound or was bound manually, the
        modules that match it.
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
          description: The line, or the kernel parameter.
          returned: always
          type: str
          sample: blacklist acme
    kernel_command_line:
      description:
        - The native driver of the device, if it is built into the kernel and therefore binds the
          device at the start of each boot, before the udev rules of the list run. Only a kernel
          parameter prevents this.
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
          description: The native driver.
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
policy_list:
  description: >-
    Last-applied configuration of M(armfleet.vfio.host_policy), as it was given, without the entries
    that do not apply to this board; empty if there is none.
  returned: success
  type: list
  elements: dict
  sample: [{dt_path: /soc/crypto@b000000, policy: vfio}]
policy_digest:
  description: >-
    SHA-256 of this list and its options. It is equal on two hosts, or at two times, if and only if
    they are.
  returned: success
  type: str
  sample: 80f0de075efff840fd15dd1e022220806aafcd3c2e2c40d70c690819443ec386
rollout:
  description: >-
    Name of the rollout (O(armfleet.vfio.host_policy#module:rollout)) that can be rolled back on
    this host; null if there is none, or if this user may not read it.
  returned: success
  type: str
  sample: null
rollouts:
  description:
    - The last ten rollouts that changed the list of this host, newest first.
    - Null if this user may not read them, or if the file is damaged or was written by a later
      version of this collection. RV(rollouts_problem) and a warning are the reason then.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the rollout.
      returned: always
      type: str
      sample: crypto-v3
    state:
      description:
        - V(applied) if its list is the last-applied configuration, so that it can be rolled back.
          V(replaced) if a run without a rollout has changed the list since.
        - V(overtaken) if a later rollout changed the list, so that rolling it back requires
          O(armfleet.vfio.host_policy#module:rollback_overtaken=true).
        - V(rolled_back) if it was rolled back.
      returned: always
      type: str
      sample: applied
    time:
      description: >-
        When it last changed the list, by the clock of the host (ISO 8601, UTC); null if an earlier
        version of this collection recorded it.
      returned: always
      type: str
      sample: "2026-11-29T06:12:55Z"
    user:
      description: >-
        Who applied it, as O(armfleet.vfio.host_policy#module:rollout_by); null if it is not known.
      returned: always
      type: str
      sample: alice@control
    digest:
      description: RV(policy_digest) of its list; null if it is not known.
      returned: always
      type: str
      sample: 80f0de075efff840fd15dd1e022220806aafcd3c2e2c40d70c690819443ec386
    changed_devices:
      description: Devices that it changed, up to 20.
      returned: always
      type: list
      elements: dict
      contains:
        device:
          description: Path in the device tree, ACPI path, or bus and name.
          returned: always
          type: str
          sample: /soc/crypto@b000000
        before:
          description: Driver before the rollout; null if none.
          returned: always
          type: str
          sample: acme-crypto
        after:
          description: Driver after it; null if none.
          returned: always
          type: str
          sample: vfio-platform
    more_devices:
      description: How many others it changed.
      returned: always
      type: int
      sample: 0
    rolled_back:
      description: When and by whom it was rolled back; null if it was not.
      returned: always
      type: dict
      contains:
        time:
          description: Time, as that of the rollout.
          returned: always
          type: str
        user:
          description: User, as that of the rollout.
          returned: always
          type: str
      sample: null
rollouts_problem:
  description: Why RV(rollouts) cannot be read; null if it can.
  returned: success
  type: str
  sample: null
boot_files:
  description:
    - Boot files that the last-applied configuration requires, other boot files of this collection
      that exist, and each directory above them in which users other than root can replace them.
    - The list itself is in the header of C(/etc/udev/rules.d/70-armfleet-vfio.rules), and the
      expected content of the files is rendered from it. If that file is missing, is no file or has
      a header that cannot be parsed, the list is unknown.
    - C(/run/armfleet-vfio-reboot-required), the record that a reboot is required, if it may
      not be what a run wrote, is one of them.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Path of the file or directory.
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
        - Messages about differences in content, owner, mode and type; empty if there are none.
          M(armfleet.vfio.host_policy) with the same list restores the files, but not the
          directories.
        - Null if the file cannot be read, as without root privileges.
      returned: always
      type: list
      elements: str
      sample:
        - >-
          /etc/modules-load.d/armfleet-vfio.conf is nobody:nogroup mode 0777, but must be
          root:root mode 0644
kernels:
  description:
    - Installed kernels (C(/lib/modules)), and the modules that the last-applied configuration
      requires and that they lack. A built-in module is not missing.
    - Empty if that configuration requires no module.
  returned: success
  type: list
  elements: dict
  contains:
    release:
      description: Release of the kernel, as C(uname -r) prints it.
      returned: always
      type: str
      sample: 6.12.48+deb13-arm64
    running:
      description: Whether the kernel is running. What it lacks is in RV(devices[].drift).
      returned: always
      type: bool
      sample: false
    new:
      description: >-
        Whether the kernel was installed after the last boot, as by C(apt upgrade), so that the next
        boot is likely to start it. What it lacks is in RV(devices[].drift).
      returned: always
      type: bool
      sample: false
    missing:
      description: Modules that it lacks.
      returned: always
      type: list
      elements: str
      sample: [vfio_platform]
    note:
      description: >-
        Message if it lacks a module but neither runs nor is new, which is not drift; otherwise
        null.
      returned: always
      type: str
      sample: >-
        The installed kernel 6.12.48+deb13-arm64 has no module vfio_platform, which the
        last-applied configuration requires. Do not boot it, or install one that has the module
lost_entries:
  description: >-
    Entries of RV(policy_list) that matched devices when the list was applied and match none now, as
    after an upgrade of the kernel or of the firmware that changes paths or C(compatible) strings.
    Such an entry is drift. The list has none of an entry if an earlier version of this collection
    applied it.
  returned: success
  type: list
  elements: dict
  contains:
    entry:
      description: The entry.
      returned: always
      type: dict
      sample: {dt_path: /soc/crypto@b000000, policy: vfio}
    former:
      description: >-
        Paths of the devices that it matched, or their names with the bus; up to 32 of them.
      returned: always
      type: list
      elements: str
      sample: [/soc/crypto@b000000]
    now:
      description: >-
        Paths, or names with the bus, of devices that have the compatible, the id or the address of
        one of RV(lost_entries[].former) now, the likeliest first.
      returned: always
      type: list
      elements: str
      sample: [/soc@0/crypto@b000000]
    message:
      description: The same as text, with a remedy.
      returned: always
      type: str
      sample: >-
        dt_path '/soc/crypto@b000000' matches no device now, but matched /soc/crypto@b000000 when
        the list was applied: now /soc@0/crypto@b000000 (platform device b000000.crypto) has the
        compatible acme,crypto-v2 and the address b000000. The kernel or the firmware may have
        changed. Correct the entry, and apply the list again
reboot_required:
  description: >-
    Whether the list was last applied only for the next boot
    (O(armfleet.vfio.host_policy#module:runtime=false)), and the host was not rebooted since.
  returned: success
  type: bool
  sample: false
board:
  description: >-
    Names of this machine in its firmware, which O(devices[].when_board) is compared with.
  returned: success
  type: dict
  contains:
    compatible:
      description: >-
        C(compatible) strings of the device tree's root, most specific first; empty if the machine
        did not boot with a device tree.
      returned: always
      type: list
      elements: str
      sample: ["marvell,armada8040-mcbin", "marvell,armada8040"]
    product_name:
      description: >-
        C(/sys/class/dmi/id/product_name) of a machine that boots with ACPI; null if it does not
        exist, and with a device tree.
      returned: always
      type: str
      sample: null
    board_name:
      description: C(/sys/class/dmi/id/board_name), likewise.
      returned: always
      type: str
      sample: null
summary:
  description: >-
    What the playbook C(armfleet.vfio.candidates) prints, as lines of text.
  returned: if the module is run by the command C(ansible)
  type: list
  elements: str
vfio_support:
  description: What the host has of what VFIO needs; null with O(candidates=false).
  returned: success
  type: dict
  contains:
    kernel:
      description: Release of the running kernel.
      returned: always
      type: str
      sample: 6.17.0-8-generic
    distribution:
      description: Name of the distribution, from C(os-release); null if there is none.
      returned: always
      type: str
      sample: Ubuntu 25.10
    drivers:
      description: >-
        The VFIO driver of each bus, and whether the kernel has it, registered or as a module.
      returned: always
      type: dict
      sample: {vfio-platform: true}
    iommus:
      description: Names of the active IOMMUs, in C(/sys/class/iommu).
      returned: always
      type: list
      elements: str
      sample: ["smmu3.0x0000000009050000"]
    noiommu:
      description: >-
        Whether the kernel has C(CONFIG_VFIO_NOIOMMU), so that
        O(armfleet.vfio.host_policy#module:unsafe_noiommu) can be set; null if unknown.
      returned: always
      type: bool
      sample: true
    unsafe_interrupts:
      description: >-
        C(allow_unsafe_interrupts) of the modules V(vfio_iommu_type1) and V(iommufd), as far as they
        are loaded. Without it, VFIO opens only devices with isolated interrupts.
      returned: always
      type: dict
      sample: {}
    signed_modules:
      description: >-
        Why the kernel accepts only signed modules, such as V(lockdown=integrity); null if it
        accepts others.
      returned: always
      type: str
      sample: null
    initramfs_tool:
      description: V(initramfs-tools) or V(dracut); null if the host has neither.
      returned: always
      type: str
      sample: initramfs-tools
    systemd:
      description: Whether systemd runs the host.
      returned: always
      type: bool
      sample: true
    kernel_options:
      description: >-
        Options of the kernel without C(CONFIG_), each V(y), V(m) or V(n); empty if no file has
        them.
      returned: always
      type: dict
      sample: {VFIO: m, VFIO_PLATFORM: m}
    kernel_options_source:
      description: >-
        The file that has them, C(/proc/config.gz), C(/boot/config-RELEASE) or
        C(/lib/modules/RELEASE/config); null if there is none.
      returned: always
      type: str
      sample: /boot/config-6.17.0-8-generic
    deprecated:
      description: >-
        What this version of Linux logs of VFIO drivers that a later one will not have, by driver;
        usually empty.
      returned: always
      type: dict
      sample: {}
    missing:
      description: Messages about what is missing; empty if nothing is.
      returned: always
      type: list
      elements: str
      sample: []
driverctl_notes:
  description: >-
    Messages about files of C(/etc/driverctl.d) by which driverctl sets no override at boot, one for
    each - those for devices that do not exist (such as backup copies) or that are on a bus that
    this collection does not support, empty files, and those that driverctl cannot apply.
  returned: success
  type: list
  elements: str
  sample:
    - >-
      /etc/driverctl.d/mdio_bus-stmmac-0:01 is not for a device of a bus that this collection
      supports, so it is left to driverctl
skipped_entries:
  description: >-
    Messages about entries that do not apply to this board because of O(devices[].when_board), one
    for each, with the names of this board. Usually empty.
  returned: success
  type: list
  elements: str
  sample:
    - compatible 'acme,crypto-v2' applies to acme,two only, and this board is acme,one
"""

from typing import TYPE_CHECKING, Any, Mapping

from ansible_collections.armfleet.vfio.plugins.module_utils import _argspec, _text
from ansible_collections.armfleet.vfio.plugins.module_utils._ansible_module import (
    create_module,
    end,
    fail,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.host_lock import HostLock
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.last_answer import (
    Answer,
    LastAnswer,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError, Problems
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import good_selectors
from ansible_collections.armfleet.vfio.plugins.module_utils._report.device_info import (
    inspections,
    unknown,
    without_nulls,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import (
    Findings,
    inspect,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._system.host import Host, open_host
from ansible_collections.armfleet.vfio.plugins.module_utils._system.recorded_reads import Record

if TYPE_CHECKING:
    from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.checker import Usage

SPEC: dict[str, Any] = {
    "argument_spec": {
        "devices": _argspec.devices(),
        "only_claimed": {"type": "bool", "default": False},
        "candidates": {"type": "bool", "default": True},
        "in_use": {"type": "bool", "default": True},
        "nulls": {"type": "bool", "default": False},
        "request_digest": {"type": "str"},
    }
}

# Seconds for a device whose lock a hanging driver holds: nothing but its override is lost.
_PATIENCE = 5


def open_usage(host: Host) -> Usage:
    """Return what finds out who uses the devices of this machine."""
    # Here, because whoever does not ask for it need not load it.
    from ansible_collections.armfleet.vfio.plugins.module_utils._in_use import (  # noqa: PLC0415
        checker,
    )

    return checker.Usage(host.sysfs)


def main() -> None:
    """Run the module."""
    module = create_module("device_info", SPEC)
    host = open_host(_PATIENCE)
    request_digest = module.params["request_digest"]
    record = Record()
    # Nothing is kept without a digest, and recording takes time.
    seen = record.host(host) if request_digest else host
    try:
        findings = _inspect(seen, record, module.params)
    except PolicyError as error:
        fail(module, error)
    finally:
        host.sysfs.close()
    result = inspections(findings)
    if not module.params["nulls"]:
        result = without_nulls(result)
    answer = Answer(
        {"changed": False, **_text.printable_result(result)},
        list(map(_text.printable_result, unknown(findings))),
    )
    # A host that was never given a list stays without files of this collection.
    if record.is_complete and findings.policy_list and not module.check_mode:
        last = LastAnswer(HostLock("device_info"), request_digest)
        last.keep(record.reads, record.digest, answer)
    end(module, *answer)


def _inspect(host: Host, record: Record, params: Mapping[str, Any]) -> Findings:
    """Return what the options ask for; PolicyError if it cannot be found out."""
    problems = Problems()
    given = params["devices"]
    selectors = None if given is None else list(good_selectors(given, problems).values())
    with problems.ending():
        findings = inspect(
            host,
            lambda same: record.unrecorded(open_usage(same)),
            selectors,
            only_claimed=params["only_claimed"],
            with_candidates=params["candidates"],
            with_use=params["in_use"],
        )
    problems.end()
    return findings


if __name__ == "__main__":
    main()
