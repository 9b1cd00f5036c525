"""A small driver core: a directory tree laid out as /sys, and writes that act as the kernel's do.

Whatever can be seen is in the tree, so that tests assert on files and links and on nothing else.
The rules are those of the project's page of kernel facts; test_fake_kernel.py holds them to it.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import shutil
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional, Tuple, Union

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmod import Kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import (
    KernelBlockedError,
    KernelRefusedError,
    Sysfs,
)

TREE = "firmware/devicetree/base"
VFIO_DRIVERS = {"platform": "vfio-platform", "amba": "vfio-amba"}
RESET_REQUIRED = "module/vfio_platform/parameters/reset_required"
NOIOMMU = "module/vfio/parameters/enable_unsafe_noiommu_mode"

# Linux has it in include/linux/errno.h, for itself only.
EPROBE_DEFER = 517

BLOCK = "block"
"""As the answer to a write: the kernel does not come back from it."""

Answer = Union[int, str, Callable[[], None]]
Binding = Tuple[Optional[str], Optional[str]]


@dataclass(frozen=True)
class Driver:
    """A driver, registered or not; ``failures`` are errnos of its probe by the device's name."""

    name: str
    bus: str = "platform"
    matches: tuple[str, ...] = ()
    module: str | None = None
    has_bind: bool = True
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Module:
    """A loadable kernel module; ``aliases`` are patterns for a device's modalias."""

    name: str
    drivers: tuple[Driver, ...] = ()
    needs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)


VFIO_MODULES = (
    Module("vfio", parameters={"enable_unsafe_noiommu_mode": "N"}),
    Module("vfio_platform_base", needs=("vfio",)),
    Module(
        "vfio_platform",
        (Driver("vfio-platform", module="vfio_platform"),),
        needs=("vfio_platform_base",),
        parameters={"reset_required": "Y"},
    ),
    Module(
        "vfio_amba",
        (Driver("vfio-amba", "amba", module="vfio_amba"),),
        needs=("vfio_platform_base",),
    ),
)


