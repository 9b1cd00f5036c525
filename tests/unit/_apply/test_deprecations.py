# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the running kernel announces to remove is reported as a device is bound to it."""

from __future__ import annotations

import pytest
from board import AMBA, CRYPTO, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import Outcome
from ansible_collections.armfleet.vfio.plugins.module_utils._model.buses import BUSES
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info

END = "is deprecated and will be removed in a future kernel release"
XGBE = "amd,xgbe-seattle-v1a"


def run(board: Board, text: str) -> None:
    """Let the host run the release ``text``."""
    path = board.files_root / "proc/version"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"Linux version {text} (acme@acme) (gcc 14) #1 SMP\n")


def reported(outcome: Outcome) -> list[str]:
    return [warning for warning in outcome.warnings if END in warning]


@pytest.mark.parametrize(
    ("release", "is_reported"),
    [("6.17.0-8-generic", False), ("6.18.0", True), ("7.2.0-rc1", True), ("10.1.0", True)],
)
def test_vfio_amba_is_deprecated_since_linux_6_18(
    board: Board, release: str, is_reported: bool
) -> None:
    run(board, release)
    version = ".".join(release.split(".")[:2])
    label = "/soc/blob@b008000 (amba device b008000.blob)"
    expected = [f"Linux {version} announces for {label}: vfio-amba {END}"] if is_reported else []
    assert reported(board.check([AMBA])) == expected
    assert reported(board.apply([AMBA])) == expected
    assert reported(board.apply([AMBA])) == []


def test_vfio_platform_is_not_deprecated(board: Board) -> None:
    run(board, "6.18.0")
    assert reported(board.apply([CRYPTO], reset_required=False)) == []


def test_of_an_unknown_version_nothing_is_said(board: Board) -> None:
    assert reported(board.apply([AMBA])) == []


@pytest.mark.parametrize(("release", "is_reported"), [("6.17.0", False), ("6.18.0", True)])
def test_reset_functions_are_deprecated_since_linux_6_18(
    board: Board, release: str, is_reported: bool
) -> None:
    run(board, release)
    board.kernel.add_device("c000000.xgbe", "/soc/xgbe@c000000", (XGBE,), iommus=True)
    board.kernel.reset_functions.add(XGBE)
    outcome = board.apply([{"name": "c000000.xgbe", "policy": "vfio"}])
    (label,) = {device.device.label for device in outcome.devices}
    sentence = f"Linux 6.18 announces for {label}: VFIO AMD XGBE platform reset {END}"
    assert reported(outcome) == ([sentence] if is_reported else [])


def log(board: Board, text: str) -> None:
    with board.kmsg.open("a") as stream:
        stream.write(f"3,100,1,-;{text}\n")


@pytest.mark.parametrize("release", ["6.12.0-211.el10.aarch64", "6.18.0"])
def test_what_the_kernel_logs_is_told_once(board: Board, release: str) -> None:
    """A distribution can have the announcement in an older version."""
    run(board, release)
    board.kmsg.write_text("")
    text = f"vfio-amba b008000.blob: DEPRECATION: vfio-amba {END}"
    board.kernel.answer(("bus/amba/drivers/vfio-amba/bind", "b008000.blob"), lambda: None)
    board.kernel.after_write = lambda: log(board, text)
    (warning,) = reported(board.apply([AMBA]))
    is_known = release.startswith("6.18")
    assert warning.startswith("Linux 6.18" if is_known else "The kernel log has: 'vfio-amba b008")


@pytest.mark.parametrize(
    ("version", "expected"),
    [((6, 17), False), ((6, 18), True), ((6, 19), True), ((7, 0), False), (None, False)],
)
def test_vfio_fsl_mc_was_deprecated_for_two_versions(
    version: tuple[int, int] | None, expected: bool
) -> None:
    deprecation = BUSES["fsl-mc"].vfio_deprecation
    assert deprecation
    assert deprecation.holds_for(version) is expected


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.17.0", {}), ("6.18.0", {"vfio-amba": f"vfio-amba {END}"})],
)
def test_device_info_has_it_by_driver(board: Board, release: str, expected: dict[str, str]) -> None:
    run(board, release)
    support = device_info.inspections(board.inspect([]))["vfio_support"]
    assert support["deprecated"] == expected
