# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine: a board's device tree and its description, as Linux has them after boot."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from . import acpi
from .addressing import uses_by_device
from .description import VFIO_DRIVERS, Carried, Description, Driver, Module
from .device import Device
from .devicetree import Node
from .kernel import Kernel, matches
from .modules import Modules
from .network import Interface
from .nodes import of_properties
from .pci import Pci
from .pci_board import PciBoard, native_drivers
from .pci_ids import ANY
from .pci_nodes import acpi_addresses
from .population import Planned, population
from .provided import consoles, mac_address
from .suppliers import suppliers
from .tree import Tree
from .vfio import Vfio
from .watch import Watch

DEVICE_TREE = "firmware/devicetree/base"

# Directories of /sys that exist on every board; fs/cgroup is a mount point for systemd.
_FOLDERS = (
    "block",
    "class/block",
    "class/iommu",
    "class/net",
    "class/tty",
    "class/vfio",
    "devices/virtual",
    "fs/cgroup",
    "kernel/iommu_groups",
    "module",
)
_IOMMUFD = Module("iommufd", parameters={"allow_unsafe_interrupts": "N"})
_VFIO_MODULES = (
    Module(
        "vfio_iommu_type1",
        needs=("vfio",),
        parameters={
            "allow_unsafe_interrupts": "N",
            "disable_hugepages": "N",
            "dma_entry_limit": "65535",
        },
    ),
    Module("vfio", parameters={"enable_unsafe_noiommu_mode": "N"}, then=("vfio_iommu_type1",)),
    Module("vfio_platform_base", needs=("vfio",)),
    Module("vfio_platform", needs=("vfio_platform_base",), parameters={"reset_required": "Y"}),
    Module("vfio_amba", needs=("vfio_platform_base",)),
    Module("vfio_pci_core", needs=("vfio",)),
    Module(
        "vfio_pci",
        needs=("vfio_pci_core", "vfio"),
        parameters={
            "disable_denylist": "N",
            "disable_idle_d3": "N",
            "enable_sriov": "N",
            "nointxmask": "N",
        },
    ),
)


@dataclass
class Machine:
    """The machine of a simulated host; ``tree`` is /sys."""

    tree: Tree
    kernel: Kernel
    modules: Modules
    vfio: Vfio
    pci: Pci
    uses: tuple[Carried, ...] = ()
    watch: Watch = field(default_factory=Watch)

    def interfaces(self) -> list[Interface]:
        """Return the described interfaces that have addresses or routes."""
        return [
            Interface(
                use.name,
                index,
                mac_address(index),
                use.addresses,
                use.has_default_route,
            )
            for use in self.uses
            if use.needs_interface
            for index in [self.kernel.provided.index(use.name)]
        ]

    def mount_points(self) -> list[str]:
        """Return where disks are mounted, apart from the root file system."""
        return [use.mount_point for use in self.uses if use.mount_point not in (None, "/")]


def build(root: Node | None, description: Description | None = None) -> Machine:
    """Boot a board, with ACPI if it has no device tree."""
    description = description or Description()
    tree = Tree()
    for directory in _FOLDERS:
        tree.make_directory(directory)
    if root:
        _show_device_tree(tree, root)
    _show_dmi(tree, description.dmi)
    planned = population(root) if root else []
    board = PciBoard(description, planned, has_device_tree=root is not None)
    nodes = [*description.devices, *board.acpi_nodes]
    acpi.show_namespace(tree, nodes, acpi_addresses(board.functions))
    aliases = _aliases(root) if root else {}
    carried = uses_by_device(description, root, planned, aliases, board)
    kernel = Kernel(tree, description.kernel)
    devices = [
        *_planned_devices(root, planned, aliases, carried),
        *_extras(description, board, carried),
    ]
    for device in devices:
        kernel.add_device(device)
    _link(kernel, root, planned, devices)
    pci = board.connect(kernel, devices, carried, aliases)
    drivers = [*description.drivers, *_vfio_drivers(description)]
    if description.natives == "each":
        drivers += [*_natives(devices, drivers), *native_drivers(board, drivers)]
    modules = Modules(kernel, _modules(description), drivers)
    vfio = Vfio(kernel, description.reset_functions, modules.request)
    kernel.subsystems.append(vfio)
    modules.is_vfio_held = vfio.is_group_open
    modules.boot()
    kernel.relax_links()
    _show_console(tree, devices)
    return Machine(
        tree=tree,
        kernel=kernel,
        modules=modules,
        vfio=vfio,
        pci=pci,
        uses=description.carries,
    )


def _vfio_drivers(description: Description) -> list[Driver]:
    if description.kernel.vfio == "absent":
        return []
    return [
        Driver(
            name,
            bus,
            vfio_ids=(ANY,) if bus == "pci" else (),
            module=name.replace("-", "_"),
        )
        for bus, name in VFIO_DRIVERS.items()
    ]


