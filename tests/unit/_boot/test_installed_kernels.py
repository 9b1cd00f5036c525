"""Missing modules of the running kernel and of other installed kernels are reported."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, DMA, LIST, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.installed_kernels import (
    InstalledKernels,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info
from ansible_collections.armfleet.vfio.plugins.module_utils._system import kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmod import Kmod

RUNNING = os.uname().release
GONE = "no module of the running kernel (x) can be loaded: /lib/modules/x is not there"
PLATFORM = "kernel/drivers/vfio/platform/vfio-platform.ko.xz"
BASE = "kernel/drivers/vfio/platform/vfio-platform-base.ko.xz"
NEEDS = f"{PLATFORM}: {BASE}\n{BASE}:\n"


def test_what_a_module_depends_on_is_read_of_the_running_kernel(board: Board) -> None:
    install(board, RUNNING, NEEDS + "plain.ko:\nacme.ko: plain.ko\n")
    install(board, "0.1", "kernel/other.ko: kernel/vfio.ko\n")
    kernels = InstalledKernels(board.host.files)
    assert kernels.dependencies("vfio_platform") == {"vfio_platform_base"}
    assert kernels.dependencies("vfio-platform-base") == set()
    assert kernels.dependencies("acme") == {"plain"}
    assert kernels.dependencies("other") is kernels.dependencies("platform") is None


def reported(board: Board) -> dict[str, Any]:
    return device_info.inspections(board.inspect(None))


def of_crypto(board: Board) -> dict[str, Any]:
    (device,) = [
        candidate
        for candidate in reported(board)["devices"]
        if candidate["name"] == "b000000.crypto"
    ]
    return device


def install(
    board: Board, release: str, dependencies: str = "", built_in: str = "", without: str = ""
) -> None:
    """Install a kernel with those modules; the file ``without`` is missing."""
    home = board.files_root / "lib/modules" / release
    home.mkdir(parents=True)
    (home / "modules.dep").write_text(dependencies)
    (home / "modules.builtin").write_text(built_in)
    for path in dependencies.replace(":", " ").split():
        if path != without:
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).touch()


def boot(board: Board, moment: int) -> None:
    (board.files_root / "proc").mkdir(exist_ok=True)
    board.write_file("/proc/stat", f"cpu 1 2 3\nbtime {moment}\nprocesses 5\n")


@pytest.fixture
def applied(board: Board) -> Board:
    board.apply([CRYPTO], reset_required=False)
    return board


def test_a_running_kernel_that_lost_its_modules_makes_devices_drift(applied: Board) -> None:
    assert of_crypto(applied)["drift"] == []
    applied.kmod.no_modules = GONE
    del applied.kmod.modules["vfio_platform"]
    device = of_crypto(applied)
    assert device["next_boot"] == {
        "driver": None,
        "driver_override": "vfio-platform",
        "known": True,
        "in_drift": True,
        "reason": f"{GONE}, so vfio_platform, which policy vfio of the last-applied "
        "configuration requires, is not loaded",
    }
    (sentence,) = device["drift"]
    assert sentence.endswith(device["next_boot"]["reason"])


def test_without_modules_it_is_not_said_that_none_claims_a_device(board: Board) -> None:
    board.kernel.add_device("b00a000.other", "/soc/other@b00a000", ("acme,other",))
    for reason in ("no module claims it", GONE):
        (device,) = [
            candidate
            for candidate in reported(board)["devices"]
            if candidate["name"] == "b00a000.other"
        ]
        assert device["next_boot"]["reason"].endswith(f"{reason}, and no driver bound it")
        board.kmod.no_modules = GONE


def test_so_does_one_that_lost_a_single_module(applied: Board) -> None:
    del applied.kmod.modules["vfio_platform"]
    (sentence,) = of_crypto(applied)["drift"]
    assert "the running kernel (x) has no module vfio_platform, so vfio_platform" in sentence


@pytest.mark.parametrize("file", [PLATFORM, BASE])
def test_a_file_that_was_deleted_is_missing_whatever_depmod_wrote(
    applied: Board, file: str
) -> None:
    install(applied, RUNNING, NEEDS, without=file)
    (sentence,) = of_crypto(applied)["drift"]
    assert f"/lib/modules/{RUNNING}/{file} does not exist, so vfio_platform" in sentence


def test_a_module_of_a_pinned_driver_counts_and_one_that_is_not_asked_for_does_not(
    board: Board,
) -> None:
    board.apply(LIST, reset_required=False)
    assert [device for device in reported(board)["devices"] if device["drift"]] == []
    del board.kmod.modules["acme"]
    drifting = {device["name"] for device in reported(board)["devices"] if device["drift"]}
    assert drifting == {"b003000.dma"}
    board.apply([], reset_required=False)


def test_a_driver_that_is_built_in_needs_no_module(board: Board) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.kernel.remove("module/vfio_platform/initstate")
    board.kernel.reset_functions.add("acme,crypto-v1")
    board.apply([CRYPTO])
    board.kmod.no_modules = GONE
    del board.kmod.modules["vfio_platform"]
    assert of_crypto(board)["drift"] == []


@pytest.mark.parametrize("built_in", ["", PLATFORM.replace("-", "_").replace(".xz", "") + "\n"])
def test_other_kernels_are_told_with_what_they_lack(applied: Board, built_in: str) -> None:
    install(applied, RUNNING, NEEDS)
    install(applied, "6.1", NEEDS)
    install(applied, "6.2", "kernel/drivers/x-vfio-platform.ko:\n", built_in)
    install(applied, "6.3", NEEDS, without=BASE)
    (applied.files_root / "lib/modules/left-over").mkdir()
    boot(applied, 4_000_000_000)
    missing = [] if built_in else ["vfio_platform"]
    note = (
        "The installed kernel %s has no module vfio_platform, which the last-applied "
        "configuration requires"
    )
    info = reported(applied)
    assert {kernel["release"]: kernel["missing"] for kernel in info["kernels"]} == {
        RUNNING: [],
        "6.1": [],
        "6.2": missing,
        "6.3": ["vfio_platform"],
    }
    notes = [kernel["note"].partition(". ")[0] for kernel in info["kernels"] if kernel["note"]]
    assert notes == [note % release for release in ("6.2", "6.3")[len(built_in) > 0 :]]
    assert [kernel["release"] for kernel in info["kernels"] if kernel["running"]] == [RUNNING]
    assert of_crypto(applied)["drift"] == []


def test_a_kernel_that_came_after_the_boot_is_likely_to_be_booted_next(applied: Board) -> None:
    install(applied, RUNNING, NEEDS)
    install(applied, "6.1", NEEDS)
    install(applied, "6.2", built_in="kernel/vfio-platform.ko\n")
    boot(applied, 1)
    info = reported(applied)
    assert [kernel["new"] for kernel in info["kernels"] if kernel["release"] != RUNNING] == [
        True,
        True,
    ]
    assert [kernel["note"] for kernel in info["kernels"]] == [None, None, None]
    assert of_crypto(applied)["drift"] == []


def test_what_such_a_kernel_lacks_is_drift(applied: Board) -> None:
    install(applied, "6.1", "kernel/x.ko:\n")
    boot(applied, 1)
    (sentence,) = of_crypto(applied)["drift"]
    assert sentence == (
        "kernel 6.1, installed since the last boot, has no module vfio_platform, which the "
        "last-applied configuration requires: if the next boot starts it, the device has no driver"
    )


@pytest.mark.parametrize("entries", [[], [DMA]])
def test_a_list_that_needs_no_module_asks_no_kernel(
    board: Board, entries: list[dict[str, Any]]
) -> None:
    board.apply(entries)
    install(board, "6.1", "kernel/x.ko:\n")
    boot(board, 1)
    assert reported(board)["kernels"] == []
    assert [device for device in reported(board)["devices"] if device["drift"]] == []


@pytest.mark.parametrize(
    "entry", [CRYPTO, {"dt_path": "dma1", "policy": "driver", "driver": "nobody"}]
)
def test_a_run_says_that_the_modules_are_gone_and_not_that_the_kernel_has_none(
    board: Board, entry: dict[str, Any]
) -> None:
    board.kmod.no_modules = GONE
    board.kmod.modules.clear()
    with pytest.raises(PolicyError, match=re.escape(f"is not registered, and {GONE}. Install")):
        board.apply([entry], reset_required=False)


def test_the_three_ways_in_which_modules_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kmod, "_MODULES", f"{tmp_path}/modules/")
    head = f"no module of the running kernel ({RUNNING}) can be loaded: {tmp_path}/modules"
    assert Kmod().without_modules() == f"{head} does not exist"
    (tmp_path / "modules").mkdir()
    assert Kmod().without_modules() == f"{head}/{RUNNING}/modules.dep does not exist"
    for other in ("6.2", "6.1", RUNNING):
        (tmp_path / "modules" / other).mkdir()
    others = ", and there are modules of other kernels: 6.1, 6.2"
    assert Kmod().without_modules() == f"{head}/{RUNNING}/modules.dep does not exist{others}"
    (tmp_path / "modules" / RUNNING / "modules.dep").touch()
    assert Kmod().without_modules() is None


def test_without_modprobe_nothing_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmod, "_path", lambda _program: None)
    assert Kmod().explain_missing("vfio-platform") is None
