"""A machine for unit tests: the simulator's kernel with devices, modules, processes and files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from simulated_kernel import AMBA_ID, BoardKernel, BoardKmod, BoardModule, Driver, snapshot

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.journal import Journal
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import (
    Outcome,
    reconcile,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.run_lock import RunLock
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import last_applied
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.checker import Usage
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import VfioSettings
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import Selector
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info
from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import (
    Findings,
    inspect,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._system.host import Host
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmsg import KernelLog
from ansible_collections.armfleet.vfio.plugins.module_utils._system.rtnetlink import Networks
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs

CRYPTO = {"dt_path": "/soc/crypto@b000000", "policy": "vfio"}
DMA = {"name": "b002000.dma", "policy": "no_autobind"}
AMBA = {"dt_path": "/soc/blob@b008000", "policy": "vfio"}
LIST: list[dict[str, Any]] = [
    {"compatible": "acme,crypto", "expect": 2, "policy": "vfio"},
    DMA,
    AMBA,
    {"dt_path": "dma1", "policy": "driver", "driver": "acme-dma-uio"},
]


class Board:
    """A machine on which a test runs the engine."""

    def __init__(self, root: Path, *, groups_at_boot: bool = False) -> None:
        self.root = root
        self.files_root = root / "host"
        dev = self.files_root / "dev"
        self.kernel = BoardKernel(dev, groups_at_boot=groups_at_boot)
        self.kmod = BoardKmod(self.kernel, self.files_root / "etc")
        self.networks = Networks({}, set())
        self.kmsg = root / "kmsg"
        self.proc = root / "proc"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self/mountinfo").write_text("22 1 0:20 / /proc rw - proc proc rw\n")
        (self.proc / "swaps").write_text("Filename Type Size Used Priority\n")
        for path in last_applied.PATHS:
            (self.files_root / path[1:]).parent.mkdir(parents=True)

    @property
    def host(self) -> Host:
        """Return new gateways, which cache nothing from an earlier run, as in a new process."""
        files = Files(str(self.files_root))
        self.kmod.forget_answers()
        return Host(self.kernel, self.kmod, files, KernelLog(str(self.kmsg)))

    @property
    def usage(self) -> Usage:
        return self.usage_by(self.kernel)

    def usage_by(self, sysfs: Sysfs) -> Usage:
        """Return what finds out who uses the devices, with another gateway to the same /sys."""
        files = Files(str(self.files_root))
        return Usage(sysfs, str(self.proc), lambda: self.networks, files)

    def run_lock(self, name: str = "host_policy", timeout: float = 0) -> RunLock:
        return RunLock(name, timeout, str(self.root / "run"))

    def journal(self, name: str = "host_policy") -> Journal:
        return self.run_lock(name).journal

    def apply(self, entries: Sequence[dict[str, Any]], **settings: Any) -> Outcome:
        """Return the outcome of host_policy for this list."""
        return self.reconcile(self._request(entries, settings))

    def check(self, entries: Sequence[dict[str, Any]], **settings: Any) -> Outcome:
        """Return the outcome of host_policy for this list in check mode."""
        return self.reconcile(self._request(entries, settings), check_mode=True)

    def refused(
        self, entries: Sequence[dict[str, Any]], *, check_mode: bool = False, **settings: Any
    ) -> list[str]:
        """Return why host_policy refuses this list, after asserting that nothing was changed."""
        run = self.check if check_mode else self.apply
        with self.unchanged(), pytest.raises(PolicyError) as caught:
            run(entries, **settings)
        return caught.value.problems

    def refusal(self, entries: Sequence[dict[str, Any]], **options: Any) -> str:
        """Return the message with which host_policy refuses this list; see ``refused``."""
        return "\n".join(self.refused(entries, **options))

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Assert that the block changes no file, writes nothing to /sys and loads no module."""
        before = self.everything(), list(self.kernel.writes), list(self.kmod.calls)
        yield
        assert (self.everything(), self.kernel.writes, self.kmod.calls) == before

    def reconcile(self, request: Request, *, check_mode: bool = False) -> Outcome:
        return reconcile(self.host, self.usage, self.run_lock(), request, check_mode=check_mode)

    def inspect(self, selectors: Sequence[Selector] | None, **options: bool) -> Findings:
        return inspect(self.host, lambda host: self.usage_by(host.sysfs), selectors, **options)

    def devices(self) -> dict[str, dict[str, Any]]:
        """Return what device_info returns of each device, by name."""
        devices = device_info.inspections(self.inspect(None))["devices"]
        return {device["name"]: device for device in devices}

    def info(self, name: str) -> dict[str, Any]:
        """Return what device_info returns of the device of this name."""
        (device,) = device_info.inspections(self.inspect([Selector("name", name)]))["devices"]
        return dict(device)

    def _request(self, entries: Sequence[dict[str, Any]], settings: dict[str, Any]) -> Request:
        settings = {"persistent": True, **settings}
        names = ("reset_required", "unsafe_noiommu", "unsafe_interrupts")
        vfio = VfioSettings(*(settings.pop(name, None) for name in names))
        return Request(parse_entries(entries), is_whole_list=True, settings=vfio, **settings)

    def file(self, path: str) -> str | None:
        file = self.files_root / path[1:]
        return file.read_text() if file.exists() else None

    def write_file(self, path: str, content: str) -> None:
        file = self.files_root / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def everything(self) -> dict[str, tuple[str, str, int]]:
        """Return the content of /sys and of the host's files."""
        return {
            **{f"sys/{key}": value for key, value in snapshot(self.kernel.tree).items()},
            **{f"host/{key}": value for key, value in snapshot(self.files_root).items()},
        }

    def nodes(self) -> dict[str, str]:
        """Return the modes of the VFIO nodes, by path."""
        dev = self.kernel.dev
        return {
            f"/dev/{node.relative_to(dev)}": f"{node.stat().st_mode & 0o7777:04o}"
            for node in dev.rglob("*")
            if node.is_file() and not node.is_symlink() and node.name != "vfio"
        }

    def mount(
        self, number: str, mount_point: str, kind: str = "ext4", source: str = "none"
    ) -> None:
        with (self.proc / "self/mountinfo").open("a") as stream:
            stream.write(
                f"30 1 {number} / {mount_point} rw,relatime shared:1 - {kind} {source} rw\n"
            )

    def process(self, pid: int, command: str, *opened: str) -> None:
        """Add a process with open files."""
        (self.proc / str(pid) / "fd").mkdir(parents=True)
        (self.proc / str(pid) / "comm").write_bytes(os.fsencode(command) + b"\n")
        for number, target in enumerate(opened):
            (self.proc / str(pid) / "fd" / str(number)).symlink_to(target)