class FakeKernel(Sysfs):
    """The tree below ``root`` and the kernel's side of every write to it; nodes come to ``dev``.

    ``groups_at_boot`` is how Linux 7.2 does it; before, a device gets its IOMMU group when the
    first driver is tried.
    """

    def __init__(self, root: Path, dev: Path, *, groups_at_boot: bool = False) -> None:
        super().__init__(str(root), timeout=30)
        self.tree = root
        self.dev = dev
        self.groups_at_boot = groups_at_boot
        self.is_on_read_only_mount = False
        self.has_reset_bug = False
        self.reset_functions: set[str] = set()
        self.held_open: set[str] = set()
        self.claimed: set[str] = set()
        self.hung: set[str] = set()
        self.writes: list[tuple[str, str]] = []
        self.drivers: dict[tuple[str, str], Driver] = {}
        self.after_write: Callable[[], None] = lambda: None
        self._answers: list[tuple[Callable[[int, str, str], bool], Answer]] = []
        self._groups: dict[str, str] = {}
        self._compatibles: dict[str, set[str]] = {}
        self._numbers = iter(range(100_000))
        self._make_node("/dev/vfio/vfio")
        for bus in VFIO_DRIVERS:
            for folder in ("devices", "drivers"):
                (root / "bus" / bus / folder).mkdir(parents=True)
            self.put(f"bus/{bus}/drivers_probe", "")
            self.put(f"bus/{bus}/drivers_autoprobe", "1\n")
        for folder in ("devices/platform", "module", "class/vfio", "kernel/iommu_groups"):
            (root / folder).mkdir(parents=True)

    # What a board has.

    def put(self, path: str, content: str | bytes) -> None:
        target = self.tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def point(self, path: str, target: str) -> None:
        """Make a relative link, as sysfs does; both paths are relative to the root."""
        link = self.tree / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(self.tree / target, link.parent))

    def add_node(
        self,
        path: str,
        compatible: Sequence[str] = (),
        *,
        status: str | None = None,
        iommus: bool = False,
    ) -> None:
        """A node of the device tree; ``/`` is its root."""
        (self.tree / (TREE + path)).mkdir(parents=True, exist_ok=True)
        if compatible:
            self.put(f"{TREE}{path}/compatible", "".join(f"{value}\0" for value in compatible))
        if status:
            self.put(f"{TREE}{path}/status", status + "\0")
        if iommus:
            self.put(f"{TREE}{path}/iommus", struct.pack(">II", 1, 0x100))

    def add_alias(self, name: str, path: str) -> None:
        self.put(f"{TREE}/aliases/{name}", path + "\0")

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
    ) -> None:
        """A device; ``group`` names the IOMMU group that it shares, ``acpi`` its path and hid."""
        home = f"devices/platform/{name}"
        (self.tree / home).mkdir()
        self.point(f"bus/{bus}/devices/{name}", home)
        self.point(f"{home}/subsystem", f"bus/{bus}")
        self.put(f"{home}/driver_override", "(null)\n")
        self._compatibles[name] = {*compatible, name, *(acpi or ())[1:]}
        if path is not None:
            self.add_node(path, compatible, iommus=iommus)
            self.point(f"{home}/of_node", TREE + path)
            modalias = f"of:N{path.rpartition('/')[2].partition('@')[0]}T(null)"
            modalias += "".join(f"C{value}" for value in compatible)
        else:
            modalias = f"acpi:{acpi[1]}:" if acpi else f"platform:{name}"
        if acpi:
            self.put(f"{home}/firmware_node/path", acpi[0] + "\n")
            self.put(f"{home}/firmware_node/hid", acpi[1] + "\n")
        if bus == "amba":
            self.put(f"{home}/id", "00041011\n")
        else:
            self.put(f"{home}/modalias", modalias + "\n")
        if iommus:
            self._groups[name] = group or str(len(self._groups) + 1)
            if self.groups_at_boot:
                self._join_group(home, self._groups[name])
        self._attach(bus, name)

    def add_foreign_device(self, bus: str, name: str, path: str) -> None:
        """A device of another bus, such as PCI, that the device tree has a node for."""
        self.put(f"devices/{name}/uevent", "")
        self.point(f"devices/{name}/of_node", TREE + path)
        self.point(f"bus/{bus}/devices/{name}", f"devices/{name}")

    def add_link(self, supplier: str, consumer: str) -> None:
        """``consumer`` depends on ``supplier``; both are platform devices."""
        name = f"platform:{supplier}--platform:{consumer}"
        link = f"devices/virtual/devlink/{name}"
        self.point(f"class/devlink/{name}", link)
        self.put(f"{link}/status", "active\n" if self.driver_of(consumer) else "dormant\n")
        self.point(f"devices/platform/{supplier}/consumer:platform:{consumer}", link)

    def register(self, driver: Driver) -> None:
        """Add a driver; it takes the devices that match and have none."""
        home = f"bus/{driver.bus}/drivers/{driver.name}"
        (self.tree / home).mkdir()
        self.drivers[driver.bus, driver.name] = driver
        if driver.has_bind:
            self.put(f"{home}/bind", "")
            self.put(f"{home}/unbind", "")
        if driver.module:
            self.point(f"{home}/module", f"module/{driver.module}")
            self.point(f"module/{driver.module}/drivers/{driver.bus}:{driver.name}", home)
        if self._text(f"bus/{driver.bus}/drivers_autoprobe") != "0":
            for name in self.names(f"bus/{driver.bus}/devices"):
                if self.driver_of(name) is None and self._matches(driver, name):
                    self._probe(driver, name)

    def unregister(self, driver: Driver) -> None:
        for name in self._bound_to(driver):
            self._remove(name)
        del self.drivers[driver.bus, driver.name]
        shutil.rmtree(self.tree / f"bus/{driver.bus}/drivers/{driver.name}")
        if driver.module:
            (self.tree / f"module/{driver.module}/drivers/{driver.bus}:{driver.name}").unlink()

    # What tests arrange and look at.

    def answer(self, which: int | str | tuple[str, str], answer: Answer) -> None:
        """Meet one write (the n-th from now, to a path, or of a text to a path) in a special way.

        ``answer`` is the errno to fail with, BLOCK, or what happens just before the write.
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

    def driver_of(self, name: str) -> str | None:
        return self.link_name(f"devices/platform/{name}/driver")

    def override_of(self, name: str) -> str | None:
        text = self._text(f"devices/platform/{name}/driver_override")
        return None if text == "(null)" else text

    def binding(self, name: str) -> Binding:
        """Driver and override of a device, as the tree has them."""
        return self.driver_of(name), self.override_of(name)

    def bindings(self) -> dict[str, Binding]:
        return {name: self.binding(name) for name in self.names("devices/platform")}

    # The door as the engine uses it.

    def write(self, path: str, text: str) -> None:
        self.writes.append((path, text))
        for condition, answer in list(self._answers):
            if condition(len(self.writes), path, text):
                self._answers.remove((condition, answer))
                if isinstance(answer, int):
                    raise KernelRefusedError(path, text, answer)
                if isinstance(answer, str):
                    raise KernelBlockedError(path, 30, 4711, None)
                answer()
        if self.is_on_read_only_mount:
            raise KernelRefusedError(path, text, errno.EROFS)
        if not self.exists(path):
            raise KernelRefusedError(path, text, errno.ENOENT)
        try:
            code = self._store(path, text)
        finally:
            self.after_write()
        if code:
            raise KernelRefusedError(path, text, code)

    def read_locked(self, paths: Sequence[str]) -> list[str | None]:
        for path in paths:
            if path.split("/")[-2] in self.hung:
                raise KernelBlockedError(path, 30, 4711, None)
        return [self.read(path) for path in paths]

    def has_node(self, node: str) -> bool:
        return (self.dev / node[len("/dev/") :]).exists()

    def is_claimed(self, node: str) -> bool:
        return node in self.claimed

    def is_read_only(self) -> bool:
        return self.is_on_read_only_mount

    def close(self) -> None:
        pass

    # The kernel's side.

    def _store(self, path: str, text: str) -> int:
        parts = path.split("/")
        if parts[-1] == "driver_override":
            return self._store_override(path, text.encode())
        name = text.rstrip("\n")
        if parts[-1] == "drivers_probe":
            return self._store_probe(parts[1], name)
        if parts[-1] == "drivers_autoprobe":
            self.put(path, "0\n" if text.startswith("0") else "1\n")
            return 0
        if parts[-1] == "bind":
            return self._store_bind(self.drivers[parts[1], parts[3]], name)
        if parts[-1] == "unbind":
            return self._store_unbind(self.drivers[parts[1], parts[3]], name)
        if path == NOIOMMU:
            self.put(path, "Y\n" if name in ("Y", "y", "1") else "N\n")
            return 0
        return errno.EACCES

    def _store_override(self, path: str, data: bytes) -> int:
        if len(data) >= 4095:
            return errno.EINVAL
        if data:
            value = data.partition(b"\n")[0].partition(b"\0")[0]
            self.put(path, (value or b"(null)") + b"\n")
        return 0

    def _store_bind(self, driver: Driver, name: str) -> int:
        if not self.exists(f"bus/{driver.bus}/devices/{name}") or not self._matches(driver, name):
            return errno.ENODEV
        if self.driver_of(name):
            return errno.EBUSY
        code = self._probe(driver, name)
        return errno.EAGAIN if code == EPROBE_DEFER else code

    def _store_unbind(self, driver: Driver, name: str) -> int:
        if name not in self._bound_to(driver):
            return errno.ENODEV
        self._remove(name)
        return 0

    def _store_probe(self, bus: str, name: str) -> int:
        if not self.exists(f"bus/{bus}/devices/{name}"):
            return errno.ENODEV
        return errno.EINVAL if self._attach(bus, name) == EPROBE_DEFER else 0

    def _attach(self, bus: str, name: str) -> int:
        for driver in list(self.drivers.values()):
            if driver.bus == bus and not self.driver_of(name) and self._matches(driver, name):
                code = self._probe(driver, name)
                if code in (0, EPROBE_DEFER):
                    return code
        return 0

    def _matches(self, driver: Driver, name: str) -> bool:
        override = self.override_of(name)
        if override is not None:
            return override == driver.name
        return not self._compatibles[name].isdisjoint(driver.matches)

    def _bound_to(self, driver: Driver) -> list[str]:
        home = f"bus/{driver.bus}/drivers/{driver.name}"
        return [name for name in self.names(home) if self.exists(f"devices/platform/{name}")]

    def _probe(self, driver: Driver, name: str) -> int:
        home = f"devices/platform/{name}"
        if name in self._groups and not self.link(f"{home}/iommu_group"):
            self._join_group(home, self._groups[name])
        code = driver.failures.get(name, 0)
        is_vfio = driver.name == VFIO_DRIVERS[driver.bus]
        if is_vfio and not code:
            code = self._probe_vfio(driver, home)
        if code:
            return code
        self.point(f"{home}/driver", f"bus/{driver.bus}/drivers/{driver.name}")
        self.point(f"bus/{driver.bus}/drivers/{driver.name}/{name}", home)
        self._set_links(name, "active")
        for consumer in self._consumers(name):
            self._attach("platform", consumer)
        return 0

    def _first_compatible(self, home: str) -> tuple[str, ...]:
        return self.strings(f"{home}/of_node/compatible")[:1]

    def _probe_vfio(self, driver: Driver, home: str) -> int:
        has_reset = not self.reset_functions.isdisjoint(self._first_compatible(home))
        is_required = driver.bus == "platform" and self._text(RESET_REQUIRED) == "Y"
        if not has_reset and (is_required or self.has_reset_bug):
            return errno.ENOENT
        group = self.link_name(f"{home}/iommu_group")
        if group is None:
            if self._text(NOIOMMU) != "Y":
                return errno.EINVAL
            group = str(900 + next(self._numbers))
            self._join_group(home, group)
            self.put(f"kernel/iommu_groups/{group}/name", "vfio-noiommu\n")
        node = self._group_node(group)
        (self.tree / "class/vfio" / node).mkdir(exist_ok=True)
        self._make_node("/dev/vfio/" + node)
        number = f"vfio{next(self._numbers)}"
        self.put(f"{home}/vfio-dev/{number}/dev", "511:0\n")
        self._make_node("/dev/vfio/devices/" + number)
        return 0

    def _remove(self, name: str) -> None:
        home = f"devices/platform/{name}"
        for consumer in self._consumers(name):
            if self.driver_of(consumer):
                self._remove(consumer)
        driver = self.driver_of(name)
        bus = (self.tree / f"{home}/driver").resolve().parent.parent.name
        (self.tree / f"bus/{bus}/drivers/{driver}/{name}").unlink()
        (self.tree / f"{home}/driver").unlink()
        self._set_links(name, "dormant")
        if driver == VFIO_DRIVERS[bus]:
            self._remove_vfio(home)

    def _remove_vfio(self, home: str) -> None:
        group = self.link_name(f"{home}/iommu_group") or ""
        node = self._group_node(group)
        numbers = self.names(f"{home}/vfio-dev")
        nodes = {"/dev/vfio/" + node, *("/dev/vfio/devices/" + number for number in numbers)}
        if nodes & self.held_open:
            raise KernelBlockedError(f"{home}/driver/unbind", 30, 4711, None)
        shutil.rmtree(self.tree / home / "vfio-dev")
        for number in numbers:
            self._remove_node("/dev/vfio/devices/" + number)
        siblings = self.names(f"kernel/iommu_groups/{group}/devices")
        if not any(self.names(f"devices/platform/{sibling}/vfio-dev") for sibling in siblings):
            (self.tree / "class/vfio" / node).rmdir()
            self._remove_node("/dev/vfio/" + node)
        if node != group:
            (self.tree / home / "iommu_group").unlink()
            shutil.rmtree(self.tree / "kernel/iommu_groups" / group)

    def _make_node(self, node: str) -> None:
        place = self.dev / node[len("/dev/") :]
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
            place.chmod(0o600)

    def _remove_node(self, node: str) -> None:
        place = self.dev / node[len("/dev/") :]
        place.unlink()
        if not any(place.parent.iterdir()):
            place.parent.rmdir()

    def _join_group(self, home: str, group: str) -> None:
        folder = f"kernel/iommu_groups/{group}"
        self.point(f"{home}/iommu_group", folder)
        self.point(f"{folder}/devices/{home.rpartition('/')[2]}", home)

    def _group_node(self, group: str) -> str:
        is_noiommu = self.read(f"kernel/iommu_groups/{group}/name") == "vfio-noiommu"
        return f"noiommu-{group}" if is_noiommu else group

    def _consumers(self, name: str) -> list[str]:
        entries = self.names(f"devices/platform/{name}")
        return [entry.split(":")[2] for entry in entries if entry.startswith("consumer:")]

    def _set_links(self, consumer: str, status: str) -> None:
        for link in self.names("devices/virtual/devlink"):
            if link.endswith(f"--platform:{consumer}"):
                self.put(f"devices/virtual/devlink/{link}/status", status + "\n")

    def _text(self, path: str) -> str:
        return self.read(path) or ""


class FakeKmod(Kmod):
    """modprobe on the fake kernel: modules that register drivers when they are loaded.

    ``options`` is what modprobe.d says, ``failing`` the calls that fail once.
    """

    def __init__(self, kernel: FakeKernel, modules: Iterable[Module] = ()) -> None:
        super().__init__(timeout=30)
        self._kernel = kernel
        self.modules = {module.name: module for module in modules}
        self.calls: list[str] = []
        self.failing: list[str] = []
        self.options: dict[str, dict[str, str]] = {}
        self.without_signature: set[str] = set()
        self.built_in: set[str] = set()
        self.no_modules: str | None = None

    def is_available(self, module: str) -> bool:
        return _underscored(module) in self.modules

    def without_modules(self) -> str | None:
        return self.no_modules

    def why_missing(self, module: str) -> str | None:
        if self.is_available(module):
            return None
        return self.no_modules or f"the running kernel (x) has no module {module}"

    def resolve(self, modalias: str) -> list[str]:
        kind, _colon, compatible = modalias.partition(":")
        resets = self._kernel.reset_functions if kind == "vfio-reset" else ()
        return ["vfio_platform_reset"] * (compatible in resets) + [
            module.name
            for module in self.modules.values()
            if any(fnmatch.fnmatchcase(modalias, alias) for alias in module.aliases)
        ]

    def claimants(self, modalias: str) -> list[str]:
        return self.resolve(modalias)

    def aliases(self, module: str) -> list[str] | None:
        found = self.modules.get(_underscored(module))
        return None if found is None else list(found.aliases)

    def is_built_in(self, module: str) -> bool:
        return module in self.built_in

    def parameter(self, module: str, name: str) -> str | None:
        return self.options.get(_underscored(module), {}).get(name)

    def has_parameter(self, module: str, name: str) -> bool | None:
        found = self.modules.get(_underscored(module))
        return None if found is None else name in found.parameters

    def unsigned(self, module: str) -> list[str]:
        found = self.modules[_underscored(module)]
        needs = [name for need in found.needs for name in self.unsigned(need)]
        return needs + ([found.name] if found.name in self.without_signature else [])

    def load(self, module: str, parameters: Mapping[str, str] | None = None) -> None:
        settings = "".join(f" {key}={value}" for key, value in sorted((parameters or {}).items()))
        self._note(f"load {_underscored(module)}{settings}")
        if not self.is_available(module):
            raise PolicyError(f"Cannot load the kernel module {module}: FATAL: not found")
        self._insert(self.modules[_underscored(module)], parameters or {})

    def unload(self, module: str) -> None:
        self._note(f"unload {_underscored(module)}")
        found = self.modules[_underscored(module)]
        if self.is_loaded(found.name) and (self._kernel.held_open or self._users(found)):
            raise PolicyError(f"Cannot unload the kernel module {module}: Module is in use")
        self._take_out(found)

    def is_loaded(self, module: str) -> bool:
        return self._kernel.exists(f"module/{module}")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call in self.failing:
            self.failing.remove(call)
            raise PolicyError(f"Cannot {call}: modprobe ended with 1")

    def _insert(self, module: Module, parameters: Mapping[str, str]) -> None:
        if self.is_loaded(module.name):
            return
        for need in module.needs:
            self._insert(self.modules[need], {})
        self._kernel.put(f"module/{module.name}/initstate", "live\n")
        values = {**module.parameters, **self.options.get(module.name, {}), **parameters}
        for name, value in values.items():
            flag = {"1": "Y", "0": "N"}.get(value, value)
            self._kernel.put(f"module/{module.name}/parameters/{name}", flag + "\n")
        for driver in module.drivers:
            self._kernel.register(driver)

    def _take_out(self, module: Module) -> None:
        """As modprobe --remove: what it needed and nobody else does goes too."""
        if not self.is_loaded(module.name) or self._users(module):
            return
        for driver in module.drivers:
            self._kernel.unregister(driver)
        shutil.rmtree(self._kernel.tree / "module" / module.name)
        for need in module.needs:
            self._take_out(self.modules[need])

    def _users(self, module: Module) -> list[str]:
        return [
            other.name
            for other in self.modules.values()
            if module.name in other.needs and self.is_loaded(other.name)
        ]


def _underscored(module: str) -> str:
    return module.replace("-", "_")


def snapshot(root: Path) -> dict[str, tuple[str, str, int]]:
    """Every folder, link and file below ``root``, by its path: kind, content and mode."""
    found: dict[str, tuple[str, str, int]] = {}
    for place, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(place, name)
            key = str(path.relative_to(root))
            mode = path.lstat().st_mode & 0o7777
            if path.is_symlink():
                found[key] = ("link", os.readlink(path), 0)
            elif path.is_dir():
                found[key] = ("folder", "", mode)
            else:
                found[key] = ("file", path.read_bytes().decode("latin-1"), mode)
    return found
