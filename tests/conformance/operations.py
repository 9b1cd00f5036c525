# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations, as data: scenarios on board a of the guest.

Each scenario begins in the state after boot and restores it. ``gives`` is the result on the real
kernel. The state of the devices is not specified here, but compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

PLATFORM = "/sys/bus/platform"
AMBA = "/sys/bus/amba"
PCI = "/sys/bus/pci"

CRYPTO = "b000000.crypto"
DMA = "b001000.dma"
DMA2 = "b002000.dma"
PLAIN = "b003000.plain"
ETHERNET = "b004000.ethernet"
ENGINE = "b005000.engine"
KEYS = "soc:keys"
CONSUMER = "b008000.consumer"
SHARED = "b009000.shared"
RNG_SLOT = "a000000.virtio_mmio"
EMPTY_SLOT = "a000200.virtio_mmio"
GPIO = "9030000.pl061"
GPIO_KEYS = "gpio-keys"
CLOCK = "9010000.pl031"
ON_AMBA = (ENGINE, GPIO, CLOCK)
_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")

NOIOMMU = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
INTERRUPTS = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
RESET_REQUIRED = "/sys/module/vfio_platform/parameters/reset_required"
ALARM = f"{PLATFORM}/devices/alarmtimer.*.auto"


@dataclass(frozen=True)
class Operation:
    """An operation of the process ``by``; the agent then waits for the conditions ``then``."""

    kind: str
    arguments: tuple[str, ...]
    gives: str = "ok"
    by: str = "root"
    then: tuple[tuple[str, ...], ...] = ()
    is_begun_only: bool = False
    is_seen: bool = True

    def then_(self, kind: str, *arguments: str) -> Operation:
        """Return the operation, with a condition to wait for before the state is read."""
        return replace(self, then=(*self.then, (kind, *arguments)))

    @property
    def hangs(self) -> Operation:
        """Return the operation, expected to block; answer() waits for its result later."""
        return replace(self, gives="waits", is_begun_only=True)

    @property
    def unseen(self) -> Operation:
        """Return the operation; the state is not read after it, because it still changes."""
        return replace(self, is_seen=False)


@dataclass(frozen=True)
class Scenario:
    name: str
    operations: tuple[Operation, ...]


def scenarios(*makers: Callable[[], Sequence[Operation]]) -> tuple[Scenario, ...]:
    """Return a scenario for each function, with the words of its name."""
    return tuple(
        Scenario(make.__name__.strip("_").replace("_", " "), tuple(make())) for make in makers
    )


def _do(kind: str, *arguments: str, gives: str = "ok", by: str = "root") -> Operation:
    return Operation(kind, arguments, gives, by)


def write(
    path: str, data: str, gives: str = "ok", by: str = "root", flags: str = "O_WRONLY"
) -> Operation:
    return _do("write", path, data, flags, gives=gives, by=by)


def read(path: str, gives: str, by: str = "root") -> Operation:
    return _do("read", path, gives=gives, by=by)


def open_(path: str, flags: str, gives: str = "ok", by: str = "root") -> Operation:
    return _do("open", path, flags, gives=gives, by=by)


def hold(name: str, path: str, by: str = "holder", flags: str = "O_RDWR") -> Operation:
    """Keep a file open, under a name."""
    return _do("hold", path, flags, name, by=by)


def release(name: str, by: str = "holder") -> Operation:
    return _do("release", name, by=by)


def write_held(name: str, data: str, gives: str = "ok", by: str = "holder") -> Operation:
    return _do("write_held", name, data, gives=gives, by=by)


def read_held(name: str, gives: str, by: str = "holder") -> Operation:
    return _do("read_held", name, gives=gives, by=by)


def answer(by: str, gives: str = "ok") -> Operation:
    """Wait for the result of an operation that blocked."""
    return _do("answer", gives=gives, by=by)


def access(path: str, gives: str) -> Operation:
    return _do("access", path, gives=gives)


def change_mode(path: str, mode: str) -> Operation:
    return _do("change_mode", path, mode)


def becomes(path: str, content: str) -> Operation:
    """Wait until a file has this line of content."""
    return _do("becomes", path, content)


def modprobe(*arguments: str, gives: str = "ok", by: str = "root") -> Operation:
    return _do("modprobe", *arguments, gives=gives, by=by)


def bus_of(device: str) -> str:
    if _ADDRESS.fullmatch(device):
        return PCI
    return AMBA if device in ON_AMBA else PLATFORM