def _modules(description: Description) -> list[Module]:
    if description.kernel.vfio == "absent":
        return list(description.modules)
    resets = [
        Module(name, needs=("vfio_platform_base",), aliases=(f"vfio-reset:{compatible}",))
        for compatible, name in description.reset_functions.items()
    ]
    modules = [*description.modules]
    # VFIO's device nodes require iommufd (CONFIG_VFIO_DEVICE_CDEV).
    iommufd = (_IOMMUFD,) if description.kernel.device_cdev else ()
    for module in (*iommufd, *_VFIO_MODULES, *resets):
        has_parameters = module.name != "vfio" or description.kernel.noiommu
        modules.append(
            replace(
                module,
                built_in=description.kernel.vfio == "built-in",
                parameters=module.parameters if has_parameters else {},
                needs=("iommufd",) if module.name == "vfio" and iommufd else module.needs,
            )
        )
    return modules


def _natives(devices: Sequence[Device], described: Sequence[Driver]) -> list[Driver]:
    """Return a driver for each kind of device that no described driver matches."""
    drivers: dict[tuple[str, str], Driver] = {}
    for device in devices:
        if any(driver.bus == device.bus and matches(driver, device) for driver in described):
            continue
        kind = device.compatible[0] if device.compatible else device.hid
        if device.native is not None:
            _add_described(drivers, device)
            continue
        if kind is None:
            continue
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", kind)
        drivers[device.bus, name] = Driver(
            name,
            device.bus,
            compatible=device.compatible[:1],
            hids=(kind,) if kind == device.hid else (),
            # IOMMU drivers set it, because unbinding one would affect all devices behind it.
            suppress_bind_attrs=not device.has_unbind
            or any(carried.kind == "iommu" for carried in device.carries),
        )
    return list(drivers.values())


def _add_described(drivers: dict[tuple[str, str], Driver], device: Device) -> None:
    """Add the native driver that a device's own description names."""
    name = device.native
    if name is None or name == "none":
        return
    key = (device.bus, name)
    known = drivers.get(key, Driver(name, device.bus, suppress_bind_attrs=not device.has_unbind))
    drivers[key] = replace(known, devices=(*known.devices, device.name))


def _planned_devices(
    root: Node | None,
    planned: Sequence[Planned],
    aliases: dict[str, list[str]],
    carried: Mapping[str, Sequence[Carried]],
) -> list[Device]:
    if root is None:
        return []
    phandles = _phandles(root)
    console = _console_path(root)
    by_node: dict[str, Device] = {}
    homes: dict[str, str] = {}
    for device in planned:
        above = homes[device.parent.node.path] if device.parent else "devices/platform"
        homes[device.node.path] = f"{above}/{device.name}"
        carries = [*carried.get(device.name, ()), *_carried_by_node(device, console)]
        by_node[device.node.path] = _device(device, homes[device.node.path], aliases, carries)
    for device in planned:
        _translate(by_node, phandles, device.node)
    return [*by_node.values()]


def _device(
    planned: Planned, home: str, aliases: dict[str, list[str]], carries: Sequence[Carried]
) -> Device:
    node = planned.node
    compatible = node.strings("compatible")
    name = node.name.partition("@")[0]
    kind = next(iter(node.strings("device_type")), "(null)")
    amba_id = _amba_id(node) if planned.bus == "amba" else None
    modalias = f"of:N{name}T{kind}" + "".join("C" + value.replace(" ", "_") for value in compatible)
    return Device(
        planned.name,
        planned.bus,
        home,
        modalias if amba_id is None else f"amba:d{amba_id}",
        compatible=compatible,
        of_path=node.path,
        of_properties=tuple(of_properties(node, kind, aliases.get(node.path, []))),
        amba_id=amba_id,
        carries=tuple(carries),
    )


def _extras(
    description: Description, board: PciBoard, carried: Mapping[str, Sequence[Carried]]
) -> Iterator[Device]:
    companions = board.companions()
    extras = [extra for extra in description.devices if extra.acpi_path not in companions]
    homes = acpi.homes(extras)
    nodes = acpi.node_homes([*description.devices, *board.acpi_nodes])
    streams = acpi.streams(extras)
    smmu = _smmu() if streams or board.needs_iommu else None
    if smmu:
        yield smmu
    for extra in extras:
        if not acpi.becomes_device(extra):
            continue
        path = extra.acpi_path or ""
        *others, modalias = acpi.modaliases(extra) if extra.acpi_hid else [f"platform:{extra.name}"]
        amba_id = acpi.AMBA_IDS.get(extra.acpi_hid or "", "0" * 8) if extra.bus == "amba" else None
        yield Device(
            extra.name,
            extra.bus,
            homes.get(path, f"devices/platform/{extra.name}"),
            modalias if amba_id is None else f"amba:d{amba_id}",
            extra.acpi_compatible,
            other_modaliases=tuple(others),
            amba_id=amba_id,
            acpi_path=extra.acpi_path,
            hid=extra.acpi_hid,
            cids=extra.acpi_cids,
            acpi_home=nodes.get(path),
            native=extra.driver,
            has_unbind=extra.unbind,
            streams=(streams[extra.iommu_group],) if extra.iommu_group else (),
            iommu=smmu if extra.iommu_group else None,
            carries=tuple(carried.get(extra.name, ())),
        )


