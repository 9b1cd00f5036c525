"""The simulator's machine for unit tests, with the gateways that the engine uses.

Devices, drivers and modules are those of extensions/simulator, which tests/conformance compares
with a real kernel. This module injects failures (an errno, a write that hangs) and records writes.
/dev/vfio is a directory on disk, so that the collection's own Files can use it.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import (
    Callable,
    Dict,
    Iterator,
    Mapping,
    MutableMapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import (
    KernelBlockedError,
    KernelRefusedError,
)
from extensions.simulator import description
from extensions.simulator.acpi import modaliases as acpi_modaliases
from extensions.simulator.description import EPROBE_DEFER, Description, Driver, Habits
from extensions.simulator.device import Device
from extensions.simulator.devicetree import Node
from extensions.simulator.machine import DEVICE_TREE as TREE
from extensions.simulator.machine import Machine, build
from extensions.simulator.nodes import of_properties
from extensions.simulator.pci import Surroundings
from extensions.simulator.pci_lines import parse_lines
from extensions.simulator.pci_topology import Buses
from extensions.simulator.tree import Directory, File, Link, Tree
from extensions.simulator.udev import Udev, event_of
from extensions.simulator.vfio import NOIOMMU, RESET_REQUIRED
from extensions.simulator.watch import Watch
from tests.harness.simulated_gateways import SimulatedKmod, SimulatedSysfs

__all__ = [
    "BLOCK",
    "EPROBE_DEFER",
    "NOIOMMU",
    "RESET_REQUIRED",
    "TREE",
    "BoardKernel",
    "BoardKmod",
    "BoardModule",
    "DeviceEvent",
    "Driver",
    "coldplug",
    "snapshot",
]

BLOCK = "block"
"""As the answer to a write: the kernel does not come back from it."""

Answer = Union[int, str, Callable[[], None]]
Binding = Tuple[Optional[str], Optional[str]]
Snapshot = Dict[str, Tuple[str, str, int]]

AMBA_ID = "00041011"
_IOMMU = "arm,mmu-500"
_PORT_DRIVER = Driver("pcieport", "pci", pci_ids=("060400",))
_RESET_MODULE = "vfio_platform_reset"
# Seconds until a write is regarded as blocked.
_PATIENCE = 0.05


@dataclass(frozen=True)
class BoardModule(description.Module):
    """A kernel module and its drivers."""

    drivers: tuple[Driver, ...] = ()


def _modaliases(
    name: str, acpi_node: tuple[str, str] | None, compatible: Sequence[str]
) -> list[str]:
    """Return the modaliases of a device without a node of the device tree."""
    ids = ("PRP0001",) if compatible else ()
    path, hid = acpi_node or (None, None)
    described = description.Extra(name, "platform", path, hid, ids, None, tuple(compatible))
    lines = acpi_modaliases(described)
    return lines if lines[-1] else [f"platform:{name}"]


class BoardKernel(SimulatedSysfs):
    """/sys of a machine to which tests add devices; its VFIO nodes are shown in ``dev``/vfio."""

    def __init__(self, dev: Path, *, groups_at_boot: bool = False) -> None:
        habits = Habits(groups_at_boot=groups_at_boot)
        asked = Description(habits, natives="none", reset_functions={})
        self.machine = build(None, asked)
        self.machine.watch = _Watch(self)
        self.machine.kernel.groups.taken = {0}
        super().__init__(self.machine)
        self.tree = self.machine.tree
        self.dev = dev
        self.held_open: set[str] = set()
        self.claimed: set[str] = set()
        self.hung: set[str] = set()
        self.writes: list[tuple[str, str]] = []
        self.is_written_by_engine = False
        self.after_write: Callable[[], None] = lambda: None
        self.reset_functions = _ResetFunctions(self.machine)
        self._answers: list[tuple[Callable[[int, str, str], bool], Answer]] = []
        self._streams: dict[str, int] = {}
        self._aliases: dict[str, list[str]] = {}
        self._function_lines: list[str] = []
        self._iommu = Device("iommu", "platform", "", "", (_IOMMU,))
        self._iommu.driver = Driver("arm-smmu")
        self.put("class/iommu/smmu3.0x0000000009050000/uevent", "")
        self.vfio_nodes = _Nodes(self.machine.vfio.nodes, dev / "vfio")
        self.vfio_nodes.write_out()

    # Contents of a board.

    def put(self, path: str, content: str | bytes) -> None:
        """Create a file with this content, or write to an existing one as another process does."""
        data = content.encode() if isinstance(content, str) else content
        entry = self.tree.find(path)
        if not isinstance(entry, File):
            parent, _slash, name = path.rpartition("/")
            self.tree.put(f"{self._real(parent)}/{name}", data)
        elif entry.store:
            entry.write(data)
        else:
            entry.content = data

    def point(self, path: str, target: str) -> None:
        """Create a relative link, as sysfs does; both paths are relative to the root."""
        parent, _slash, name = path.rpartition("/")
        self.tree.point(f"{self._real(parent)}/{name}", target)

    def make_directory(self, path: str) -> None:
        self.tree.make_directory(self._real(path))

    def remove(self, path: str) -> None:
        parent, _slash, name = path.rpartition("/")
        self.tree.remove(f"{self.tree.resolve(parent)}/{name}".lstrip("/"))

    def rename(self, path: str, other: str) -> None:
        directories = [
            self.tree.make_directory(self._real(renamed.rpartition("/")[0]))
            for renamed in (path, other)
        ]
        entry = directories[0].entries.pop(path.rpartition("/")[2])
        directories[1].entries[other.rpartition("/")[2]] = entry

    def _real(self, path: str) -> str:
        """Return the path with its links resolved, as far as it exists."""
        real = ""
        for name in path.split("/"):
            real = f"{real}/{name}".lstrip("/")
            real = self.tree.resolve(real) or real
        return real

    def add_node(
        self,
        path: str,
        compatible: Sequence[str] = (),
        *,
        status: str | None = None,
        iommus: bool = False,
    ) -> None:
        """Add a node to the device tree; ``/`` is its root."""
        home = (TREE + path).rstrip("/")
        self.make_directory(home)
        if "@" in path:
            self.put(f"{home}/reg", b"\0" * 16)
        if compatible:
            self.put(f"{home}/compatible", "".join(f"{value}\0" for value in compatible))
        if status:
            self.put(f"{home}/status", status + "\0")
        if iommus:
            self.put(f"{home}/iommus", struct.pack(">II", 1, 0x100))

    def add_alias(self, name: str, path: str) -> None:
        self.put(f"{TREE}/aliases/{name}", path + "\0")
        self._aliases.setdefault(path, []).append(name)
        for device in self.machine.kernel.devices.values():
            if device.of_path == path:
                self._tell_of_node(device)

    def _tell_of_node(self, device: Device) -> None:
        """Update the properties of the device's events to its node and the current aliases."""
        if device.of_path is not None:
            device.of_properties = self._of_properties(device.of_path, device.compatible)

    def _of_properties(self, path: str, compatible: Sequence[str]) -> tuple[str, ...]:
        node = Node(path.rpartition("/")[2], path)
        node.properties["compatible"] = "".join(f"{value}\0" for value in compatible).encode()
        return tuple(of_properties(node, "(null)", sorted(self._aliases.get(path, []))))

    def add_device(
        self,
        name: str,
        path: str | None = None,
        compatible: Sequence[str] = (),
        *,
        bus: str = "platform",
        iommus: bool = False,
        group: str | None = None,
        acpi: tuple[str, str] | None = None,
        uid: str | None = None,
        parent: str | None = None,
    ) -> None:
        """Add a device, in the IOMMU group of ``group`` if set; ``acpi`` is its path and hid.

        With ACPI, ``uid`` is its _UID, and ``compatible`` what its _DSD has with the id PRP0001.
        ``parent`` is the name of the device of the same bus that it is below.
        """
        if path is not None:
            self.add_node(path, compatible, iommus=iommus)
            node = path.rpartition("/")[2].partition("@")[0]
            modaliases = [f"of:N{node}T(null)" + "".join(f"C{value}" for value in compatible)]
        else:
            modaliases = _modaliases(name, acpi, compatible)
        stream = self._streams.setdefault(group or name, len(self._streams))
        above = self.machine.kernel.devices[bus, parent].home if parent else "devices/platform"
        device = Device(
            name,
            bus,
            f"{above}/{name}",
            f"amba:d{AMBA_ID}" if bus == "amba" else modaliases[-1],
            compatible=tuple(compatible),
            of_path=path,
            amba_id=AMBA_ID if bus == "amba" else None,
            other_modaliases=tuple(modaliases[:-1]),
            acpi_path=acpi[0] if acpi else None,
            hid=acpi[1] if acpi else None,
            streams=(stream,),
            iommu=self._iommu if iommus else None,
        )
        self._tell_of_node(device)
        self.machine.kernel.add_device(device)
        if uid is not None:
            self.put(f"{device.home}/firmware_node/uid", f"{uid}\n")

    def add_functions(
        self, *lines: str, nodes: Mapping[str, tuple[str, Sequence[str]]] | None = None
    ) -> None:
        """Add PCI functions, each described as in the list ``pci`` of the simulator.

        They may be below bridges that were added earlier. ``nodes`` are path and compatible of the
        device-tree nodes, by address. Only the driver of bridges is registered, as needed.
        """
        self._function_lines += lines
        topology = parse_lines([(repr(line), line) for line in self._function_lines])
        buses = Buses(topology)
        pci = self.machine.pci
        if ("pci", _PORT_DRIVER.name) not in self.drivers:
            self.register(_PORT_DRIVER)
        present = {name for bus, name in self.machine.kernel.devices if bus == "pci"}
        added = [
            function for function in topology.functions if str(function.address) not in present
        ]
        for function in added:
            path, compatible = (nodes or {}).get(str(function.address), (None, ()))
            if path is not None:
                self.add_node(path, compatible)
                pci.surroundings[function.address] = Surroundings(
                    of_path=path,
                    of_properties=self._of_properties(path, compatible),
                    compatible=tuple(compatible),
                )
        for root in buses.roots.values():
            below = [function for function in added if buses.root_of(function.address) == root]
            pci.add(below, f"devices/{root.name}")

    def add_foreign_device(self, bus: str, name: str, path: str) -> None:
        """Add a device of another bus, such as PCI, with a node in the device tree."""
        self.put(f"devices/{name}/uevent", "")
        self.point(f"devices/{name}/of_node", TREE + path)
        self.point(f"bus/{bus}/devices/{name}", f"devices/{name}")

    def add_link(self, supplier: str, consumer: str) -> None:
        """Make ``consumer`` depend on ``supplier``; both are platform devices."""
        self.machine.kernel.link(self.device(supplier), self.device(consumer))

    def register(self, driver: Driver) -> None:
        """Register a driver; it is bound to matching devices without a driver."""
        self.machine.kernel.register(driver)

    def unregister(self, driver: Driver) -> None:
        self.machine.kernel.unregister(self.drivers[driver.bus, driver.name])

    @property
    def drivers(self) -> dict[tuple[str, str], Driver]:
        return self.machine.kernel.drivers

    @property
    def has_reset_bug(self) -> bool:
        return self.machine.kernel.habits.reset_bug

    @has_reset_bug.setter
    def has_reset_bug(self, value: bool) -> None:
        kernel = self.machine.kernel
        kernel.habits = replace(kernel.habits, reset_bug=value)

    # Failures that tests inject, and state that they read.

    def answer(self, which: int | str | tuple[str, str], answer: Answer) -> None:
        """Inject a failure or an action into one write.

        ``which`` selects the n-th write from now, one to a path, or one of a text to a path;
        ``answer`` is the errno of the write, BLOCK, or a function to call before the write.
        """
        if isinstance(which, int):
            number = len(self.writes) + which
            self._answers.append((lambda count, _path, _text: count == number, answer))
        elif isinstance(which, tuple):
            self._answers.append(
                (lambda _count, path, text: (path, text.rstrip("\n")) == which, answer)
            )
        else:
            self._answers.append((lambda _count, path, _text: path == which, answer))

    def device(self, name: str) -> Device:
        (match,) = [
            device for device in self.machine.kernel.devices.values() if device.name == name
        ]
        return match

    def driver_of(self, name: str) -> str | None:
        return self.link_name(f"{self._home(name)}/driver")

    def override_of(self, name: str) -> str | None:
        text = self.read(f"{self._home(name)}/driver_override") or ""
        return None if text == "(null)" else text

    def _home(self, name: str) -> str:
        """Return the directory of a device, or that of a platform device that does not exist."""
        homes = [
            device.home for device in self.machine.kernel.devices.values() if device.name == name
        ]
        return homes[0] if homes else f"devices/platform/{name}"

    def binding(self, name: str) -> Binding:
        """Return driver and override of a device, read from /sys."""
        return self.driver_of(name), self.override_of(name)

    def bindings(self) -> dict[str, Binding]:
        return {name: self.binding(name) for name in self.names("devices/platform")}

    # The gateway as the engine uses it.

    def write(self, path: str, text: str) -> None:
        self.writes.append((path, text))
        self._meet(path, text)
        self.vfio_nodes.read_in()
        self.is_written_by_engine = True
        try:
            self._write_to_machine(path, text)
        finally:
            self.is_written_by_engine = False
            self.vfio_nodes.write_out()
            self.after_write()

    def _meet(self, path: str, text: str) -> None:
        for condition, answer in list(self._answers):
            if condition(len(self.writes), path, text):
                self._answers.remove((condition, answer))
                if isinstance(answer, int):
                    raise KernelRefusedError(path, text, answer)
                if isinstance(answer, str):
                    raise KernelBlockedError(path, 30, 4711, None)
                answer()

    def _write_to_machine(self, path: str, text: str) -> None:
        if not self.held_open:
            super().write(path, text)
            return
        self._open_nodes()
        failures: list[KernelRefusedError] = []

        def write() -> None:
            try:
                super(BoardKernel, self).write(path, text)
            except KernelRefusedError as error:
                failures.append(error)

        # The write may never return; the real gateway writes in a child process.
        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        thread.join(_PATIENCE)
        if thread.is_alive():
            raise KernelBlockedError(path, 30, 4711, None)
        for error in failures:
            raise error

    def _open_nodes(self) -> None:
        for node in self.held_open:
            file = self.machine.vfio.nodes.find(node[len("/dev/vfio/") :])
            if isinstance(file, File):
                file.opened = 1

    def read_locked(self, paths: Sequence[str]) -> list[str | None]:
        for path in paths:
            if path.split("/")[-2] in self.hung:
                raise KernelBlockedError(path, 30, 4711, None)
        return [self.read(path) for path in paths]

    def has_node(self, node: str) -> bool:
        return (self.dev / node[len("/dev/") :]).exists()

    def is_claimed(self, node: str) -> bool:
        return node in self.claimed

    def changing_nodes(self, change: Callable[[], None]) -> None:
        """Read the nodes in before ``change``, and write them out after it."""
        self.vfio_nodes.read_in()
        self._open_nodes()
        try:
            change()
        finally:
            self.vfio_nodes.write_out()