def vfio_driver(device: str) -> str:
    return {PLATFORM: "vfio-platform", AMBA: "vfio-amba", PCI: "vfio-pci"}[bus_of(device)]


def device(name: str, part: str = "") -> str:
    return f"{bus_of(name)}/devices/{name}/{part}".rstrip("/")


def override(
    name: str, data: str, gives: str = "ok", by: str = "root", flags: str = "O_WRONLY"
) -> Operation:
    return write(device(name, "driver_override"), data, gives, by, flags)


def bind(driver: str, name: str, gives: str = "ok", by: str = "root", end: str = "") -> Operation:
    return write(f"{bus_of(name)}/drivers/{driver}/bind", name + end, gives, by)


def unbind(driver: str, name: str, gives: str = "ok", by: str = "root", end: str = "") -> Operation:
    return write(f"{bus_of(name)}/drivers/{driver}/unbind", name + end, gives, by)


def probe(name: str, gives: str = "ok", by: str = "root", end: str = "") -> Operation:
    return write(f"{bus_of(name)}/drivers_probe", name + end, gives, by)


def vfio_bind(name: str, gives: str = "ok", by: str = "root") -> Operation:
    return bind(vfio_driver(name), name, gives, by)


def vfio_unbind(name: str, gives: str = "ok", by: str = "root") -> Operation:
    return unbind(vfio_driver(name), name, gives, by)


def group_node(name: str) -> str:
    return f"/dev/vfio/{{group {name}}}"


def unsafe_node(name: str) -> str:
    return f"/dev/vfio/noiommu-{{group {name}}}"


def device_node(name: str) -> str:
    return f"/dev/vfio/devices/vfio{{vfio {name}}}"


NO_RESETS = modprobe("vfio-platform", "reset_required=0")
UNLOAD = modprobe("-r", "vfio-platform")
RELEASE = "/lib/modules/RELEASE"
# Modules that stay loaded when the modules that required them are removed.
FORGET = (modprobe("-r", "vfio_iommu_type1"), modprobe("-r", "iommufd"))
# The driver link appears before the driver's probe has ended.
CONSUMER_IS_BOUND = ("becomes", device(CONSUMER, f"supplier:amba:{GPIO}/status"), "active")


def _what_an_override_stores() -> list[Operation]:
    file = device(CRYPTO, "driver_override")
    return [
        read(file, '"(null)\\n"'),
        override(CRYPTO, "none"),
        read(file, '"none\\n"'),
        override(CRYPTO, "foo\nbar"),
        override(CRYPTO, "\nfoo"),
        override(CRYPTO, "foo\n"),
        override(CRYPTO, "\n"),
        override(CRYPTO, "abc\0def"),
        override(CRYPTO, "\0"),
        override(CRYPTO, "abc\0\ndef"),
        override(CRYPTO, "\0foo"),
        override(CRYPTO, "foo  "),
        override(CRYPTO, ""),
        override(CRYPTO, "  foo"),
        override(CRYPTO, "foo\t\r\n"),
        override(CRYPTO, "\xff\xfe"),
        override(CRYPTO, "x" * 4094),
        override(CRYPTO, "y" * 4095, "EINVAL"),
        override(CRYPTO, "y" * 4094 + "\n", "EINVAL"),
        override(CRYPTO, "y" * 4096, "EINVAL"),
        override(CRYPTO, "y" * 5000, "EINVAL"),
        override(CRYPTO, "\0" * 4095, "EINVAL"),
        override(CRYPTO, "z" * 4093 + "\n"),
        override(CRYPTO, "first", flags="O_WRONLY|O_TRUNC"),
        override(CRYPTO, "second", flags="O_WRONLY|O_APPEND"),
        override(CRYPTO, "third", flags="O_RDWR"),
        override(CRYPTO, "fourth", flags="O_WRONLY|O_CREAT"),
        override(CRYPTO, "(null)"),
        read(file, '"(null)\\n"'),
        bind("simple-pm-bus", CRYPTO, "ENODEV"),
        hold("override", file),
        write_held("override", "none"),
        write_held("override", "some"),
        read_held("override", '"some\\n"'),
        release("override"),
        override(CRYPTO, "\n"),
    ]