def _smmu() -> Device:
    """Return the IOMMU that drivers/acpi/arm64/iort.c creates for the table IORT."""
    return Device(
        acpi.SMMU,
        "platform",
        f"devices/platform/{acpi.SMMU}",
        "platform:arm-smmu-v3",
        native="arm-smmu-v3",
        has_unbind=False,
        carries=(Carried(acpi.SMMU, "iommu", "smmu3.0x0000000009050000"),),
    )


def _amba_id(node: Node) -> str:
    given = node.cells("arm,primecell-periphid")
    if given:
        return f"{given[0]:08X}"
    # The peripheral ID of ARM's PrimeCells: part number, designer "A", revision 1.
    parts = [re.fullmatch(r"arm,pl(\d{3})", value) for value in node.strings("compatible")]
    part = next((match.group(1) for match in parts if match), None)
    return f"00041{part}" if part else "0" * 8


def _translate(by_node: dict[str, Device], phandles: dict[int, Node], node: Node) -> None:
    cells = list(node.cells("iommus"))
    device = by_node[node.path]
    streams = []
    while cells:
        provider = phandles.get(cells.pop(0))
        if provider is None:
            return
        count = next(iter(provider.cells("#iommu-cells")), 0)
        device.iommu = by_node.get(provider.path)
        streams += cells[:1] if count else []
        del cells[:count]
    device.streams = tuple(streams)


def _link(
    kernel: Kernel, root: Node | None, planned: Sequence[Planned], devices: Sequence[Device]
) -> None:
    by_path = {device.of_path: device for device in devices}
    linked = set()
    for consumer, supplier, _property in suppliers(root, planned) if root else ():
        ends = by_path[supplier.path], by_path[consumer.path]
        if ends not in linked:
            linked.add(ends)
            kernel.link(*ends)


def _carried_by_node(planned: Planned, console: str | None) -> Iterator[Carried]:
    node = planned.node
    if "#iommu-cells" in node.properties:
        yield Carried(planned.name, "iommu", planned.name)
    if node.path == console:
        is_arm = "arm,pl011" in node.strings("compatible")
        yield Carried(planned.name, "tty", "ttyAMA0" if is_arm else "ttyS0")


def _show_console(tree: Tree, devices: Sequence[Device]) -> None:
    tree.put("class/tty/console/active", " ".join(consoles(devices)) + "\n")


def _show_device_tree(tree: Tree, root: Node) -> None:
    for node in root.walk():
        home = f"{DEVICE_TREE}{node.path}".rstrip("/")
        tree.make_directory(home)
        tree.put(f"{home}/name", node.name.partition("@")[0] + "\0")
        for name, value in node.properties.items():
            tree.put(f"{home}/{name}", value)


def _show_dmi(tree: Tree, names: Mapping[str, str]) -> None:
    for key, name in names.items():
        tree.put(f"devices/virtual/dmi/id/{key}", f"{name}\n")
    if names:
        tree.point("class/dmi/id", "devices/virtual/dmi/id")


def _phandles(root: Node) -> dict[int, Node]:
    return {
        number: node
        for node in root.walk()
        for key in ("phandle", "linux,phandle")
        for number in node.cells(key)[:1]
    }


def _aliases(root: Node) -> dict[str, list[str]]:
    """Return aliases by path; the kernel reports only those that end in a number."""
    by_path: dict[str, list[str]] = {}
    for node in root.children:
        for name in node.properties if node.name == "aliases" else ():
            if name[-1:].isdigit():
                by_path.setdefault("".join(node.strings(name)[:1]), []).append(name)
    return by_path


def _console_path(root: Node) -> str | None:
    chosen = next((node for node in root.children if node.name == "chosen"), None)
    given = next(iter(chosen.strings("stdout-path")), "") if chosen else ""
    console = given.partition(":")[0]
    if console.startswith("/") or not console:
        return console or None
    paths = [path for path, names in _aliases(root).items() if console in names]
    return paths[0] if paths else None
