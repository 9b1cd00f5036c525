# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever the files that a run reads contain, it returns an answer and misses no use.

Local users, processes and firmware choose names in /proc and /sys, administrators write the
configuration, and a journal may be damaged.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ansible_collections.armfleet.vfio.plugins.module_utils import _text
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import reconcile
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.run_lock import RunLock
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import MARK
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.checker import Usage
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import VfioSettings
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._report.device_info import inspections
from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import inspect
from ansible_collections.armfleet.vfio.plugins.module_utils._report.results import result
from ansible_collections.armfleet.vfio.plugins.module_utils._system.host import Host
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmsg import KernelLog
from ansible_collections.armfleet.vfio.plugins.module_utils._system.processes import (
    Mount,
    Processes,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._system.rtnetlink import Networks
from extensions.simulator.description import Description
from extensions.simulator.machine import DEVICE_TREE, Machine, build
from tests.harness.simulated_gateways import SimulatedFiles, SimulatedKmod, SimulatedSysfs
from tests.simulated.boards import Part, device_tree
from tests.simulated.counts import Counts

EXAMPLES = {"check": 500, "test": 1_000, "nightly": 100_000}
# Bytes between two positions at which a NUL is inserted.
STRIDES = {"check": 64, "test": 16, "nightly": 1}
MOUNTS_OF_ALL = 5
NAME = "1000.dma"
HOME = f"devices/platform/{NAME}"
DISK, TERMINAL, PORT = (f"{HOME}/{path}" for path in ("block/sda", "tty/ttyX0", "net/eth0"))
CLOCK, REGULATOR = f"{HOME}/rtc/rtc0", f"{HOME}/regulator/regulator.1"
MOUNTED = b"30 1 8:0 / /data rw,relatime shared:1 - ext4 /dev/sda rw\n"
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
Look = Callable[..., None]
Call = Callable[["HostileHost"], dict[str, Any]]

# Files with valid content.
PROC: Mapping[str, bytes] = {
    "self/mountinfo": b"22 1 0:20 / /proc rw - proc proc rw\n" + MOUNTED,
    "self/environ": b"PATH=/bin\0SSH_CONNECTION=192.0.2.1 4000 192.0.2.2 22\0",
    "self/status": b"Name:\tpython3\nUmask:\t0022\nPPid:\t7\n",
    "7/comm": b"vmm\n",
    "7/environ": b"A=b\0",
    "7/mountinfo": b"22 1 0:20 / /proc rw - proc proc rw\n",
    "7/maps": b"ffff8000-ffff9000 rw-s 00000000 00:0e 1031      anon_inode:[vfio-device]\n",
    "7/status": b"Name:\tvmm\nPPid:\t1\n",
    "swaps": b"Filename\tType\tSize\tUsed\tPriority\n/dev/sdb partition\t1048572\t0\t-2\n",
    "crypto": (
        b"name         : cbc(aes)\ndriver       : acme\nmodule       : acme\nrefcnt       : 2\n\n"
    ),
    "interrupts": b"           CPU0\n 12:         15     GICv3  45 Level     arch_timer\n",
}
SYS: Mapping[str, bytes] = {
    f"{HOME}/uevent": b"OF_NAME=dma\nOF_FULLNAME=/dma@1000\nMODALIAS=of:NdmaT(null)Cacme,dma\n",
    f"{HOME}/modalias": b"of:NdmaT(null)Cacme,dma\n",
    f"{HOME}/driver_override": b"(null)\n",
    f"{DEVICE_TREE}/compatible": b"acme,board\0",
    f"{DEVICE_TREE}/aliases/serial0": b"/soc/serial@2000\0",
    f"{DEVICE_TREE}/chosen/stdout-path": b"serial0:115200n8\0",
    f"{DEVICE_TREE}/dma@1000/compatible": b"acme,dma\0",
    f"{DEVICE_TREE}/dma@1000/status": b"okay\0",
    f"{DEVICE_TREE}/dma@1000/phandle": b"\0\0\0\7",
    f"{DEVICE_TREE}/user@3000/dmas": b"\0\0\0\7\0\0\0\1",
    f"{DISK}/dev": b"8:0\n",
    f"{DISK}/dm/name": b"vg-data\n",
    f"{TERMINAL}/dev": b"4:64\n",
    f"{TERMINAL}/uevent": b"MAJOR=4\nMINOR=64\nDEVNAME=ttyX0\n",
    f"{PORT}/flags": b"0x1003\n",
    f"{PORT}/ifindex": b"2\n",
    f"{PORT}/address": b"02:00:00:00:00:01\n",
    f"{PORT}/uevent": b"DEVTYPE=wlan\nINTERFACE=eth0\n",
    f"{CLOCK}/hctosys": b"0\n",
    f"{CLOCK}/wakealarm": b"\n",
    f"{REGULATOR}/name": b"vdd\n",
    f"{REGULATOR}/num_users": b"1\n",
    "class/tty/console/active": b"ttyX0\n",
    "class/dmi/id/product_name": b"Acme Board\n",
    "module/vfio/parameters/enable_unsafe_noiommu_mode": b"N\n",
    "module/vfio_iommu_type1/parameters/allow_unsafe_interrupts": b"N\n",
    "module/vfio_platform/parameters/reset_required": b"Y\n",
    "module/acme/refcnt": b"1\n",
    "kernel/security/lockdown": b"[none] integrity confidentiality\n",
    "kernel/security/ima/runtime_measurements_count": b"12\n",
    "firmware/acpi/tables/IORT": bytes(36) + b"\1\0\0\0\x30\0\0\0" + bytes(12),
}
FILES: Mapping[str, bytes] = {
    "etc/fstab": (
        b"# disks\nUUID=1 / ext4 defaults 0 1\n/dev/sda /data ext4 nofail,journal_path=/dev/sdb\n"
    ),
    "etc/crypttab": b"data UUID=2 none luks\n",
    "etc/initramfs-tools/conf.d/resume": b"RESUME=UUID=3\n",
    "etc/systemd/system/data.mount": b"[Mount]\nWhat=/dev/sda\n",
    "etc/network/interfaces": (
        b"auto eth0\niface eth0 inet dhcp\nsource /etc/network/interfaces.d/*\n"
    ),
    "etc/network/interfaces.d/more": b"allow-hotplug eth1\n",
    "etc/systemd/network/1.network": b"[Match]\nName=eth*\nMACAddress=02:00:00:00:00:01\n[Link]\n",
    "etc/NetworkManager/system-connections/a.nmconnection": b"[connection]\ninterface-name=eth0\n",
    "etc/netplan/a.yaml": b"network:\n  ethernets:\n    eth0:\n      match: {name: 'e*'}\n",
    "etc/sysconfig/network-scripts/ifcfg-eth0": b"DEVICE=eth0\nHWADDR=02:00:00:00:00:01\n",
    "etc/udev/rules.d/10-other.rules": (
        b'KERNEL=="9.uart", ATTR{driver_override}="uio", \\\nGOTO="a"\n'
    ),
    "etc/modprobe.d/other.conf": b"blacklist acme\noptions vfio_platform reset_required=0\n",
    "etc/modules-load.d/other.conf": b"# comment\nacme-dma\n",
    "etc/driverctl.d/platform-1000.dma": b"uio\n",
    "etc/udev/rules.d/70-armfleet-vfio.rules": (
        MARK.encode() + b'\n# policy: {"name": "1000.dma", "policy": "no_autobind"}\n'
        b'# matched: {"name": "platform/1000.dma", "path": "/dma@1000", "ids": ["acme,dma"]}\n'
        b'# native: {"/dma@1000": "acme"}\n'
    ),
    "proc/cmdline": (
        b"root=/dev/sda console=ttyX0,115200 modprobe.blacklist=a,b vfio.x=1 ip=::::h:eth0\n"
    ),
    "proc/kallsyms": b"0000000000000000 t acme_init\t[acme]\n",
    "proc/stat": b"cpu 1 2\nbtime 1700000000\n",
    "lib/modules/6.1.0/modules.dep": b"kernel/drivers/vfio/vfio.ko.xz: kernel/a.ko\n",
    "lib/modules/6.1.0/modules.alias": b"alias vfio-reset:acme,dma acme_reset\n",
    "run/armfleet-vfio/journal": (
        b'{"format": 1, "boot": "%s", "who": "process 9"}\n'
        b'["module", "module vfio", {"module": "vfio", "before": [], "came": ["v'
        b'fio"]}, false]\n'
    )
    % BOOT.encode(),
}

PIECES = (
    *(b"\x1c", b"\x1d", b"\x1e", b"\x1f", b"\v", b"\f", b"\r", b"\x85", b"\xc2\x85", b"\xc2\xa0"),
    *("\u2028".encode(), "\u2029".encode(), "\u3000".encode(), "\u202e".encode(), "²".encode()),
    *(b"\xff", b"\xed\xb2\x80", b"\0", b"\x1b[2J", b"\x9b", b"\\", b"\\040", b"\\777", b"\\\n"),
    *(b" ", b"\t", b"\n", b"\n\n", b" - ", b":", b"=", b"#", b'"', b"'", b"-1", b"0x", b"{", b"]"),
    *(b"9" * 5000, b"A" * 5000, b"\nDEVNAME=null\n", b" (deleted)", b"[" * 3000, b"\xef\xbb\xbf"),
)
_BYTES = st.sampled_from(PIECES) | st.binary(max_size=12)


@st.composite
def spoilt(draw: st.DrawFn, good: bytes) -> bytes:
    """Draw the content with parts of it replaced by other bytes, and possibly truncated."""
    content = good
    for _time in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.sampled_from((0, 0, 1, 8)))
        content = content[:start] + draw(_BYTES) + content[end:]
    return content if draw(st.booleans()) else content[: draw(st.integers(0, len(content)))]