def _who_may_do_what() -> list[Operation]:
    file, bind_file = device(CRYPTO, "driver_override"), f"{PLATFORM}/drivers/acme-ring/bind"
    missing = device(CRYPTO, "missing")
    return [
        access(file, "0:0 0644"),
        access(bind_file, "0:0 0200"),
        access(f"{PLATFORM}/drivers/acme-ring/unbind", "0:0 0200"),
        access(f"{PLATFORM}/drivers_probe", "0:0 0200"),
        access(f"{PLATFORM}/drivers_autoprobe", "0:0 0644"),
        access(device(CRYPTO, "modalias"), "0:0 0444"),
        access(device(CRYPTO, "uevent"), "0:0 0644"),
        access(device(ENGINE, "id"), "0:0 0444"),
        read(file, '"(null)\\n"', by="nobody"),
        override(CRYPTO, "none", "EACCES", by="nobody"),
        bind("acme-ring", DMA, "EACCES", by="nobody"),
        unbind("acme-ring", DMA, "EACCES", by="nobody"),
        probe(CRYPTO, "EACCES", by="nobody"),
        write(f"{PLATFORM}/drivers_autoprobe", "0", "EACCES", by="nobody"),
        change_mode(file, "0666"),
        override(CRYPTO, "none", by="nobody"),
        change_mode(file, "0644"),
        override(CRYPTO, "\n", "EACCES", by="nobody"),
        override(CRYPTO, "\n", by="bare"),
        unbind("acme-ring", DMA, by="bare"),
        bind("acme-ring", DMA, by="bare"),
        open_(device(CRYPTO, "modalias"), "O_WRONLY", "EACCES", by="bare"),
        override(CRYPTO, "none", "EROFS", by="read-only"),
        unbind("acme-ring", DMA, "EROFS", by="read-only"),
        probe(DMA, "EROFS", by="read-only"),
        open_(file, "O_RDWR", "EROFS", by="read-only"),
        read(file, '"(null)\\n"', by="read-only"),
        open_(missing, "O_WRONLY", "ENOENT", by="read-only"),
        open_(missing, "O_WRONLY|O_CREAT", "EROFS", by="read-only"),
        open_(missing, "O_WRONLY", "ENOENT"),
        open_(missing, "O_WRONLY|O_CREAT", "EACCES"),
        open_(missing, "O_WRONLY|O_CREAT|O_TRUNC", "EACCES"),
        open_(f"{PLATFORM}/devices/nothing/driver_override", "O_WRONLY", "ENOENT"),
        open_(f"{PLATFORM}/devices/nothing/driver_override", "O_WRONLY|O_CREAT", "ENOENT"),
        open_(device(CRYPTO), "O_WRONLY", "EISDIR"),
        open_(device(CRYPTO, "modalias"), "O_WRONLY", "EACCES"),
        open_(device(CRYPTO, "modalias"), "O_RDWR", "EACCES"),
        open_(bind_file, "O_RDONLY", "EACCES"),
        open_(bind_file, "O_RDWR", "EACCES"),
        open_(f"{PLATFORM}/drivers_probe", "O_RDONLY", "EACCES"),
        open_(file, "O_WRONLY|O_CREAT|O_EXCL", "EEXIST"),
        _do("make_directory", device(CRYPTO, "directory"), gives="EPERM"),
        _do("remove", file, gives="EPERM"),
    ]


def moves_nothing(name: str, native: str) -> list[Operation]:
    """Change the override of a device that its native driver has."""
    return [
        override(name, vfio_driver(name)),
        bind(native, name, "ENODEV"),
        probe(name),
        override(name, native),
        bind(native, name, "EBUSY"),
        override(name, "none"),
        unbind(native, name),
        probe(name),
        bind(native, name, "ENODEV"),
        override(name, f"{native} "),
        probe(name),
        override(name, native),
        probe(name),
        override(name, "\n"),
        unbind(native, name),
        probe(name),
    ]


def _an_override_moves_nothing() -> list[Operation]:
    return moves_nothing(DMA, "acme-ring")


def _an_override_lets_any_driver_take_a_device() -> list[Operation]:
    return [
        override(PLAIN, "acme-ring"),
        bind("acme-ring", PLAIN),
        override(PLAIN, "none"),
        probe(PLAIN),
        unbind("acme-ring", PLAIN),
        override(PLAIN, "simple-pm-bus"),
        probe(PLAIN),
        bind("acme-ring", PLAIN, "ENODEV"),
        unbind("acme-ring", PLAIN, "ENODEV"),
        override(PLAIN, "\n"),
        unbind("simple-pm-bus", PLAIN),
        probe(PLAIN),
        bind("simple-pm-bus", PLAIN, "ENODEV"),
        override(CRYPTO, "acme-ring"),
        probe(CRYPTO),
        unbind("acme-ring", CRYPTO),
        override(CRYPTO, "\n"),
    ]


