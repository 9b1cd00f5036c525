# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs operations on this machine, and reports the result of each.

The same program runs on both sides: python3 reads its text, followed by a call of main(). For each
operation it prints a line of JSON: the result, and the changes in the state of the machine. The
state contains the devices and drivers of some buses and some modules, by default BUSES and MODULES.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import os
import re
import select
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

BUSES = ("platform", "amba")
MODULES = (
    "acme",
    "gpio_keys",
    "iommufd",
    "qemu_fw_cfg",
    "rtc_pl031",
    "vfio",
    "vfio_amba",
    "vfio_iommu_type1",
    "vfio_platform",
    "vfio_platform_amdxgbe",
    "vfio_platform_base",
)
# Seconds to wait for what must happen (LIMIT), and to see that something does not (PATIENCE).
LIMIT = 30.0
PATIENCE = 0.5
INTERVAL = 0.005
NOBODY = 65534
# The files of a device that change, and those that never do, beside the override and uevent.
_VARIABLES = ("reset_method", "sriov_drivers_autoprobe", "sriov_numvfs")
_CONSTANTS = (
    "boot_vga",
    "id",
    "modalias",
    "numa_node",
    "revision",
    "secondary_bus_number",
    "sriov_offset",
    "sriov_stride",
    "sriov_totalvfs",
    "sriov_vf_device",
    "subordinate_bus_number",
)

State = dict[str, Any]


# Operations; each returns its result or raises OSError.


