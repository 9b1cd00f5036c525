# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role on a Debian host of which apt upgrades the kernel; the tests continue one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.guest import write_inventory
from tests.guest.archive import NoUpgradeError, kernels
from tests.guest.errors import GuestError
from tests.guest.packaged import PackagedGuest
from tests.harness.playbook import Run, play
from tests.harness.sysfs import bindings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.nightly

PLATFORM, AMBA = "/soc/ethernet@e0700000", "/soc/engine@b005000"
# The first has a reset function in a module of its own, the other is on the AMBA bus.
LIST: list[dict[str, Any]] = [{"dt_path": path, "policy": "vfio"} for path in (PLATFORM, AMBA)]
ON_VFIO = [("vfio-platform",) * 2, ("vfio-amba",) * 2]
DRIVERS = ("vfio-platform", "vfio-amba", "vfio-platform-base", "vfio-platform-amdxgbe")
# Seconds of what compiles or unpacks under emulation, on a busy machine.
LONG = 3600


@pytest.fixture(scope="module")
def guest(releases: tuple[str, str]) -> Iterator[PackagedGuest]:  # noqa: ARG001 (or it is skipped)
    guest = PackagedGuest("vfio-modules")
    try:
        yield guest.start(fresh=True)
    finally:
        guest.stop()


@pytest.fixture
def inventory(guest: PackagedGuest, tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    write_inventory(path, [guest])
    return path


@pytest.fixture(scope="module")
def releases() -> tuple[str, str]:
    """Return the kernels before and after the upgrade."""
    try:
        before, after = kernels()
    except NoUpgradeError as error:
        pytest.skip(str(error))
    return before.release, after.release


def build(inventory: Path, *arguments: str, **variables: Any) -> Run:
    return play(inventory, "armfleet.vfio.vfio_modules", *arguments, variables=variables)


def apply(inventory: Path) -> Run:
    return play(inventory, "armfleet.vfio.apply", variables={"passthrough_devices": LIST})


def module_files(guest: PackagedGuest, release: str) -> list[str]:
    """Return the files of the drivers for a kernel; empty if it has none."""
    words = ["modinfo", "-k", release, "-n", *DRIVERS]
    return guest.run(words, check=False).stdout.split()


def expected_files(release: str) -> list[str]:
    return [f"/lib/modules/{release}/updates/dkms/{driver}.ko.xz" for driver in DRIVERS]


def boot_newest(guest: PackagedGuest, release: str, directory: Path, *words: str) -> None:
    """Boot as a boot loader does, with the files that the package has put into /boot."""
    image, initramfs = directory / "Image", directory / "initramfs"
    guest.get(f"/boot/vmlinuz-{release}", image)
    guest.get(f"/boot/initrd.img-{release}", initramfs)
    guest.start_again(initramfs=initramfs, words=words, image=image)


def test_without_the_role_there_is_no_driver(guest: PackagedGuest, inventory: Path) -> None:
    with pytest.raises(GuestError, match="vfio-platform"):
        guest.run(["modinfo", "-n", "vfio-platform"])
    refused = apply(inventory)
    assert refused.code != 0
    assert "the role armfleet.vfio.vfio_modules builds it" in refused.output


def test_the_role_builds_the_drivers_without_a_reboot(
    guest: PackagedGuest, inventory: Path, releases: tuple[str, str]
) -> None:
    running, _newer = releases
    boot_id = guest.boot_id()
    without_lists = build(inventory, "--check")
    assert "Run 'apt-get update' on the host first" in without_lists.output
    guest.run("apt-get update", timeout=LONG)
    foreseen = build(inventory, "--check")
    assert foreseen.code == 0, foreseen.output
    assert guest.run("ls -d /usr/src/vfio-platform-* /var/lib/dkms", check=False).stdout == ""

    built = build(inventory)
    assert built.code == 0, built.output
    assert module_files(guest, running) == expected_files(running)
    assert guest.boot_id() == boot_id
    signer = guest.run(["modinfo", "-F", "signer", "vfio-platform"]).stdout.strip()
    assert signer == "DKMS module signing key"

    again = build(inventory)
    assert again.code == 0, again.output
    assert again.changed == {guest.name: 0}


def test_apply_binds_devices_to_them(guest: PackagedGuest, inventory: Path) -> None:
    # As a host that boots with one; the package of a kernel makes it.
    guest.run("update-initramfs -c -k $(uname -r)", timeout=LONG)
    applied = apply(inventory)
    assert applied.code == 0, applied.output
    assert bindings(guest, [PLATFORM, AMBA]) == ON_VFIO


def test_a_list_that_needs_the_modules_keeps_them(guest: PackagedGuest, inventory: Path) -> None:
    refused = build(inventory, vfio_modules_state="absent")
    assert refused.code != 0
    assert "Release the list first" in refused.output
    assert bindings(guest, [PLATFORM, AMBA]) == ON_VFIO


def test_apt_upgrades_the_kernel_and_dkms_its_modules(
    guest: PackagedGuest, releases: tuple[str, str], tmp_path: Path
) -> None:
    running, newer = releases
    guest.run("sed -i 's#before/#after/#' /etc/apt/sources.list && apt-get update", timeout=LONG)
    upgrade = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "dist-upgrade"]
    printed = guest.run(upgrade, timeout=LONG).stdout
    assert f"Autoinstall on {newer} succeeded for module(s) vfio-platform" in printed
    assert module_files(guest, newer) == expected_files(newer)
    assert module_files(guest, running) == expected_files(running)
    # It has been built of the source of its own version.
    version = guest.run(["modinfo", "-k", newer, "-F", "vermagic", "vfio-platform"]).stdout
    assert version.startswith(newer + " ")
    listed = guest.run(["lsinitramfs", f"/boot/initrd.img-{newer}"], timeout=LONG).stdout
    for module in ("vfio-platform.ko", "vfio-amba.ko", "vfio-platform-amdxgbe.ko"):
        assert module in listed

    boot_newest(guest, newer, tmp_path)
    assert guest.run(["uname", "-r"]).stdout.strip() == newer
    assert bindings(guest, [PLATFORM, AMBA]) == ON_VFIO


def test_nothing_is_left_to_do_after_the_upgrade(guest: PackagedGuest, inventory: Path) -> None:
    again = build(inventory)
    assert again.code == 0, again.output
    assert again.changed == {guest.name: 0}
    assert apply(inventory).changed == {guest.name: 0}


def test_a_kernel_that_does_not_trust_the_key_is_reported(
    guest: PackagedGuest, inventory: Path, releases: tuple[str, str], tmp_path: Path
) -> None:
    boot_newest(guest, releases[1], tmp_path, "module.sig_enforce=1")
    refused = build(inventory)
    assert refused.code != 0
    assert "Run `mokutil --import /var/lib/dkms/mok.pub` on the host" in refused.output
    boot_newest(guest, releases[1], tmp_path)
    assert bindings(guest, [PLATFORM, AMBA]) == ON_VFIO


def test_absent_removes_everything(
    guest: PackagedGuest, inventory: Path, releases: tuple[str, str]
) -> None:
    assert play(inventory, "armfleet.vfio.release").code == 0
    removed = build(inventory, vfio_modules_state="absent")
    assert removed.code == 0, removed.output
    assert [module_files(guest, release) for release in releases] == [[], []]
    left = "ls -d /usr/src/vfio-platform-* /var/lib/dkms/vfio-platform /var/cache/armfleet*"
    assert guest.run(left, check=False).stdout == ""
    assert build(inventory, vfio_modules_state="absent").changed == {guest.name: 0}