def _what_bind_answers() -> list[Operation]:
    gone = f"{PLATFORM}/drivers/gone"
    smmu, console = f"{PLATFORM}/drivers/arm-smmu-v3", f"{AMBA}/drivers/uart-pl011"
    file = f"{PLATFORM}/drivers/acme-ring/bind"
    return [
        bind("acme-ring", "nothing", "ENODEV"),
        bind("acme-ring", ""),
        bind("acme-ring", "\n", "ENODEV"),
        bind("acme-ring", DMA, "EBUSY"),
        bind("acme-ring", DMA, "EBUSY", end="\n"),
        bind("acme-ring", DMA, "EBUSY", end="\0junk"),
        bind("acme-ring", DMA, "ENODEV", end="\n\n"),
        bind("acme-ring", DMA, "ENODEV", end=" "),
        bind("acme-ring", " " + DMA, "ENODEV"),
        bind("acme-ring", "x" * 5000, "ENODEV"),
        bind("acme-ring", CRYPTO, "ENODEV"),
        write(file, ENGINE, "ENODEV"),
        bind("fw_cfg", DMA, "ENODEV"),
        unbind("acme-ring", "nothing", "ENODEV"),
        unbind("acme-ring", ""),
        unbind("acme-ring", CRYPTO, "ENODEV"),
        unbind("fw_cfg", DMA, "ENODEV"),
        unbind("acme-ring", DMA, "ENODEV", end=" "),
        unbind("acme-ring", DMA),
        unbind("acme-ring", DMA, "ENODEV"),
        bind("acme-ring", DMA),
        unbind("acme-ring", DMA, end="\n"),
        bind("acme-ring", DMA, end="\n"),
        open_(f"{gone}/bind", "O_WRONLY", "ENOENT"),
        open_(f"{gone}/bind", "O_WRONLY|O_CREAT", "ENOENT"),
        open_(f"{smmu}/bind", "O_WRONLY", "ENOENT"),
        open_(f"{smmu}/unbind", "O_WRONLY|O_CREAT", "EACCES"),
        open_(f"{console}/unbind", "O_WRONLY", "ENOENT"),
        open_(f"{PLATFORM}/drivers/sbsa-uart/bind", "O_WRONLY", "ENOENT"),
    ]


def _what_drivers_probe_answers() -> list[Operation]:
    return [
        probe("nothing", "ENODEV"),
        probe(""),
        probe("\n", "ENODEV"),
        probe(DMA),
        probe(DMA, end="\n"),
        probe(DMA, "ENODEV", end=" "),
        probe(CRYPTO),
        write(f"{PLATFORM}/drivers_probe", ENGINE, "ENODEV"),
        write(f"{AMBA}/drivers_probe", CRYPTO, "ENODEV"),
        probe(ENGINE),
        unbind("acme-ring", DMA),
        probe(DMA, end="\n"),
    ]


def _a_probe_that_fails() -> list[Operation]:
    return [
        bind("virtio-mmio", EMPTY_SLOT, "ENODEV"),
        probe(EMPTY_SLOT),
        bind("simple-pm-bus", "platform-bus@c000000", "ENODEV"),
        override(SHARED, "of_fixed_clk"),
        bind("of_fixed_clk", SHARED, "EIO"),
        probe(SHARED),
        override(CRYPTO, "gpio-keys"),
        bind("gpio-keys", CRYPTO, "EINVAL"),
        probe(CRYPTO),
        override(CRYPTO, "fw_cfg"),
        bind("fw_cfg", CRYPTO, "EBUSY"),
        override(CRYPTO, "gpio-clk"),
        bind("gpio-clk", CRYPTO, "ENOENT"),
        override(CRYPTO, "\n"),
        override(SHARED, "\n"),
    ]


