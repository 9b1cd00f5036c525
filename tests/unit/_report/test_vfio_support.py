# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""device_info reports which requirements of VFIO a host meets."""

from __future__ import annotations

import gzip
import os
from typing import Any
from unittest import mock

import pytest
from board import Board

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info

RELEASE = os.uname().release
CONFIG = "# Linux\nCONFIG_VFIO=m\n# CONFIG_VFIO_NOIOMMU is not set\nCONFIG_IOMMUFD=y\n"


def support(board: Board) -> dict[str, Any]:
    reported: dict[str, Any] = device_info.inspections(board.inspect([]))["vfio_support"]
    return reported


def put(board: Board, path: str, content: bytes) -> None:
    file = board.files_root / path[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def test_drivers_iommus_and_modules_are_those_of_the_kernel(board: Board) -> None:
    reported = support(board)
    assert reported["kernel"] == RELEASE
    assert reported["drivers"] == {"vfio-platform": True, "vfio-amba": True}
    assert reported["iommus"] == board.kernel.names("class/iommu")
    assert reported["missing"] == []


def test_what_is_missing_is_told(board: Board) -> None:
    del board.kmod.modules["vfio_amba"]
    board.kernel.remove("class/iommu")
    no_driver, no_iommu = support(board)["missing"]
    assert "has no vfio-amba (CONFIG_VFIO_AMBA)" in no_driver
    assert no_iommu.startswith("No IOMMU is active")


DEBIAN = "Debian GNU/Linux 13 (trixie)"
AS_MODULES = "CONFIG_VFIO_PLATFORM=m\nCONFIG_VFIO_AMBA=m\n"


@pytest.mark.parametrize(
    ("distribution", "release", "options", "remedy"),
    [
        (DEBIAN, "6.12.117+deb13-arm64", "", "; the role armfleet.vfio.vfio_modules builds it"),
        # Raspberry Pi OS.
        (DEBIAN, "6.12.47+rpt-rpi-v8", "", "; the host needs a kernel with it; see docs/hosts.md"),
        (None, "6.12", "", "; the host needs a kernel with it; see docs/hosts.md"),
        (
            *("Ubuntu 26.04 LTS", "7.0.0-14-generic", AS_MODULES),
            "is not installed: install linux-modules-extra-7.0.0-14-generic",
        ),
        (
            *("Fedora Linux 43", "6.17.1-300.fc43.aarch64", AS_MODULES),
            "is not installed: install kernel-modules-extra-6.17.1-300.fc43.aarch64",
        ),
        (
            *("Alpine Linux v3.22", "6.12.31-0-lts", AS_MODULES),
            "install the distribution's package with the rest of the kernel's modules",
        ),
    ],
)
def test_what_gives_a_missing_driver_depends_on_the_distribution(
    board: Board, distribution: str | None, release: str, options: str, remedy: str
) -> None:
    if distribution:
        put(board, "/etc/os-release", f'PRETTY_NAME="{distribution}"\n'.encode())
    put(board, "/boot/config-" + release, options.encode())
    board.kmod.modules.clear()
    running = os.uname_result(("Linux", "board", release, "#1", "aarch64"))
    with mock.patch("os.uname", return_value=running):
        missing = support(board)["missing"]
    for driver in ("vfio-platform", "vfio-amba"):
        (sentence,) = (text for text in missing if f"no {driver} " in text)
        assert sentence.endswith(remedy)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/proc/config.gz", gzip.compress(CONFIG.encode())),
        ("/boot/config-" + RELEASE, CONFIG.encode()),
        (f"/lib/modules/{RELEASE}/config", CONFIG.encode()),
    ],
)
def test_options_of_the_kernel_are_read_where_distributions_have_them(
    board: Board, path: str, content: bytes
) -> None:
    put(board, path, content)
    reported = support(board)
    assert reported["kernel_options_source"] == path
    values = reported["kernel_options"]
    assert (values["VFIO"], values["VFIO_NOIOMMU"], values["IOMMUFD"]) == ("m", "n", "y")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"no gzip", gzip.compress(b"\xff" * 2**23)])
def test_a_damaged_file_of_options_is_no_failure(board: Board, content: bytes) -> None:
    put(board, "/proc/config.gz", content)
    assert set(support(board)["kernel_options"].values()) == {"n"}


def test_without_such_a_file_no_option_is_known(board: Board) -> None:
    reported = support(board)
    assert (reported["kernel_options"], reported["kernel_options_source"]) == ({}, None)


def test_a_host_without_modprobe_has_no_driver_that_is_not_registered(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_module: str) -> bool:
        raise PolicyError("modprobe is not installed on this host. Install the package kmod")

    monkeypatch.setattr(board.kmod, "is_available", fail)
    assert set(support(board)["drivers"].values()) == {False}
    for device in device_info.inspections(board.inspect(None))["devices"]:
        assert device["candidate"] is False


def test_signed_modules_and_the_distribution_are_told(board: Board) -> None:
    put(board, "/etc/os-release", b'ID=debian\nPRETTY_NAME="Debian 13"\n')
    board.kernel.put("kernel/security/lockdown", "none [integrity] confidentiality\n")
    reported = support(board)
    assert (reported["distribution"], reported["signed_modules"]) == (
        "Debian 13",
        "lockdown=integrity",
    )