def acme_board(root: Path, *, groups_at_boot: bool = False) -> Board:
    """Return a board with devices of all kinds; native drivers are loaded, VFIO's are not."""
    board = Board(root, groups_at_boot=groups_at_boot)
    kernel = board.kernel
    native = BoardModule(
        name="acme",
        drivers=(
            Driver("acme-crypto", compatible=("acme,crypto",), module="acme"),
            Driver("acme-dma", compatible=("acme,dma",), module="acme"),
            Driver("acme-dma-uio", module="acme"),
            Driver("acme-blob", "amba", amba_ids=(AMBA_ID,), module="acme"),
        ),
    )
    ethernet = BoardModule(
        name="acme_eth",
        drivers=(Driver("acme-eth", compatible=("acme,eth",), module="acme_eth"),),
    )
    board.kmod.modules.update({module.name: module for module in (native, ethernet)})
    board.kmod.load("acme")
    kernel.register(Driver("gpio-keys", compatible=("gpio-keys",), suppress_bind_attrs=True))
    kernel.add_node("/", ("acme,board",))
    kernel.add_node("/soc", ("simple-bus",))
    both = ("acme,crypto-v1", "acme,crypto")
    kernel.add_device("b000000.crypto", "/soc/crypto@b000000", both, iommus=True)
    kernel.add_device("b001000.crypto", "/soc/crypto@b001000", both, iommus=True)
    kernel.add_device("b002000.dma", "/soc/dma@b002000", ("acme,dma",))
    kernel.add_device("b003000.dma", "/soc/dma@b003000", ("acme,dma",))
    kernel.add_device("b004000.ethernet", "/soc/ethernet@e0700000", ("acme,eth",), iommus=True)
    kernel.add_device("soc:keys", "/soc/keys", ("gpio-keys",))
    compatible = ("acme,blob", "arm,primecell")
    kernel.add_device("b008000.blob", "/soc/blob@b008000", compatible, bus="amba", iommus=True)
    kernel.add_alias("crypto0", "/soc/crypto@b000000")
    kernel.add_alias("dma1", "/soc/dma@b003000")
    kernel.add_alias("soc", "/soc")
    board.kmod.calls.clear()
    return board