def _autoprobe() -> list[Operation]:
    file = f"{PLATFORM}/drivers_autoprobe"
    return [
        read(file, '"1\\n"'),
        write(file, ""),
        write(file, "0"),
        read(file, '"0\\n"'),
        modprobe("-r", "acme"),
        modprobe("acme"),
        probe(DMA),
        bind("acme-ring", DMA2),
        write(file, "1\n"),
        modprobe("acme"),
        modprobe("-r", "acme"),
        write(file, "0abc"),
        write(file, "x"),
        write(file, "00"),
        write(file, "\n"),
        write(file, "0"),
        write(file, " 0"),
        write(f"{AMBA}/drivers_autoprobe", "0"),
        modprobe("acme"),
        override(ENGINE, "vfio-amba"),
        modprobe("vfio-amba"),
        write(f"{AMBA}/drivers_autoprobe", "1"),
        modprobe("-r", "vfio-amba"),
        modprobe("vfio-amba"),
        modprobe("-r", "vfio-amba"),
        override(ENGINE, "\n"),
        *FORGET,
    ]


def _a_driver_that_comes_and_goes() -> list[Operation]:
    return [
        override(DMA, "none"),
        override(CRYPTO, "acme-ring"),
        modprobe("-r", "acme"),
        bind("acme-ring", DMA, "ENOENT"),
        modprobe("acme"),
        override(DMA, "\n"),
        probe(DMA),
        unbind("acme-ring", CRYPTO),
        override(CRYPTO, "\n"),
        unbind("virtio-mmio", RNG_SLOT),
        probe(RNG_SLOT),
        unbind("rtc-pl031", CLOCK, "ENODEV", end=" "),
    ]


def _what_vfio_asks_for() -> list[Operation]:
    return [
        bind("vfio-platform", CRYPTO, "ENOENT"),
        modprobe("vfio-platform"),
        access(RESET_REQUIRED, "0:0 0444"),
        read(RESET_REQUIRED, '"Y\\n"'),
        write(RESET_REQUIRED, "0", "EACCES"),
        vfio_bind(CRYPTO, "ENODEV"),
        override(CRYPTO, "vfio-platform"),
        vfio_bind(CRYPTO, "ENOENT"),
        probe(CRYPTO),
        override(PLAIN, "vfio-platform"),
        vfio_bind(PLAIN, "ENOENT"),
        override(ETHERNET, "vfio-platform"),
        vfio_bind(ETHERNET),
        vfio_bind(ETHERNET, "EBUSY"),
        vfio_unbind(ETHERNET),
        override(ETHERNET, "\n"),
        override(DMA, "vfio-platform"),
        vfio_bind(DMA, "EBUSY"),
        vfio_unbind(DMA, "ENODEV"),
        override(ENGINE, "vfio-platform"),
        modprobe("vfio-amba"),
        vfio_bind(ENGINE, "ENODEV"),
        override(ENGINE, "vfio-amba"),
        vfio_bind(ENGINE),
        modprobe("-r", "vfio-amba"),
        modprobe("vfio-platform", "reset_required=0"),
        modprobe("-r", "vfio_platform_amdxgbe"),
        UNLOAD,
        NO_RESETS,
        vfio_bind(PLAIN, "EINVAL"),
        probe(PLAIN),
        override(KEYS, "vfio-platform"),
        vfio_bind(KEYS, "EINVAL"),
        unbind("acme-ring", DMA),
        vfio_bind(DMA),
        vfio_unbind(DMA),
        override(DMA, "\n"),
        probe(DMA),
        UNLOAD,
        *(override(name, "\n") for name in (CRYPTO, PLAIN, KEYS, ENGINE)),
        modprobe("vfio-platform", "nonsense=1"),
        UNLOAD,
        modprobe(
            "vfio-platform",
            "reset_required=maybe",
            gives="modprobe: ERROR: could not insert 'vfio_platform': Invalid argument",
        ),
        modprobe("-r", "vfio-platform-base"),
        *FORGET,
    ]


def _nodes() -> list[Operation]:
    return [
        NO_RESETS,
        override(CRYPTO, "vfio-platform"),
        probe(CRYPTO),
        override(SHARED, "vfio-platform"),
        probe(SHARED),
        access(group_node(CRYPTO), "0:0 0600"),
        access(device_node(CRYPTO), "0:0 0600"),
        open_(group_node(CRYPTO), "O_RDWR"),
        open_(device_node(CRYPTO), "O_RDWR"),
        open_(group_node(CRYPTO), "O_RDWR", "EACCES", by="nobody"),
        open_(device_node(CRYPTO), "O_RDWR", "EACCES", by="nobody"),
        vfio_unbind(CRYPTO),
        override(ETHERNET, "vfio-platform"),
        vfio_bind(ETHERNET),
        vfio_bind(CRYPTO),
        vfio_unbind(SHARED),
        vfio_unbind(ETHERNET),
        vfio_unbind(CRYPTO),
        UNLOAD,
        modprobe("vfio-platform", "reset_required=N"),
        UNLOAD,
        modprobe("-r", "vfio_platform_amdxgbe"),
        *(override(name, "\n") for name in (CRYPTO, SHARED, ETHERNET)),
        *FORGET,
    ]