class _Watch(Watch):
    """Records the writes of udev beside those of the engine."""

    def __init__(self, kernel: BoardKernel) -> None:
        super().__init__()
        self._kernel = kernel

    def around(self, path: str, data: bytes, write: Callable[[bytes], None]) -> None:
        if not self._kernel.is_written_by_engine:
            self._kernel.writes.append((path, data.decode()))
        super().around(path, data, write)


class _ResetFunctions:
    """First compatibles of the devices that have a reset function in a module."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def add(self, *compatibles: str) -> None:
        known = self._machine.vfio.reset_functions
        known.update(dict.fromkeys(compatibles, _RESET_MODULE))
        aliases = tuple(f"vfio-reset:{compatible}" for compatible in known)
        self._machine.modules.add(
            description.Module(_RESET_MODULE, needs=("vfio_platform_base",), aliases=aliases)
        )


class _Nodes:
    """Synchronises the VFIO nodes of a machine with a directory on disk."""

    def __init__(self, tree: Tree, directory: Path) -> None:
        self._tree = tree
        self._directory = directory

    def read_in(self) -> None:
        """Update the tree with the modes and links of the directory."""
        self._read_in(self._tree.root, self._directory)

    def _read_in(self, node: Directory, directory: Path) -> None:
        present = set(os.listdir(str(directory))) if directory.is_dir() else set()
        for name in set(node.entries) - present:
            if not isinstance(node.entries[name], File):
                del node.entries[name]
        for name in present:
            path, entry = directory / name, node.entries.get(name)
            if path.is_symlink():
                node.entries[name] = Link(os.readlink(str(path)))
            elif path.is_dir():
                below = entry if isinstance(entry, Directory) else Directory()
                node.entries[name] = below
                self._read_in(below, path)
            elif isinstance(entry, File):
                entry.mode = stat.S_IMODE(path.stat().st_mode)
            else:
                node.entries[name] = File(mode=stat.S_IMODE(path.stat().st_mode))

    def write_out(self) -> None:
        """Update the directory with the content of the tree."""
        self._write_out(self._tree.root, self._directory)

    def _write_out(self, node: Directory, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name in set(os.listdir(str(directory))) - set(node.entries):
            _remove(directory / name)
        for name, entry in node.entries.items():
            path = directory / name
            if isinstance(entry, Directory):
                self._write_out(entry, path)
            elif isinstance(entry, Link):
                if not path.is_symlink() or os.readlink(str(path)) != entry.target:
                    if path.is_symlink() or path.exists():
                        path.unlink()
                    path.symlink_to(entry.target)
            else:
                path.touch()
                path.chmod(entry.mode)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for below in path.iterdir():
            _remove(below)
        path.rmdir()
    else:
        path.unlink()


class BoardKmod(SimulatedKmod):
    """modprobe and modinfo of the machine.

    ``options`` are those of modprobe.d, ``failing`` the calls that fail once, and ``etc`` has the
    directory modprobe.d, of which commands count.
    """

    def __init__(self, kernel: BoardKernel, etc: Path = Path(os.devnull)) -> None:
        super().__init__(kernel.machine, etc)
        self._kernel = kernel
        self.modules = _Modules(kernel.machine)
        self.failing: list[str] = []
        self.options: dict[str, dict[str, str]] = {}
        self.no_modules: str | None = None

    @property
    def without_signature(self) -> set[str]:
        return self._machine.modules.unsigned

    @without_signature.setter
    def without_signature(self, names: set[str]) -> None:
        self._machine.modules.unsigned = names

    @property
    def configuration(self) -> str:
        """Return the output of 'modprobe --showconfig'."""
        options = [
            f"options {module} {name}={value}\n"
            for module, values in self.options.items()
            for name, value in values.items()
        ]
        files = sorted((self._etc / "modprobe.d").glob("*.conf"))
        lines = [line for file in files if os.path.isfile(file) for line in _lines(file)]
        return "".join([*options, *(line for line in lines if line.startswith("install "))])

    def forget_answers(self) -> None:
        """Drop cached answers, as in a new process."""
        for answers in (
            *(self._available, self._resolved, self._aliases),
            *(self._built_in, self._shown),
        ):
            answers.clear()

    def without_modules(self) -> str | None:
        return self.no_modules

    def explain_missing(self, module: str) -> str | None:
        if self.is_available(module):
            return None
        return self.no_modules or f"the running kernel (x) has no module {module}"

    def load(self, module: str, parameters: dict[str, str] | None = None) -> None:
        settings = "".join(f" {key}={value}" for key, value in sorted((parameters or {}).items()))
        self._note(f"load {_underscored(module)}{settings}")
        super().load(module, parameters)

    def unload(self, module: str) -> None:
        self._note(f"unload {_underscored(module)}")
        super().unload(module)

    def is_loaded(self, module: str) -> bool:
        return self._kernel.exists(f"module/{module}")

    def build_in(self, name: str) -> None:
        """Make a module part of the kernel."""
        self.modules[name] = replace(self.modules[name], built_in=True)

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call in self.failing:
            self.failing.remove(call)
            raise PolicyError(f"Cannot {call}: modprobe ended with 1")

    def _run(self, arguments: Sequence[str], program: str = "modprobe") -> tuple[int, str]:
        if program == "modinfo":
            return self._machine.modules.modinfo(arguments)
        answer: list[tuple[int, str]] = []
        modules = self._machine.modules
        self._kernel.changing_nodes(
            lambda: answer.append(modules.modprobe(arguments, self.configuration))
        )
        return answer[0]


def _lines(file: Path) -> list[str]:
    return file.read_text(errors="surrogateescape").splitlines(keepends=True)


class _Modules(MutableMapping[str, BoardModule]):
    """The modules that are installed."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __getitem__(self, name: str) -> BoardModule:
        module, drivers = self._machine.modules.installed()[name]
        values = {key: value for key, value in vars(module).items() if key != "drivers"}
        return BoardModule(**values, drivers=tuple(drivers))

    def __setitem__(self, name: str, module: BoardModule) -> None:
        self._machine.modules.add(module, module.drivers)

    def __delitem__(self, name: str) -> None:
        self._machine.modules.forget(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._machine.modules.installed())

    def __len__(self) -> int:
        return len(self._machine.modules.installed())


