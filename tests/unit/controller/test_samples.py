"""Samples of the documentation are results of the modules on the board that it describes."""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from board import Board
from simulated_kernel import BoardModule, Driver

from ansible_collections.armfleet.vfio.plugins.filter import rollout_state, rollout_summary
from ansible_collections.armfleet.vfio.plugins.module_utils._apply import readiness
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.last_answer import LastAnswer
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import (
    initramfs,
    last_applied,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.initramfs_images import (
    Image,
    Rebuilt,
    result,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import (
    parse_selectors,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info, results
from tests.harness.modules import MODULES, NAMES, spec

ROOT = Path(__file__).parents[3]
CRYPTO, SERIAL, DMA = "/soc/crypto@b000000", "/soc/serial@b200000", "/soc/dma@b100000"
SKIPPED = {"compatible": "acme,crypto-v2", "when_board": "acme,two"}
RESULTS = {"host_policy": results.list_result, "vfio_binding": results.vfio_result}
OTHER_KERNEL = "6.12.48+deb13-arm64"
UBUNTU_KERNEL = "6.17.0-8-generic"
SYMBOLS = "0 d __initcall__kmod_virtio_mmio__202_714_virtio_mmio_init6\n"
PROGRAMS = ("/usr/sbin/update-initramfs", "/usr/sbin/mkinitramfs")


def sample_board(root: Path, compatible: tuple[str, ...] = ("acme,one",)) -> Board:
    """Return a board with the devices of the samples and with initramfs-tools."""
    board = Board(root, groups_at_boot=True)
    kernel = board.kernel
    kernel.machine.kernel.groups.taken = set(range(5))
    drivers = (
        Driver("acme-crypto", compatible=("acme,crypto",), module="acme"),
        Driver("acme-uart", compatible=("acme,uart-v1",), module="acme"),
        Driver("acme-dma", compatible=("acme,dma-v1",), module="acme"),
        Driver("acme-dma-uio", module="acme"),
    )
    board.kmod.modules["acme"] = BoardModule(name="acme", drivers=drivers)
    board.kmod.load("acme")
    kernel.register(Driver("virtio-mmio", compatible=("virtio,mmio",)))
    kernel.add_node("/", compatible)
    kernel.add_node("/soc", ("simple-bus",))
    both = ("acme,crypto-v2", "acme,crypto")
    kernel.add_device("b000000.crypto", CRYPTO, both, iommus=True)
    kernel.add_device("b200000.serial", SERIAL, ("acme,uart-v1",))
    kernel.add_device("b100000.dma", DMA, ("acme,dma-v1",))
    kernel.add_device("a000000.virtio_mmio", "/virtio_mmio@a000000", ("virtio,mmio",), iommus=True)
    images = ("/boot/vmlinuz-" + os.uname().release, "/boot/initrd.img-" + os.uname().release)
    for path in (*PROGRAMS, "/proc/kallsyms", *images):
        (board.files_root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        board.write_file(path, SYMBOLS)
        (board.files_root / path[1:]).chmod(0o755)
    return board


def call(board: Board, module: str, devices: list[dict[str, Any]], **options: Any) -> Any:
    """Return the result of a module for these options."""
    validated = ArgumentSpecValidator(**spec(module)).validate({"devices": devices, **options})
    assert validated.error_messages == []
    request = MODULES[module].to_request(validated.validated_parameters)
    outcome = board.reconcile(request, check_mode=False)
    to_result = RESULTS.get(module, results.result)
    return {"changed": outcome.is_changed, **to_result(outcome)}


def information(board: Board, *selectors: dict[str, Any]) -> dict[str, Any]:
    return device_info.inspections(board.inspect(parse_selectors(selectors) if selectors else None))


@contextmanager
def belonging_to_nobody(path: Path) -> Iterator[None]:
    """Make a file writable for all users, and report nobody as its owner."""
    lstat = os.lstat

    def owned(name: str) -> os.stat_result:
        values = list(lstat(name))
        if name == str(path):
            values[4:6] = 65534, 65534
        return os.stat_result(values)

    path.chmod(0o777)
    with mock.patch("os.lstat", owned):
        yield
    path.chmod(0o644)


def claim_crypto(board: Board) -> dict[str, Any]:
    listed = [{"dt_path": CRYPTO, "policy": "vfio"}, {**SKIPPED, "policy": "vfio"}]
    result: dict[str, Any] = call(board, "host_policy", listed, reset_required=False)
    return result


def results_of(module: str, root: Path) -> Iterator[dict[str, Any]]:
    """Yield the results of the module in each situation that its samples show."""
    board = sample_board(root)
    if module == "host_policy":
        yield claim_crypto(board)
        virtio = {"dt_path": "/virtio_mmio@a000000", "policy": "vfio"}
        listed = [{"dt_path": CRYPTO, "policy": "vfio"}, virtio]
        yield call(board, module, listed, reset_required=False)
        yield from noiommu_results(board, module)
        other = [{"dt_path": DMA, "policy": "no_autobind"}]
        yield call(board, module, other, rollout="crypto-v3")
        yield rolled_back(root / "rolled-back")
    elif module == "vfio_binding":
        yield call(board, module, [{"dt_path": CRYPTO}, SKIPPED], reset_required=False)
        yield from noiommu_results(board, module)
    elif module == "no_autobind":
        yield call(board, module, [{"dt_path": SERIAL}, SKIPPED])
    elif module == "driver_override":
        yield call(board, module, [{"dt_path": DMA}, SKIPPED], driver="acme-dma-uio")
    elif module == "initramfs":
        image = Image("/boot/initrd.img-6.12.117-arm64", "6.12.117-arm64", is_rebuilt=True)
        tool = initramfs.detect(board.host.files)
        assert tool is not None
        command = tool.command
        yield result(Rebuilt(tool.name, command, [image]))
    elif module == "last_answer":
        last = LastAnswer(board.run_lock(), "0" * 64)
        answer = last.find(board.kernel, board.host.files, check_mode=False)
        yield {"is_kept": answer is not None}
    else:
        yield from inspections(board)
        yield rolled_out(root / "rolled-out")
        yield drifting(root / "drifting")
        yield upgraded(root / "upgraded")
        armada = ("marvell,armada8040-mcbin", "marvell,armada8040")
        yield information(sample_board(root / "armada", armada))


def rolled_out(root: Path) -> dict[str, Any]:
    """Return what device_info returns after a rollout, with the time of the samples."""
    board = sample_board(root)
    listed = [{"dt_path": CRYPTO, "policy": "vfio"}]
    options = {"rollout": "crypto-v3", "rollout_by": "alice@control", "reset_required": False}
    now = time.strptime("2026-11-29T06:12:55Z", "%Y-%m-%dT%H:%M:%SZ")
    with mock.patch("time.gmtime", return_value=now):
        call(board, "host_policy", listed, **options)
    return information(board)


def rolled_back(root: Path) -> dict[str, Any]:
    """Return what a rollback of two rollouts returns."""
    board = sample_board(root)
    for path, rollout in ((SERIAL, "crypto-v2"), (DMA, "crypto-v3")):
        call(board, "host_policy", [{"dt_path": path, "policy": "no_autobind"}], rollout=rollout)
        call(board, "host_policy", [], state="finished", rollout=rollout)
    back = {"state": "previous", "rollout": "crypto-v2", "rollback_overtaken": True}
    result: dict[str, Any] = call(board, "host_policy", [], **back)
    return result


def noiommu_results(board: Board, module: str) -> Iterator[dict[str, Any]]:
    """Yield results for a device that stays bound to VFIO without an IOMMU and without a list."""
    crypto = [{"dt_path": CRYPTO, "policy": "vfio"}]
    call(board, "host_policy", crypto, reset_required=False, unsafe_noiommu=True)
    call(board, "vfio_binding", [{"dt_path": SERIAL}])
    if module == "host_policy":
        yield call(board, module, crypto, reset_required=False)
    else:
        yield call(board, module, [{"dt_path": CRYPTO}], state="released", unsafe_noiommu=False)


def inspections(board: Board) -> Iterator[dict[str, Any]]:
    yield information(board, {"dt_path": CRYPTO}, SKIPPED)
    board.kernel.put("devices/platform/b000000.crypto/net/eth0/flags", "0x1003\n")
    yield information(board)
    board.kernel.put("devices/platform/b000000.crypto/net/eth0/flags", "0x1002\n")
    claim_crypto(board)
    listed = [{"dt_path": CRYPTO, "policy": "vfio"}]
    call(board, "host_policy", listed, reset_required=False)
    modules = board.files_root / "lib/modules" / OTHER_KERNEL
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/crypto/acme.ko:\n")
    yield information(board)
    yield supported(board)
    with belonging_to_nobody(board.files_root / last_applied.MODULES_LOAD[1:]):
        yield information(board)
    others = {
        "/etc/driverctl.d/platform-b000000.crypto": "vfio-platform\n",
        "/etc/driverctl.d/mdio_bus-stmmac-0:01": "none\n",
        "/etc/udev/rules.d/80-vfio.rules": "# Mine.\n\n"
        'KERNEL=="b000000.crypto", ATTR{driver_override}="vfio-platform"\n',
        "/etc/modprobe.d/local.conf": "# Mine.\nblacklist acme\n",
    }
    for path, content in others.items():
        (board.files_root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        board.write_file(path, content)
    yield information(board)
    call(board, "vfio_binding", [{"dt_path": CRYPTO}], state="released")
    yield information(board)
    yield information(board, {"name": "a000000.virtio_mmio"})
    virtio = [{"name": "a000000.virtio_mmio", "policy": "vfio"}]
    for path in others:
        (board.files_root / path[1:]).unlink()
    call(board, "host_policy", virtio, reset_required=False)
    yield information(board)


def upgraded(root: Path) -> dict[str, Any]:
    """Return the result of device_info after an upgrade that changed the path of a device."""
    board, again = sample_board(root / "before"), sample_board(root / "after")
    claim_crypto(board)
    again.kernel.machine.kernel.remove_device(again.kernel.device("b000000.crypto"))
    both = ("acme,crypto-v2", "acme,crypto")
    again.kernel.add_device("b000000.crypto", "/soc@0/crypto@b000000", both, iommus=True)
    again.write_file(last_applied.RULES, board.file(last_applied.RULES) or "")
    return information(again)


def supported(board: Board) -> dict[str, Any]:
    """Return the result of device_info on an Ubuntu host that meets VFIO's requirements."""
    files = {
        "/etc/os-release": 'PRETTY_NAME="Ubuntu 25.10"\n',
        "/boot/config-" + UBUNTU_KERNEL: "CONFIG_VFIO=m\nCONFIG_VFIO_PLATFORM=m\n",
    }
    for path, content in files.items():
        board.write_file(path, content)
    (board.files_root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    running = os.uname_result(("Linux", "board", UBUNTU_KERNEL, "#1", "aarch64"))
    with mock.patch("os.uname", return_value=running):
        return information(board)


def documented(module: str) -> dict[str, Any]:
    imported = importlib.import_module(f"ansible_collections.armfleet.vfio.plugins.{module}")
    fields: dict[str, Any] = yaml.safe_load(imported.RETURN)
    return fields


@pytest.mark.parametrize("module", [name for name in NAMES if hasattr(MODULES[name], "to_request")])
def test_the_samples_of_a_device_are_of_one_run(tmp_path: Path, module: str) -> None:
    result, *_others = results_of(module, tmp_path)
    fields = documented(f"modules.{module}")["devices"]["contains"]
    device = result["devices"][0]
    assert {name: field["sample"] for name, field in fields.items()} == device
    # The sample of the diff shows the changes of the same device.
    (shown,) = [
        part
        for part in documented(f"modules.{module}")["diff"]["sample"]
        if part["before_header"] == "devices"
    ]
    assert shown in result["diff"]


def drifting(root: Path) -> dict[str, Any]:
    """Return the result of device_info on a host whose crypto engine another tool released."""
    board = sample_board(root)
    claim_crypto(board)
    call(board, "vfio_binding", [{"dt_path": CRYPTO}], state="released")
    board.kernel.put("devices/platform/b000000.crypto/net/eth0/flags", "0x1003\n")
    return information(board)


ON_VFIO = {"driver": "vfio-platform", "driver_override": "vfio-platform"}
DEVICE = {
    **dict.fromkeys(("dt_path", "acpi_path")),
    **ON_VFIO,
    "bus": "platform",
    "compatible": ["acme,x"],
    "desired": ON_VFIO,
    "next_boot": {
        **ON_VFIO,
        "known": True,
        "reason": "policy vfio of the last-applied configuration",
    },
    "drift": [],
    "in_use_by": [],
}


def shown(page: str) -> list[str]:
    """Return the lines of the one output in a guide."""
    (block,) = re.findall(
        r"^```text\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
    )
    return block.splitlines()


def test_the_table_of_the_guide_is_what_a_rollout_shows(tmp_path: Path) -> None:
    kmod = sample_board(tmp_path).host.kmod
    claims = {
        "devices": [{**DEVICE, "name": f"{number}.x"} for number in range(6)],
        "policy_list": [{"compatible": "acme,x", "policy": "vfio"}],
    }
    without_vfio = {"failed": True, "msg": readiness._no_vfio(kmod, "vfio-platform")}
    rows = {
        "board-b": rollout_state.rollout_state("board-b", 2, without_vfio),
        "rack-1": rollout_state.rollout_state("rack-1", 1, {"changed": True}, claims),
        "board-a": rollout_state.rollout_state("board-a", 2, {"changed": True}, claims),
        "board-c": None,
    }
    hostvars = {host: {"rollout_row": row} if row else {} for host, row in rows.items()}
    command = "ansible-playbook armfleet.vfio.%s -e passthrough_rollout=crypto-v3"
    texts = {
        "title": "Rollout crypto-v3",
        "waves": 3,
        "limit": 0,
        "way_back": [],
        "advice": [
            f"Roll back: {command % 'rollback'}",
            f"Continue:  {command % 'rollout'}",
            "Give each command the inventory and the options of this one.",
        ],
    }
    summary = rollout_summary.rollout_summary(list(rows), hostvars, texts)
    assert summary["failed"] == ["board-b"]
    release = os.uname().release
    # The guide has the beginning of details that need several lines.
    lines = [
        line.replace(release, "6.12.63") for line in summary["lines"] if not line.startswith(" ")
    ]
    for line, whole in zip(shown("docs/fleet.md"), lines, strict=True):
        assert whole.startswith(line[:-3]) if line.endswith("...") else whole == line


def test_what_the_guide_says_of_a_typing_error_is_what_is_said(tmp_path: Path) -> None:
    board = sample_board(tmp_path, ("amd,seattle-overdrive", "amd,seattle"))
    entry = {"dt_path": "/smb/xgmac@e0700000", "when_board": "amd,seatle", "policy": "vfio"}
    assert call(board, "host_policy", [entry])["skipped_entries"] == shown("docs/mixed-fleets.md")