def _late_modules() -> list[Operation]:
    return [
        override(CRYPTO, "vfio-platform"),
        override(DMA, "vfio-platform"),
        unbind("acme-ring", DMA2),
        override(DMA2, "vfio-platform"),
        override(PLAIN, "vfio-platform"),
        override(ENGINE, "vfio-amba"),
        NO_RESETS,
        modprobe("vfio_amba"),
        modprobe("-r", "vfio-amba"),
        UNLOAD,
        *(override(name, "\n") for name in (CRYPTO, DMA, DMA2, PLAIN, ENGINE)),
        probe(DMA2),
        *FORGET,
    ]


def _a_native_driver_and_vfio() -> list[Operation]:
    """Return the steps of the main job, done manually, on built-in drivers."""
    return [
        NO_RESETS,
        modprobe("vfio-amba"),
        override(RNG_SLOT, "vfio-platform"),
        unbind("virtio-mmio", RNG_SLOT),
        probe(RNG_SLOT),
        override(RNG_SLOT, "\n"),
        bind("virtio-mmio", RNG_SLOT, "EBUSY"),
        vfio_unbind(RNG_SLOT),
        probe(RNG_SLOT),
        modprobe("-r", "vfio-amba"),
        UNLOAD,
        *FORGET,
    ]


def _no_iommu() -> list[Operation]:
    return [
        write(NOIOMMU, "1", "ENOENT"),
        NO_RESETS,
        access(NOIOMMU, "0:0 0644"),
        read(NOIOMMU, '"N\\n"'),
        write(NOIOMMU, "1", "EACCES", by="nobody"),
        *(
            write(NOIOMMU, value, gives)
            for value, gives in (
                ("maybe", "EINVAL"),
                ("2", "EINVAL"),
                ("\n", "EINVAL"),
                ("", "ok"),
                ("1", "ok"),
                ("N\n", "ok"),
                ("on", "ok"),
                ("off", "ok"),
                ("yes", "ok"),
                ("no", "ok"),
                ("t", "ok"),
                ("F", "ok"),
                ("o", "EINVAL"),
                (" 1", "EINVAL"),
                ("Y", "ok"),
            )
        ),
        access(INTERRUPTS, "0:0 0644"),
        read(INTERRUPTS, '"N\\n"'),
        *(
            write(INTERRUPTS, value, gives)
            for value, gives in (
                ("2", "EINVAL"),
                ("1", "ok"),
                ("N", "ok"),
                ("Y", "ok"),
                ("0", "ok"),
            )
        ),
        override(PLAIN, "vfio-platform"),
        vfio_bind(PLAIN),
        access(unsafe_node(PLAIN), "0:0 0600"),
        open_(unsafe_node(PLAIN), "O_RDWR"),
        change_mode(unsafe_node(PLAIN), "0666"),
        open_(unsafe_node(PLAIN), "O_RDWR", "EPERM", by="nobody"),
        override(KEYS, "vfio-platform"),
        vfio_bind(KEYS),
        override(CRYPTO, "vfio-platform"),
        vfio_bind(CRYPTO),
        write(NOIOMMU, "0"),
        vfio_unbind(PLAIN),
        vfio_bind(PLAIN, "EINVAL"),
        vfio_unbind(KEYS),
        write(NOIOMMU, "1"),
        probe(PLAIN),
        probe(KEYS),
        vfio_unbind(CRYPTO),
        UNLOAD,
        *(override(name, "\n") for name in (CRYPTO, PLAIN, KEYS)),
        *FORGET,
    ]