class HostileSysfs(SimulatedSysfs):
    """A /sys in which one file has other content."""

    def __init__(self, machine: Machine, path: str, content: bytes) -> None:
        super().__init__(machine)
        self._path, self._content = path, content

    def read_bytes(self, path: str) -> bytes | None:
        return self._content if path == self._path else super().read_bytes(path)

    def is_claimed(self, node: str) -> bool:  # noqa: ARG002 (the signature is the kernel's)
        """Return False, so that mounts are the only sign that a disk is in use."""
        return False


def machine() -> Machine:
    part = Part(
        "dma",
        is_amba=False,
        has_iommu=False,
        has_second_compatible=False,
        is_below_bus=False,
        supplier=None,
    )
    built = build(device_tree([part]), Description())
    for path, content in SYS.items():
        if not built.tree.find(path):
            built.tree.put(path, os.fsdecode(content))
    return built


class HostileHost(NamedTuple):
    host: Host
    usage: Usage
    lock: RunLock


def host_with(built: Machine, root: Path, path: str = "", content: bytes = b"") -> HostileHost:
    sysfs = HostileSysfs(built, path, content)
    files = SimulatedFiles(built, root)
    usage = Usage(sysfs, str(root / "proc"), lambda: Networks({}, set()), files)
    kmod = SimulatedKmod(built, root / "etc")
    host = Host(sysfs, kmod, files, KernelLog(str(root / "dev/kmsg")))
    return HostileHost(
        host, usage, RunLock("host_policy", directory=str(root / "run/armfleet-vfio"))
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write the files of a host with valid content."""
    for path, content in {**{f"proc/{path}": PROC[path] for path in PROC}, **FILES}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    for process, namespace in (("self", "mnt:[1]"), ("7", "mnt:[2]")):
        (tmp_path / f"proc/{process}/ns").mkdir(parents=True)
        (tmp_path / f"proc/{process}/ns/mnt").symlink_to(namespace)
    (tmp_path / "proc/7/fd").mkdir()
    (tmp_path / "proc/7/fd/3").symlink_to("/dev/ttyX0")
    return tmp_path


def device_info(hostile: HostileHost) -> dict[str, Any]:
    return inspections(inspect(hostile.host, lambda _host: hostile.usage, None))


def host_policy(hostile: HostileHost) -> dict[str, Any]:
    """Return the result of a list in check mode."""
    request = Request(
        parse_entries([{"name": NAME, "policy": "vfio"}]),
        is_whole_list=True,
        persistent=True,
        settings=VfioSettings(reset_required=False, unsafe_noiommu=True),
        allow=ACCEPTABLE,
        takes_over=True,
    )
    return result(reconcile(*hostile, request, check_mode=True))


def kinds(answer: dict[str, Any]) -> set[str]:
    """Return the kinds of use that device_info reports."""
    return {hazard["kind"] for device in answer["devices"] for hazard in device["in_use_by"]}


def test_any_bytes_in_a_file_end_in_an_answer(
    depth: str, examples_of_depth: Callable[[Look], Look], counts: Counts, root: Path
) -> None:
    built = machine()
    good = {
        **{("proc", path): content for path, content in PROC.items()},
        **{("sys", path): content for path, content in SYS.items()},
        **{("files", path): content for path, content in FILES.items()},
    }
    # Without damage every kind of use is found: otherwise the examples would prove nothing.
    assert kinds(device_info(host_with(built, root))) >= {"storage", "network", "console"}
    assert host_policy(host_with(built, root))["changed"]

    def look(where: str, path: str, call: Call, content: bytes) -> None:
        counts.add(f"files of {where}")
        file = root / ("proc" if where == "proc" else "") / path
        if where != "sys":
            file.write_bytes(content)
        try:
            answer = call(host_with(built, root, path * (where == "sys"), content))
            counts.add("answers")
            if call is device_info and (path != "self/mountinfo" or MOUNTED in content):
                assert where != "proc" or "storage" in kinds(answer)
        except PolicyError as error:
            answer = {"msg": error.problems}
            counts.add("refusals")
        json.dumps(_text.printable_result(answer), ensure_ascii=False).encode()
        if where != "sys":
            file.write_bytes(good[where, path])

    # NUL ends a text for the kernel and in C, but not in Python.
    for (where, path), usual in good.items():
        for end in range(0, len(usual) + 1, STRIDES[depth]):
            for call in (device_info, host_policy):
                look(where, path, call, usual[:end] + b"\0" + usual[end:])

    for (where, path), usual in good.items():
        examples = settings(
            max_examples=-(-EXAMPLES[depth] // len(good)),
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        call = st.sampled_from((device_info, host_policy))
        content = spoilt(usual)
        examples(examples_of_depth(given(st.just(where), st.just(path), call, content)(look)))()
    assert sum(counts[f"files of {where}"] for where in ("proc", "sys", "files")) >= EXAMPLES[depth]
    assert counts["answers"] > counts["refusals"]


def mangled(name: bytes) -> bytes:
    """Escape a name as the kernel does: mangle_path in fs/seq_file.c."""
    return re.sub(rb"[ \t\n\\#]", lambda match: b"\\%03o" % ord(match.group()), name)


_NAMES = st.lists(_BYTES, min_size=1, max_size=4).map(
    lambda parts: b"/" + b"".join(parts).replace(b"\0", b"")
)
_MOUNTS = st.lists(st.tuples(st.integers(0, 300), _NAMES, _NAMES), max_size=MOUNTS_OF_ALL)


def test_mounts_are_known_whatever_their_places_and_sources_are_called(
    depth: str, examples_of_depth: Callable[[Look], Look], tmp_path: Path
) -> None:
    (tmp_path / "self").mkdir()

    def look(mounts: list[tuple[int, bytes, bytes]]) -> None:
        lines = [
            b"30 1 8:%d / %s rw shared:1 - ext4 %s rw,errors=x\n"
            % (number, mangled(mount_point), mangled(source))
            for number, mount_point, source in mounts
        ]
        (tmp_path / "self/mountinfo").write_bytes(b"".join(lines))
        mounted = Processes(str(tmp_path)).mounts()
        assert mounted.mounts == [
            Mount(
                f"8:{number}",
                os.fsdecode(source),
                _text.printable(os.fsdecode(mount_point)),
                "ext4",
            )
            for number, mount_point, source in mounts
        ]
        assert not mounted.unknown

    examples = settings(
        max_examples=EXAMPLES[depth] // 10,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    examples(examples_of_depth(given(_MOUNTS)(look)))()