class Files:
    """The files that an actor keeps open, by the names that operations give them."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def write(self, path: str, data: str, flags: str = "O_WRONLY") -> str:
        file = _open(path, flags)
        try:
            return _write(file, data)
        finally:
            os.close(file)

    def read(self, path: str) -> str:
        file = _open(path, "O_RDONLY")
        try:
            return _read(file)
        finally:
            os.close(file)

    def open(self, path: str, flags: str) -> str:
        os.close(_open(path, flags))
        return "ok"

    def hold(self, path: str, flags: str, name: str) -> str:
        self._open[name] = _open(path, flags)
        return "ok"

    def write_held(self, name: str, data: str) -> str:
        return _write(self._held(name), data)

    def read_held(self, name: str) -> str:
        return _read(self._held(name))

    def release(self, name: str) -> str:
        os.close(self._held(name))
        del self._open[name]
        return "ok"

    def _held(self, name: str) -> int:
        if name not in self._open:
            raise OSError(errno.EBADF, "nothing is held under this name")
        return self._open[name]


def access(path: str) -> str:
    """Return owner and mode."""
    status = os.stat(_resolve(path))
    return f"{status.st_uid}:{status.st_gid} {stat.S_IMODE(status.st_mode):04o}"


def change_mode(path: str, mode: str) -> str:
    os.chmod(_resolve(path), int(mode, 8))
    return "ok"


def link(path: str) -> str:
    return _quoted(os.path.basename(os.readlink(_resolve(path))))


def names(path: str) -> str:
    return " ".join(sorted(os.listdir(_resolve(path))))


def make_directory(path: str) -> str:
    os.mkdir(_resolve(path))
    return "ok"


def remove(path: str) -> str:
    os.unlink(_resolve(path))
    return "ok"


def comes(path: str) -> str:
    """Wait until the path exists."""
    return "ok" if _await(lambda: os.path.lexists(_resolve(path)), LIMIT) else "never"


def goes(path: str) -> str:
    """Wait until the path does not exist."""
    return "ok" if _await(lambda: not os.path.lexists(_resolve(path)), LIMIT) else "never"


def stays_away(path: str) -> str:
    """Check that the path does not appear."""
    return "comes" if _await(lambda: os.path.lexists(_resolve(path)), PATIENCE) else "ok"


def becomes(path: str, content: str) -> str:
    """Wait until the file has this content."""
    return "ok" if _await(lambda: _content(path) == content + "\n", LIMIT) else "never"


def modprobe(*arguments: str) -> str:
    done = subprocess.run(
        ["modprobe", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    reported = re.sub(r"/lib/modules/\S+", "/lib/modules/RELEASE", done.stdout.decode()).strip()
    return reported or ("ok" if done.returncode == 0 else f"status {done.returncode}")


_DEEDS: dict[str, Callable[..., str]] = {
    "access": access,
    "change_mode": change_mode,
    "link": link,
    "names": names,
    "make_directory": make_directory,
    "remove": remove,
    "becomes": becomes,
    "comes": comes,
    "goes": goes,
    "stays_away": stays_away,
    "modprobe": modprobe,
}


def _perform(files: Files, kind: str, arguments: Sequence[Any]) -> str:
    deed = _DEEDS.get(kind) or getattr(files, kind)
    try:
        return str(deed(*arguments))
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def _open(path: str, flags: str) -> int:
    wanted = 0
    for name in flags.split("|"):
        wanted |= getattr(os, name)
    return os.open(_resolve(path), wanted, 0o644)


def _write(file: int, data: str) -> str:
    raw = data.encode("latin-1")
    done = os.write(file, raw)
    return "ok" if done == len(raw) else f"{done} of {len(raw)} bytes"


def _read(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    return _quoted(os.read(file, 65536).decode("latin-1"))


def _quoted(text: str) -> str:
    return json.dumps(text)


def _resolve(path: str) -> str:
    """Replace {group DEVICE} and {vfio DEVICE} by their current numbers, and expand globs."""
    filled = re.sub(r"\{(\w+) (\S+)\}", _number, path)
    return next(iter(glob.glob(filled)), filled) if "*" in filled else filled


def _number(asked: re.Match[str]) -> str:
    home = _home(asked.group(2))
    if asked.group(1) == "group":
        return os.path.basename(os.readlink(f"{home}/iommu_group"))
    return os.listdir(f"{home}/vfio-dev")[0].removeprefix("vfio")


def _home(device: str) -> str:
    return next(iter(glob.glob(f"/sys/bus/*/devices/{device}")), device)


def _await(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(INTERVAL)
    return True


# The processes that run the operations.


class Actor:
    """A process that runs operations in order; its name decides its privileges."""

    def __init__(self, name: str) -> None:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        if os.fork() == 0:
            os.close(self._requests)
            _act(name, requests, answers)
        os.close(requests)
        os.close(answers)

    def begin(self, kind: str, arguments: Sequence[Any]) -> None:
        os.write(self._requests, json.dumps([kind, arguments]).encode() + b"\n")

    def answer(self, seconds: float) -> str:
        """Return the result of the operation, or 'waits' if there is none within this time."""
        ready, _writable, _failed = select.select([self._answers], [], [], seconds)
        if not ready:
            return "waits"
        return str(json.loads(os.read(self._answers, 1 << 20) or b'"died"'))


def _act(name: str, requests: int, answers: int) -> NoReturn:
    try:
        _BECOME.get(name, _stay)()
        files = Files()
        with os.fdopen(requests, "rb") as stream:
            for line in stream:
                kind, arguments = json.loads(line)
                os.write(answers, json.dumps(_perform(files, kind, arguments)).encode())
    finally:
        os._exit(0)


def _stay() -> None:
    """Stay root, like the whole program."""


def _be_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def _drop_capabilities() -> None:
    # include/uapi/linux/capability.h: version 3 of the call, and three times two empty sets.
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _check(ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()))


def _make_read_only() -> None:
    # include/uapi/linux/mount.h and sched.h
    new_mounts, read_only, remount, bind, recursive, private = 0x20000, 1, 32, 4096, 16384, 1 << 18
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(new_mounts))
    _check(libc.mount(None, b"/", None, recursive | private, None))
    _check(libc.mount(None, b"/sys", None, remount | bind | read_only, None))


def _check(outcome: int) -> None:
    if outcome:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_BECOME = {
    "nobody": _be_nobody,
    "bare": _drop_capabilities,
    "read-only": _make_read_only,
}


class Troupe:
    """The actors, each started with its first operation."""

    def __init__(self) -> None:
        self._actors: dict[str, Actor] = {}

    def do(self, operation: dict[str, Any]) -> str:
        actor = self._actors.setdefault(operation["by"], None) or Actor(operation["by"])
        self._actors[operation["by"]] = actor
        if operation["kind"] != "answer":
            actor.begin(operation["kind"], operation["arguments"])
        result = actor.answer(PATIENCE if operation["is_begun_only"] else LIMIT)
        for kind, *arguments in operation["then"]:
            seen = _perform(Files(), kind, arguments)
            result += "" if seen == "ok" else f"; {kind} {' '.join(arguments)}: {seen}"
        return result


# The state of the machine, as a flat mapping.


class Observer:
    """Reads the state; values that cannot change unnoticed are read once."""

    def __init__(self, buses: Sequence[str], modules: Sequence[str]) -> None:
        self._buses = buses
        self._modules = modules
        # A descriptor of each device's directory, and what was read once of each device.
        self._folders: dict[str, int] = {}
        self._reported: dict[str, dict[object, str | None]] = {}

    def state(self) -> State:
        """Return the state once no consumer is being probed, or the current one if a probe hangs.

        Deferred probes continue after the operation that caused them.
        """
        states: list[State] = []

        def is_settled() -> bool:
            states.append(self._state())
            return "consumer probing\n" not in states[-1].values()

        _await(is_settled, PATIENCE)
        return states[-1]

    def _state(self) -> State:
        state: State = {}
        numbers: dict[str, list[str]] = {}
        present = set()
        for bus in self._buses:
            state[f"{bus} autoprobe"] = _content(f"/sys/bus/{bus}/drivers_autoprobe")
            for name in os.listdir(f"/sys/bus/{bus}/devices"):
                # A helper device of a driver, with another number each time.
                if not name.endswith(".auto"):
                    present.add(f"{bus}/{name}")
                    state.update(self._device(bus, name, numbers))
        for key in self._folders.keys() - present:
            self._forget(key)
        groups = {number: self._group(number, members) for number, members in numbers.items()}
        for number, members in numbers.items():
            for member in members:
                state[f"{member} group"] = groups[number]
        state.update(_drivers(self._buses))
        state.update(_modules(self._modules))
        state.update(_nodes(groups))
        return state

    def _device(self, bus: str, name: str, numbers: dict[str, list[str]]) -> State:
        key = f"{bus}/{name}"
        directory = self._directory(bus, name)
        parts = os.listdir(directory)
        driver = _base(directory, "driver") if "driver" in parts else None
        if "iommu_group" in parts:
            numbers.setdefault(_base(directory, "iommu_group"), []).append(key)
        return {
            f"{key} driver": driver,
            f"{key} override": _content("driver_override", directory),
            f"{key} place": self._once(
                key, "place", lambda: os.readlink(f"/proc/self/fd/{directory}")
            ),
            f"{key} of_node": self._once(key, "of_node", lambda: _node(directory)),
            f"{key} uevent": self._once(
                key, ("uevent", driver), lambda: _content("uevent", directory)
            ),
            **{
                f"{key} {part}": self._once(key, part, partial(_content, part, directory))
                for part in parts
                if part in _CONSTANTS
            },
            **{f"{key} {part}": _content(part, directory) for part in parts if part in _VARIABLES},
            **{
                f"{key} {part}": _base(directory, part)
                for part in parts
                if part == "physfn" or part.startswith("virtfn")
            },
            **{
                f"{key} {part}": _content(f"{part}/status", directory)
                for part in parts
                if part.startswith(("consumer:", "supplier:"))
            },
            **({f"{key} vfio": _vfio(directory)} if "vfio-dev" in parts else {}),
            **({f"{key} awaits first driver": True} if "waiting_for_supplier" in parts else {}),
        }

    def _directory(self, bus: str, name: str) -> int:
        key = f"{bus}/{name}"
        if key not in self._folders:
            home = os.path.realpath(f"/sys/bus/{bus}/devices/{name}")
            self._folders[key] = os.open(home, os.O_RDONLY)
        return self._folders[key]

    def _forget(self, key: str) -> None:
        """Forget a device that is gone: another one of its name may come."""
        os.close(self._folders.pop(key))
        del self._reported[key]

    def _once(self, key: str, part: object, look: Callable[[], str | None]) -> str | None:
        reported = self._reported.setdefault(key, {})
        if part not in reported:
            reported[part] = look()
        return reported[part]

    def _group(self, number: str, members: list[str]) -> str:
        """Return a description of a group that does not depend on its number."""

        def look() -> str:
            home = f"/sys/kernel/iommu_groups/{number}"
            devices = ",".join(sorted(os.listdir(f"{home}/devices")))
            return f"{(_content(f'{home}/name') or '').strip()} [{devices}]".strip()

        return self._once(f"group {number}", tuple(sorted(members)), look) or ""


def _node(directory: int) -> str | None:
    try:
        return os.readlink("of_node", dir_fd=directory).partition("/devicetree/base")[2]
    except FileNotFoundError:
        return None


def _vfio(directory: int) -> list[str]:
    home = os.readlink(f"/proc/self/fd/{directory}") + "/vfio-dev"
    has_node = {name: os.path.exists(f"{home}/{name}/dev") for name in os.listdir(home)}
    return sorted(f"{name}{' with node' if there else ''}" for name, there in has_node.items())


def _drivers(buses: Sequence[str]) -> State:
    state: State = {}
    for bus in buses:
        for driver in os.listdir(f"/sys/bus/{bus}/drivers"):
            # Should be the devices that link to this driver, but the two may disagree.
            for name in os.listdir(f"/sys/bus/{bus}/drivers/{driver}"):
                if not name.endswith(".auto") and name != "uevent":
                    state[f"driver {bus}/{driver} {name}"] = "there"
    return state


def _modules(names: Sequence[str]) -> State:
    state: State = {}
    for name in names:
        home = f"/sys/module/{name}"
        with suppress(FileNotFoundError):
            parts = os.listdir(home)
            state[f"module {name}"] = _content(f"{home}/initstate")
            if "drivers" in parts:
                state[f"module {name} drivers"] = sorted(os.listdir(f"{home}/drivers"))
            if "parameters" in parts:
                for parameter in os.listdir(f"{home}/parameters"):
                    value = _content(f"{home}/parameters/{parameter}")
                    state[f"module {name} {parameter}"] = value
    return state


def _nodes(groups: dict[str, str]) -> State:
    state: State = {}
    with suppress(FileNotFoundError):
        for name in os.listdir("/sys/class/vfio"):
            state[f"class/vfio {_named(name, groups)}"] = "there"
    for directory in ("/dev/vfio", "/dev/vfio/devices"):
        with suppress(FileNotFoundError):
            for name in os.listdir(directory):
                if not os.path.isdir(f"{directory}/{name}"):
                    state[f"{directory} {_named(name, groups)}"] = access(f"{directory}/{name}")
    return state


def _named(node: str, groups: dict[str, str]) -> str:
    kind, _dash, number = node.rpartition("-")
    return f"{kind} {groups.get(number, node)}".strip()


def _base(directory: int, name: str) -> str:
    return os.path.basename(os.readlink(name, dir_fd=directory))


def _content(path: str, directory: int | None = None) -> str | None:
    try:
        file = os.open(path, os.O_RDONLY, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        return os.read(file, 65536).decode("latin-1")
    finally:
        os.close(file)


def _changes(before: State, after: State) -> State:
    gone = {key: None for key in before if key not in after}
    return {**gone, **{key: value for key, value in after.items() if before.get(key) != value}}


def reports(
    operations: list[dict[str, Any]], buses: Sequence[str], modules: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield a report of each operation, after a first one with the initial state."""
    troupe, observer = Troupe(), Observer(buses, modules)
    before = observer.state()
    yield {"result": "ok", "changes": before}
    for operation in operations:
        result = troupe.do(operation)
        after = observer.state() if operation["is_seen"] else before
        yield {"result": result, "changes": _changes(before, after)}
        before = after


def main(
    operations: list[dict[str, Any]],
    buses: Sequence[str] = BUSES,
    modules: Sequence[str] = MODULES,
) -> None:
    for report in reports(operations, buses, modules):
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