def _a_device_that_is_open() -> list[Operation]:
    file = device(CRYPTO, "driver_override")
    return [
        NO_RESETS,
        override(CRYPTO, "vfio-platform"),
        probe(CRYPTO),
        hold("device", device_node(CRYPTO)),
        vfio_unbind(CRYPTO, by="second").hangs,
        read(file, '"vfio-platform\\n"'),
        override(CRYPTO, "none"),
        override(CRYPTO, "vfio-platform"),
        vfio_bind(CRYPTO, by="third").hangs,
        release("device").unseen,
        answer("second").unseen,
        answer("third"),
        hold("device", device_node(CRYPTO)),
        hold("device", device_node(CRYPTO), by="other holder"),
        vfio_unbind(CRYPTO, by="second").hangs,
        probe(CRYPTO, by="third"),
        release("device"),
        release("device", by="other holder").unseen,
        answer("second"),
        probe(CRYPTO),
        hold("device", device_node(CRYPTO)),
        vfio_unbind(CRYPTO, by="second").hangs,
        vfio_unbind(CRYPTO, by="third").hangs,
        release("device").unseen,
        answer("second").unseen,
        answer("third"),
        probe(CRYPTO),
        hold("device", device_node(CRYPTO)),
        modprobe("-r", "vfio-platform", by="second").hangs,
        release("device").unseen,
        answer("second"),
        override(CRYPTO, "\n"),
        *FORGET,
    ]


def _a_group_that_is_open() -> list[Operation]:
    return [
        NO_RESETS,
        override(CRYPTO, "vfio-platform"),
        probe(CRYPTO),
        hold("group", group_node(CRYPTO)),
        open_(group_node(CRYPTO), "O_RDWR", "EBUSY"),
        open_(device_node(CRYPTO), "O_RDWR"),
        vfio_unbind(CRYPTO),
        vfio_bind(CRYPTO),
        release("group"),
        open_(group_node(CRYPTO), "O_RDWR"),
        vfio_unbind(CRYPTO),
        override(CRYPTO, "\n"),
        UNLOAD,
        *FORGET,
    ]


def _suppliers() -> list[Operation]:
    return [
        NO_RESETS,
        unbind("pl061_gpio", GPIO),
        override(CONSUMER, "vfio-platform"),
        vfio_bind(CONSUMER, "EAGAIN"),
        probe(CONSUMER, "EINVAL"),
        bind("pl061_gpio", GPIO).then_(*CONSUMER_IS_BOUND),
        unbind("pl061_gpio", GPIO),
        probe(GPIO).then_(*CONSUMER_IS_BOUND),
        vfio_unbind(CONSUMER),
        vfio_bind(CONSUMER),
        vfio_unbind(CONSUMER),
        override(CONSUMER, "\n"),
        unbind("pl061_gpio", GPIO),
        bind("pl061_gpio", GPIO).then_("stays_away", device(CONSUMER, "driver")),
        unbind("pl061_gpio", GPIO),
        override(CONSUMER, "vfio-platform"),
        UNLOAD,
        NO_RESETS,
        bind("pl061_gpio", GPIO).then_(*CONSUMER_IS_BOUND),
        hold("device", device_node(CONSUMER)),
        unbind("pl061_gpio", GPIO, by="second").hangs,
        release("device").unseen,
        answer("second"),
        bind("pl061_gpio", GPIO).then_(*CONSUMER_IS_BOUND),
        UNLOAD,
        override(CONSUMER, "\n"),
        *FORGET,
    ]


def _deferral() -> list[Operation]:
    keys, consumer = device(GPIO_KEYS, "driver"), device(CONSUMER, "driver")
    autoprobe = f"{PLATFORM}/drivers_autoprobe"
    return [
        unbind("gpio-keys", GPIO_KEYS),
        unbind("pl061_gpio", GPIO),
        bind("gpio-keys", GPIO_KEYS, "EAGAIN"),
        bind("pl061_gpio", GPIO).then_("stays_away", keys),
        unbind("pl061_gpio", GPIO),
        probe(GPIO_KEYS),
        bind("pl061_gpio", GPIO).then_("comes", keys),
        NO_RESETS,
        override(CONSUMER, "vfio-platform"),
        unbind("pl061_gpio", GPIO),
        probe(CONSUMER, "EINVAL"),
        write(autoprobe, "0"),
        bind("pl061_gpio", GPIO).then_("stays_away", consumer),
        write(autoprobe, "1"),
        unbind("acme-ring", DMA),
        bind("acme-ring", DMA).then_("stays_away", consumer),
        probe(CONSUMER),
        vfio_unbind(CONSUMER),
        override(CONSUMER, "\n"),
        UNLOAD,
        *FORGET,
    ]


