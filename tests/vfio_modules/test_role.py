# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the role changes nothing or refuses, on a simulated host whose answers are forged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.hostile import answer, take_over
from tests.harness.nightly import at_night
from tests.harness.playbook import Run, play
from tests.matrix.test_role import DRIVERS, PARTS
from tests.simulated.boards import alike
from tests.simulated.fleet import Fleet, fleet, root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)

HOST, PLAYBOOK = "board", "armfleet.vfio.vfio_modules"
KERNEL = "6.12.117+deb13-arm64"
SUPPORT: dict[str, Any] = {
    "kernel": KERNEL,
    "distribution": "Debian GNU/Linux 13 (trixie)",
    "drivers": {"vfio-platform": False, "vfio-amba": False},
    "iommus": [],
    "noiommu": False,
    "unsafe_interrupts": {},
    "signed_modules": None,
    "initramfs_tool": "initramfs-tools",
    "systemd": True,
    "kernel_options": {"VFIO": "m"},
    "kernel_options_source": "/boot/config-" + KERNEL,
    "deprecated": {},
    "missing": [],
}


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("modules")
    with fleet(directory, alike(directory, [HOST], PARTS, DRIVERS), {}) as running:
        take_over(running, HOST)
        yield running


def run(boards: Fleet, *arguments: str, support: dict[str, Any] | None = None, **more: Any) -> Run:
    answer(boards, HOST, {"vfio_support": {**SUPPORT, **support}} if support is not None else {})
    return play(boards.inventory, PLAYBOOK, *arguments, variables=more)


def sources(boards: Fleet) -> list[Path]:
    """Return what the role has written."""
    return [
        path
        for pattern in ("usr/src/vfio-platform*", "var/lib/dkms*", "var/cache/armfleet*")
        for path in root(boards.boards[HOST]).glob(pattern)
    ]


def test_a_kernel_that_has_the_drivers_is_left_as_it_is(boards: Fleet) -> None:
    done = run(boards)
    assert done.code == 0, done.output
    assert done.changed == {HOST: 0}
    assert "has vfio-platform and vfio-amba, so the role builds nothing." in done.output
    assert sources(boards) == []


@pytest.mark.parametrize(
    "distribution",
    ["Fedora Linux 43", *at_night("Ubuntu 24.04.3 LTS", None)],
)
def test_another_distribution_is_left_as_it_is(boards: Fleet, distribution: str | None) -> None:
    done = run(boards, support={"distribution": distribution})
    assert done.code == 0, done.output
    assert done.changed == {HOST: 0}
    assert f"board is not a host with Debian ({distribution or 'unknown'})" in done.output
    assert sources(boards) == []


@pytest.mark.parametrize(
    "support",
    [
        {"kernel_options": {"VFIO": "n"}},
        *at_night(
            {"kernel": "6.12.47-v8"},
            {"kernel": "6.12.117+deb13-amd64"},
            # Names of packages and paths are made from it.
            {"kernel": "../../../etc-arm64"},
            {"kernel": f"{KERNEL} --allow-unauthenticated"},
            {"kernel": f"{KERNEL}\nother-arm64"},
            {"kernel": f"{KERNEL}="},
        ),
        {"kernel": "{{ lookup('ansible.builtin.pipe', 'touch /ran') }}-arm64"},
    ],
    ids=lambda support: str(next(iter(support.values()))),
)
def test_a_kernel_that_is_not_debians_is_refused(boards: Fleet, support: dict[str, Any]) -> None:
    done = run(boards, support=support)
    assert done.code != 0
    assert done.changed == {HOST: 0}
    (refused,) = [task for task in done.tasks if task.status == "failed"]
    assert "is not an arm64 kernel of Debian with VFIO" in refused.refusal
    assert sources(boards) == []


def test_a_kernel_that_no_package_has_is_refused(boards: Fleet) -> None:
    done = run(boards, support={"kernel": "6.99.0-arm64"})
    (refused,) = [task for task in done.tasks if task.status == "failed"]
    assert "is not of an installed package" in refused.refusal
    assert sources(boards) == []


def test_a_list_that_needs_the_modules_keeps_them(boards: Fleet) -> None:
    host = root(boards.boards[HOST])
    built = host / "var/lib/dkms/vfio-platform/1.0.0123abcd"
    built.mkdir(parents=True)
    needed = host / "etc/modules-load.d/armfleet-vfio.conf"
    needed.parent.mkdir(parents=True, exist_ok=True)
    needed.write_text("vfio-platform\n")
    try:
        done = run(boards, vfio_modules_state="absent")
        (refused,) = [task for task in done.tasks if task.status == "failed"]
        assert "Release the list first" in refused.refusal
        assert built.is_dir()
    finally:
        needed.unlink()
        built.rmdir()
        built.parent.rmdir()


def test_nothing_is_removed_from_a_host_that_has_nothing(boards: Fleet) -> None:
    done = run(boards, vfio_modules_state="absent")
    assert done.code == 0, done.output
    assert done.changed == {HOST: 0}


@pytest.mark.parametrize(
    "setting", [{"vfio_modules_state": "latest"}, {"vfio_modules_noiommu": "NOIOMMU=y CC=/tmp/cc"}]
)
def test_a_wrong_value_is_refused_before_anything_is_read(
    boards: Fleet, setting: dict[str, str]
) -> None:
    done = play(boards.inventory, PLAYBOOK, variables=setting)
    assert done.code != 0
    assert next(iter(setting)).removeprefix("vfio_modules_") in done.output
    assert done.tasks[-1].action == "ansible.builtin.validate_argument_spec"