class DeviceEvent:
    """A uevent that the kernel would send for a device now."""

    def __init__(self, kernel: BoardKernel, kmod: BoardKmod, name: str, action: str) -> None:
        self._kernel, self._kmod = kernel, kmod
        self._event = event_of(action, kernel.device(name))

    @property
    def programs(self) -> list[list[str]]:
        return self._event.programs

    def run(self, rules: str) -> None:
        udev = Udev(self._kernel.machine, rules, self._kmod.configuration)
        self._kernel.changing_nodes(lambda: udev.run(self._event))

    def run_for_nodes(self, rules: str) -> None:
        """Run rules for the events of the device's nodes, after this event of their parent."""
        udev = Udev(self._kernel.machine, rules, self._kmod.configuration)
        self._kernel.changing_nodes(lambda: udev.add_nodes(self._event))


def coldplug(kernel: BoardKernel, kmod: BoardKmod, rules: str) -> None:
    """Replay ``add`` for every device, as at boot and as 'udevadm trigger -c add' does."""
    udev = Udev(kernel.machine, rules, kmod.configuration)
    kernel.changing_nodes(udev.coldplug)


def snapshot(top: Tree | Path) -> Snapshot:
    """Return every directory, link and file, by its path: kind, content and mode."""
    return dict(_in_tree(top.root, "") if isinstance(top, Tree) else _on_disk(top))


def _in_tree(node: Directory, path: str) -> Iterator[tuple[str, tuple[str, str, int]]]:
    for name, entry in node.entries.items():
        if isinstance(entry, Directory):
            yield path + name, ("directory", "", 0o755)
            yield from _in_tree(entry, f"{path}{name}/")
        elif isinstance(entry, Link):
            yield path + name, ("link", entry.target, 0)
        else:
            yield path + name, ("file", entry.read().decode("latin-1"), entry.mode)


def _on_disk(root: Path) -> Iterator[tuple[str, tuple[str, str, int]]]:
    for directory, directories, files in os.walk(str(root)):
        for name in directories + files:
            path = Path(directory, name)
            key = str(path.relative_to(root))
            mode = path.lstat().st_mode & 0o7777
            if path.is_symlink():
                yield key, ("link", os.readlink(str(path)), 0)
            elif path.is_dir():
                yield key, ("directory", "", mode)
            else:
                yield key, ("file", path.read_bytes().decode("latin-1"), mode)


def _underscored(module: str) -> str:
    return module.replace("-", "_")