def _a_supplier_that_vfio_has() -> list[Operation]:
    return [
        NO_RESETS,
        modprobe("vfio-amba"),
        write(NOIOMMU, "1"),
        override(GPIO, "vfio-amba"),
        unbind("pl061_gpio", GPIO),
        override(CONSUMER, "vfio-platform"),
        vfio_bind(CONSUMER, "EAGAIN"),
        vfio_bind(GPIO).then_(*CONSUMER_IS_BOUND),
        vfio_unbind(GPIO),
        override(CONSUMER, "\n"),
        override(GPIO, "\n"),
        probe(GPIO),
        modprobe("-r", "vfio-amba"),
        UNLOAD,
        *FORGET,
    ]


def _modprobe() -> list[Operation]:
    missing = "modprobe: FATAL: Module %s not found"
    in_use = "modprobe: FATAL: Module %s is in use."
    gone = "modprobe: ERROR: could not remove 'vfio': No such file or directory"
    return [
        modprobe("acme-missing", gives=f"{missing % 'acme-missing'} in directory {RELEASE}"),
        modprobe("-r", "acme-missing", gives=f"{missing % 'acme-missing'}."),
        modprobe("-q", "acme-missing", gives="status 1"),
        modprobe("-r", "virtio-blk", gives="modprobe: FATAL: Module virtio_blk is builtin."),
        modprobe("virtio-blk"),
        modprobe("acme"),
        modprobe("-n", "vfio-platform"),
        modprobe("-R", "vfio-platform", gives="vfio_platform"),
        modprobe("-R", "of:NdmaT(null)Cacme,dma", gives="acme"),
        modprobe("-R", "of:NdmaT(null)Cacme,dma-v2Cacme,dma", gives="acme"),
        modprobe("-R", "amba:d00041031", gives="rtc_pl031"),
        modprobe("-r", "rtc-pl031", gives=in_use % "rtc_pl031"),
        modprobe("-r", "vfio-platform"),
        modprobe("vfio_platform"),
        modprobe("-r", "vfio-platform-base", gives=in_use % "vfio_platform_base"),
        modprobe("-r", "vfio", gives=in_use % "vfio"),
        modprobe("vfio-amba"),
        UNLOAD,
        modprobe("-r", "vfio-amba"),
        modprobe("-r", "iommufd", gives=in_use % "iommufd"),
        modprobe("-r", "vfio", gives=gone),
        modprobe("vfio-platform"),
        modprobe("-r", "vfio-iommu-type1"),
        UNLOAD,
        modprobe("vfio"),
        modprobe("vfio_platform_amdxgbe"),
        modprobe("-r", "vfio_platform_amdxgbe"),
        *FORGET,
        override(CRYPTO, "vfio-platform"),
        override(SHARED, "vfio-platform"),
        NO_RESETS,
        override(SHARED, "\n"),
        UNLOAD,
        override(CRYPTO, "\n"),
        *FORGET,
    ]


def _uevents() -> list[Operation]:
    file = device(CRYPTO, "uevent")
    return [
        write(file, "change"),
        write(file, "add\n"),
        write(file, "nonsense", "EINVAL"),
        write(file, ""),
        write(file, "add", "EACCES", by="nobody"),
    ]


def _a_device_that_goes_away() -> list[Operation]:
    return [
        hold("override", f"{ALARM}/driver_override"),
        read_held("override", '"(null)\\n"'),
        write_held("override", "none"),
        read_held("override", '"none\\n"'),
        unbind("rtc-pl031", CLOCK),
        write_held("override", "some", "ENODEV"),
        read_held("override", "ENODEV"),
        release("override"),
        open_(f"{ALARM}/driver_override", "O_WRONLY", "ENOENT"),
        modprobe("vfio-amba"),
        override(CLOCK, "vfio-amba"),
        vfio_bind(CLOCK),
        vfio_unbind(CLOCK),
        override(CLOCK, "\n"),
        modprobe("-r", "vfio-amba"),
        *FORGET,
        bind("rtc-pl031", CLOCK),
    ]


SCENARIOS = scenarios(
    _what_an_override_stores,
    _who_may_do_what,
    _an_override_moves_nothing,
    _an_override_lets_any_driver_take_a_device,
    _what_bind_answers,
    _what_drivers_probe_answers,
    _a_probe_that_fails,
    _autoprobe,
    _a_driver_that_comes_and_goes,
    _what_vfio_asks_for,
    _nodes,
    _late_modules,
    _a_native_driver_and_vfio,
    _no_iommu,
    _a_device_that_is_open,
    _a_group_that_is_open,
    _suppliers,
    _deferral,
    _a_supplier_that_vfio_has,
    _modprobe,
    _uevents,
    _a_device_that_goes_away,
)
