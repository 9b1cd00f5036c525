# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Operations on PCI functions: scenarios on board pci of the guest, with Debian's kernel.

See operations.py. The group of a function without a native driver exists from its first probe on,
so that a scenario that probes one removes it and finds it again.
"""

from __future__ import annotations

from tests.pci.functions import (
    DISK,
    EDU,
    ETHERNET,
    FIRST,
    HOST_BRIDGE,
    PHYSICAL,
    PORT,
    SECOND,
    VIRTUAL,
)

from .operations import (
    DMA,
    PCI,
    PLATFORM,
    Operation,
    access,
    becomes,
    bind,
    device,
    group_node,
    hold,
    modprobe,
    moves_nothing,
    open_,
    override,
    probe,
    read,
    read_held,
    release,
    scenarios,
    unbind,
    vfio_bind,
    vfio_unbind,
    write,
    write_held,
)

BUSES = ("pci",)
MODULES = ("pci_pf_stub", "pci_stub", "vfio", "vfio_iommu_type1", "vfio_pci", "vfio_pci_core")
NUMBER = "sriov_numvfs"
AUTOPROBE_OF_VIRTUAL = "sriov_drivers_autoprobe"
AUTOPROBE = f"{PCI}/drivers_autoprobe"
ENABLE_SRIOV = "/sys/module/vfio_pci/parameters/enable_sriov"
LOAD = modprobe("vfio-pci")
UNLOAD = (modprobe("-r", "vfio-pci"), modprobe("-r", "vfio_iommu_type1"))
RESCAN = write(f"{PCI}/rescan", "1")
FIRST_VIRTUAL, SECOND_VIRTUAL = VIRTUAL[:2]


def number(data: str, gives: str = "ok", by: str = "root") -> Operation:
    """Set the number of virtual functions."""
    return write(device(PHYSICAL, NUMBER), data, gives, by)


def autoprobe_of_virtual(data: str, gives: str = "ok") -> Operation:
    """Set whether virtual functions are probed."""
    return write(device(PHYSICAL, AUTOPROBE_OF_VIRTUAL), data, gives)


def remove(name: str, data: str = "1", gives: str = "ok", by: str = "root") -> Operation:
    """Remove a function from the bus, until a rescan finds it again."""
    return write(device(name, "remove"), data, gives, by)


def find_again(name: str) -> tuple[Operation, ...]:
    """Remove a function and find it again, without its group if no driver matches it."""
    return remove(name), RESCAN


def has_power(name: str, state: str) -> Operation:
    """Wait for a power state, into which a function may be put some time after the probe."""
    return becomes(device(name, "power_state"), state)


def _what_an_override_stores() -> list[Operation]:
    file = device(EDU, "driver_override")
    return [
        read(file, '"(null)\\n"'),
        override(EDU, "none"),
        read(file, '"none\\n"'),
        override(EDU, "foo\nbar"),
        override(EDU, "foo  "),
        override(EDU, ""),
        override(EDU, "\n"),
        override(EDU, "abc\0def"),
        override(EDU, "\0"),
        override(EDU, "x" * 4094),
        override(EDU, "y" * 4095, "EINVAL"),
        override(EDU, "y" * 4094 + "\n", "EINVAL"),
        override(EDU, "y" * 5000, "EINVAL"),
        override(EDU, "(null)"),
        read(file, '"(null)\\n"'),
        bind("e1000e", EDU, "ENODEV"),
        hold("override", file),
        write_held("override", "none"),
        read_held("override", '"none\\n"'),
        release("override"),
        override(EDU, "\n"),
    ]


def _who_may_do_what() -> list[Operation]:
    rescan = f"{PCI}/rescan"
    return [
        access(device(EDU, "driver_override"), "0:0 0644"),
        access(device(EDU, "modalias"), "0:0 0444"),
        access(device(EDU, "uevent"), "0:0 0644"),
        access(device(EDU, "remove"), "0:0 0220"),
        access(device(ETHERNET, "reset_method"), "0:0 0644"),
        access(device(PHYSICAL, NUMBER), "0:0 0644"),
        access(device(PHYSICAL, AUTOPROBE_OF_VIRTUAL), "0:0 0644"),
        access(device(PHYSICAL, "sriov_totalvfs"), "0:0 0444"),
        access(device(PHYSICAL, "sriov_offset"), "0:0 0444"),
        access(device(PHYSICAL, "sriov_stride"), "0:0 0444"),
        access(device(PHYSICAL, "sriov_vf_device"), "0:0 0444"),
        access(f"{PCI}/drivers/e1000e/bind", "0:0 0200"),
        access(f"{PCI}/drivers/e1000e/unbind", "0:0 0200"),
        access(f"{PCI}/drivers_probe", "0:0 0200"),
        access(AUTOPROBE, "0:0 0644"),
        access(rescan, "0:0 0200"),
        override(EDU, "none", "EACCES", by="nobody"),
        unbind("e1000e", ETHERNET, "EACCES", by="nobody"),
        number("1", "EACCES", by="nobody"),
        remove(EDU, gives="EACCES", by="nobody"),
        write(rescan, "1", "EACCES", by="nobody"),
        override(EDU, "none", by="bare"),
        override(EDU, "\n", by="bare"),
        override(EDU, "none", "EROFS", by="read-only"),
        number("1", "EROFS", by="read-only"),
        open_(device(EDU, "remove"), "O_RDONLY", "EACCES"),
        open_(device(PHYSICAL, "sriov_totalvfs"), "O_WRONLY", "EACCES"),
        open_(device(EDU, NUMBER), "O_WRONLY", "ENOENT"),
        open_(device(EDU, NUMBER), "O_WRONLY|O_CREAT", "EACCES"),
        open_(device(EDU, "reset_method"), "O_RDONLY", "ENOENT"),
        open_(device(FIRST_VIRTUAL, "driver_override"), "O_WRONLY", "ENOENT"),
    ]


def _an_override_moves_nothing() -> list[Operation]:
    return moves_nothing(ETHERNET, "e1000e")


def _what_bind_answers() -> list[Operation]:
    bind_file, unbind_file = (f"{PCI}/drivers/e1000e/{name}" for name in ("bind", "unbind"))
    return [
        write(bind_file, "nothing", "ENODEV"),
        write(bind_file, ""),
        write(bind_file, ETHERNET.removeprefix("0000:"), "ENODEV"),
        write(bind_file, DMA, "ENODEV"),
        bind("e1000e", ETHERNET, "EBUSY"),
        bind("e1000e", ETHERNET, "EBUSY", end="\n"),
        bind("e1000e", ETHERNET, "ENODEV", end=" "),
        bind("e1000e", EDU, "ENODEV"),
        bind("nvme", ETHERNET, "ENODEV"),
        write(unbind_file, "nothing", "ENODEV"),
        unbind("e1000e", EDU, "ENODEV"),
        unbind("nvme", ETHERNET, "ENODEV"),
        unbind("e1000e", ETHERNET),
        unbind("e1000e", ETHERNET, "ENODEV"),
        bind("e1000e", ETHERNET),
        unbind("e1000e", ETHERNET, end="\n"),
        bind("e1000e", ETHERNET, end="\n"),
        open_(f"{PCI}/drivers/gone/bind", "O_WRONLY", "ENOENT"),
    ]


def _what_drivers_probe_answers() -> list[Operation]:
    return [
        write(f"{PCI}/drivers_probe", "nothing", "ENODEV"),
        write(f"{PCI}/drivers_probe", ""),
        write(f"{PCI}/drivers_probe", DMA, "ENODEV"),
        write(f"{PLATFORM}/drivers_probe", ETHERNET, "ENODEV"),
        probe(ETHERNET),
        probe(ETHERNET, "ENODEV", end=" "),
        probe(EDU),
        unbind("e1000e", ETHERNET),
        probe(ETHERNET, end="\n"),
    ]


def _a_probe_that_fails() -> list[Operation]:
    return [
        override(EDU, "e1000e"),
        bind("e1000e", EDU, "EIO"),
        probe(EDU),
        override(EDU, "\n"),
        *find_again(EDU),
    ]


def _a_port_above_a_function() -> list[Operation]:
    return [
        LOAD,
        bind("e1000e", PORT, "ENODEV"),
        unbind("pcieport", PORT),
        unbind("e1000e", ETHERNET),
        bind("e1000e", ETHERNET),
        override(PORT, "vfio-pci"),
        vfio_bind(PORT, "EINVAL"),
        probe(PORT),
        override(PORT, "\n"),
        probe(PORT),
        *UNLOAD,
    ]


def _what_vfio_asks_for() -> list[Operation]:
    return [
        bind("vfio-pci", ETHERNET, "ENOENT"),
        LOAD,
        has_power(ETHERNET, "D0"),
        vfio_bind(ETHERNET, "ENODEV"),
        unbind("e1000e", ETHERNET),
        vfio_bind(ETHERNET, "ENODEV"),
        probe(ETHERNET),
        override(ETHERNET, "vfio-pci"),
        vfio_bind(ETHERNET, "EBUSY"),
        vfio_unbind(ETHERNET, "ENODEV"),
        unbind("e1000e", ETHERNET),
        vfio_bind(ETHERNET),
        has_power(ETHERNET, "D3hot"),
        vfio_bind(ETHERNET, "EBUSY"),
        bind("e1000e", ETHERNET, "ENODEV"),
        access(group_node(ETHERNET), "0:0 0600"),
        open_(group_node(ETHERNET), "O_RDWR"),
        open_(group_node(ETHERNET), "O_RDWR", "EACCES", by="nobody"),
        override(ETHERNET, "\n"),
        probe(ETHERNET),
        bind("e1000e", ETHERNET, "EBUSY"),
        vfio_unbind(ETHERNET),
        vfio_bind(ETHERNET, "ENODEV"),
        probe(ETHERNET),
        *UNLOAD,
    ]


def _late_modules() -> list[Operation]:
    return [
        override(ETHERNET, "vfio-pci"),
        override(DISK, "vfio-pci"),
        unbind("nvme", DISK),
        LOAD,
        modprobe("-r", "vfio-pci"),
        override(ETHERNET, "none"),
        modprobe("-r", "e1000e"),
        bind("e1000e", ETHERNET, "ENOENT"),
        modprobe("e1000e"),
        override(ETHERNET, "\n"),
        modprobe("-r", "e1000e"),
        modprobe("e1000e"),
        override(DISK, "\n"),
        probe(DISK),
        UNLOAD[1],
    ]


def _functions_without_a_native_driver() -> list[Operation]:
    return [
        LOAD,
        vfio_bind(EDU, "ENODEV"),
        override(EDU, "vfio-pci"),
        override(HOST_BRIDGE, "vfio-pci"),
        probe(EDU),
        vfio_bind(HOST_BRIDGE),
        has_power(EDU, "D0"),
        vfio_unbind(EDU),
        vfio_unbind(HOST_BRIDGE),
        override(EDU, "\n"),
        override(HOST_BRIDGE, "\n"),
        *UNLOAD,
        *find_again(EDU),
        *find_again(HOST_BRIDGE),
    ]


def _functions_that_share_a_group() -> list[Operation]:
    return [
        LOAD,
        override(FIRST, "vfio-pci"),
        unbind("nvme", FIRST),
        vfio_bind(FIRST),
        override(SECOND, "vfio-pci"),
        vfio_bind(SECOND, "EBUSY"),
        unbind("nvme", SECOND),
        probe(SECOND),
        access(group_node(SECOND), "0:0 0600"),
        hold("group", group_node(FIRST)),
        open_(group_node(SECOND), "O_RDWR", "EBUSY"),
        vfio_unbind(FIRST),
        release("group"),
        open_(group_node(SECOND), "O_RDWR"),
        vfio_unbind(SECOND),
        vfio_bind(FIRST),
        override(SECOND, "\n"),
        hold("group", group_node(FIRST)),
        bind("nvme", SECOND),
        unbind("nvme", SECOND),
        release("group"),
        vfio_unbind(FIRST),
        override(FIRST, "\n"),
        probe(FIRST),
        probe(SECOND),
        *UNLOAD,
    ]


def _autoprobe() -> list[Operation]:
    return [
        read(AUTOPROBE, '"1\\n"'),
        write(AUTOPROBE, "0"),
        override(ETHERNET, "vfio-pci"),
        unbind("e1000e", ETHERNET),
        LOAD,
        probe(ETHERNET),
        vfio_unbind(ETHERNET),
        override(ETHERNET, "\n"),
        modprobe("-r", "e1000e"),
        modprobe("e1000e"),
        *find_again(ETHERNET),
        number("1"),
        number("0"),
        write(AUTOPROBE, "1"),
        *UNLOAD,
    ]


def _remove_and_rescan() -> list[Operation]:
    rescan = f"{PCI}/rescan"
    return [
        override(ETHERNET, "none"),
        remove(ETHERNET, "0"),
        remove(ETHERNET, "x", "EINVAL"),
        remove(ETHERNET, ""),
        hold("override", device(ETHERNET, "driver_override")),
        remove(ETHERNET),
        write_held("override", "some", "ENODEV"),
        read_held("override", "ENODEV"),
        release("override"),
        remove(ETHERNET, gives="ENOENT"),
        bind("e1000e", ETHERNET, "ENODEV"),
        write(rescan, "0"),
        write(rescan, "x", "EINVAL"),
        RESCAN,
        LOAD,
        override(DISK, "vfio-pci"),
        unbind("nvme", DISK),
        vfio_bind(DISK),
        remove(DISK, "0x1\n"),
        RESCAN,
        *UNLOAD,
    ]


def _reset_methods() -> list[Operation]:
    file, other = device(ETHERNET, "reset_method"), device(FIRST, "reset_method")
    return [
        read(file, '"pm bus\\n"'),
        write(file, "bus"),
        write(file, "bus pm\n"),
        write(file, "flr", "EINVAL"),
        write(file, "pm nonsense", "EINVAL"),
        write(file, ""),
        write(file, "\n"),
        read(file, '""'),
        write(file, "default"),
        write(other, "bus", "EINVAL"),
        write(other, "flr"),
        write(other, "default\n"),
    ]


def _a_number_of_virtual_functions() -> list[Operation]:
    return [
        number("5", "ERANGE"),
        number("65536", "EINVAL"),
        number("-1", "EINVAL"),
        number("many", "EINVAL"),
        number("2 ", "EINVAL"),
        number(""),
        number("0"),
        autoprobe_of_virtual("maybe", "EINVAL"),
        autoprobe_of_virtual("0"),
        number("2"),
        number("2"),
        number("4", "EBUSY"),
        number("1", "EBUSY"),
        number("5", "ERANGE"),
        open_(device(FIRST_VIRTUAL, NUMBER), "O_WRONLY", "ENOENT"),
        open_(device(FIRST_VIRTUAL, "remove"), "O_WRONLY", "ENOENT"),
        number("0"),
        number("0x4\n"),
        number("00"),
        autoprobe_of_virtual("yes"),
        number("+1"),
        bind("nvme", FIRST_VIRTUAL, "ENODEV"),
        probe(FIRST_VIRTUAL),
        number("0"),
    ]


def _virtual_functions() -> list[Operation]:
    return [
        LOAD,
        autoprobe_of_virtual("0"),
        number("2"),
        bind("nvme", FIRST_VIRTUAL, "ENODEV"),
        probe(FIRST_VIRTUAL),
        override(SECOND_VIRTUAL, "none"),
        probe(SECOND_VIRTUAL),
        bind("nvme", SECOND_VIRTUAL, "ENODEV"),
        vfio_bind(FIRST_VIRTUAL, "ENODEV"),
        override(FIRST_VIRTUAL, "vfio-pci"),
        vfio_bind(FIRST_VIRTUAL),
        has_power(FIRST_VIRTUAL, "D3hot"),
        access(group_node(FIRST_VIRTUAL), "0:0 0600"),
        number("4", "EBUSY"),
        number("0"),
        number("2"),
        override(FIRST_VIRTUAL, "vfio-pci"),
        probe(FIRST_VIRTUAL),
        autoprobe_of_virtual("1"),
        unbind("nvme", PHYSICAL),
        number("0", "ENOENT"),
        number("2"),
        number("5", "ERANGE"),
        override(PHYSICAL, "vfio-pci"),
        vfio_bind(PHYSICAL, "EBUSY"),
        override(PHYSICAL, "\n"),
        probe(PHYSICAL),
        vfio_unbind(FIRST_VIRTUAL),
        vfio_bind(FIRST_VIRTUAL),
        number("0"),
        *UNLOAD,
    ]


def _drivers_and_virtual_functions() -> list[Operation]:
    return [
        unbind("nvme", PHYSICAL),
        number("2", "ENOENT"),
        number("5", "ERANGE"),
        number("0"),
        modprobe("pci-stub"),
        override(PHYSICAL, "pci-stub"),
        probe(PHYSICAL),
        number("2", "ENOENT"),
        modprobe("-r", "pci-stub"),
        modprobe("pci-pf-stub"),
        override(PHYSICAL, "pci-pf-stub"),
        bind("pci-pf-stub", PHYSICAL),
        autoprobe_of_virtual("0"),
        number("2"),
        modprobe("-r", "pci-pf-stub"),
        override(PHYSICAL, "\n"),
        probe(PHYSICAL),
        number("0"),
        autoprobe_of_virtual("1"),
        LOAD,
        override(PHYSICAL, "vfio-pci"),
        unbind("nvme", PHYSICAL),
        vfio_bind(PHYSICAL),
        number("2", "ENOENT"),
        access(ENABLE_SRIOV, "0:0 0644"),
        write(ENABLE_SRIOV, "1"),
        number("2"),
        number("1", "EBUSY"),
        number("0"),
        number("1"),
        vfio_unbind(PHYSICAL),
        override(PHYSICAL, "\n"),
        probe(PHYSICAL),
        *UNLOAD,
    ]


def _modprobe() -> list[Operation]:
    numbers = "v00008086d000010D3sv00008086sd00000000bc02sc00i00"
    return [
        modprobe("-R", f"pci:{numbers}", gives="e1000e"),
        modprobe("-R", f"vfio_pci:{numbers}", gives="vfio_pci"),
        modprobe("-R", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02", gives="nvme\nnvme"),
        LOAD,
        modprobe("-r", "vfio-pci-core", gives="modprobe: FATAL: Module vfio_pci_core is in use."),
        override(ETHERNET, "vfio-pci"),
        unbind("e1000e", ETHERNET),
        vfio_bind(ETHERNET),
        *UNLOAD,
        override(ETHERNET, "\n"),
        probe(ETHERNET),
        modprobe("vfio-pci", "disable_idle_d3=1"),
        *UNLOAD,
    ]


PCI_SCENARIOS = scenarios(
    _what_an_override_stores,
    _who_may_do_what,
    _an_override_moves_nothing,
    _what_bind_answers,
    _what_drivers_probe_answers,
    _a_probe_that_fails,
    _a_port_above_a_function,
    _what_vfio_asks_for,
    _late_modules,
    _functions_without_a_native_driver,
    _functions_that_share_a_group,
    _autoprobe,
    _remove_and_rescan,
    _reset_methods,
    _a_number_of_virtual_functions,
    _virtual_functions,
    _drivers_and_virtual_functions,
    _modprobe,
)
