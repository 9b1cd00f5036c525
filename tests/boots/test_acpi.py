"""Boots with ACPI, as most ARM servers do."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from extensions.simulator.acpi import modaliases
from extensions.simulator.description import Extra
from tests.boots.early_tables import put_before
from tests.boots.table import UNTOUCHED, Boots, Case, Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

VFIO, NONE = ("vfio-platform",) * 2, (None, "none")
SETTINGS = {"passthrough_reset_required": False, "passthrough_unsafe_noiommu": True}


@pytest.fixture(scope="module")
def guest(start: Callable[..., Guest], kernel: str) -> Guest:
    return start(f"boots-acpi-{kernel.replace('.', '-')}", "acpi", kernel)


def test_a_path_or_an_id_with_its_uid_means_one_device(
    guest: Guest, inventory: Path, record: Callable[[Row], None]
) -> None:
    devices = [
        {"acpi_path": "\\_SB_.VR00", "policy": "vfio"},
        {"acpi_path": "\\_SB_.VR01", "policy": "no_autobind"},
        {"acpi_hid": "LNRO0005", "acpi_uid": "3", "policy": "vfio"},
    ]
    cases = [
        Case("ACPI path, native driver built in", "LNRO0005:00", VFIO),
        Case("ACPI path, no_autobind", "LNRO0005:01", NONE),
        Case("ACPI id and UID", "LNRO0005:03", VFIO),
        Case("  their sibling", "LNRO0005:02", UNTOUCHED),
    ]
    boots = Boots(guest, inventory, {**SETTINGS, "passthrough_devices": devices})
    boots.apply(passthrough_runtime=False)
    boots.try_twice(cases, record)


def test_an_id_means_all_devices_that_have_it(
    guest: Guest, inventory: Path, record: Callable[[Row], None]
) -> None:
    devices = [{"acpi_hid": "LNRO0005", "expect": 32, "policy": "vfio"}]
    cases = [
        Case("ACPI id, native driver built in", "LNRO0005:00", VFIO),
        Case("ACPI id, never bound before", "LNRO0005:1f", VFIO),
        Case("  one of another id", "ARMH0011:00", UNTOUCHED),
    ]
    boots = Boots(guest, inventory, {**SETTINGS, "passthrough_devices": devices})
    boots.apply(passthrough_devices=[])
    boots.apply(passthrough_runtime=False)
    boots.try_twice(cases, record)


ENGINES = Path(__file__).with_name("engines.asl")


def with_table(source: Path, initramfs: bytes, directory: Path) -> Path:
    """Put a table, from its source, before an initramfs."""
    compiled = directory / source.stem
    subprocess.run(["iasl", "-p", compiled, source], check=True, capture_output=True)
    return put_before(initramfs, compiled.with_suffix(".aml").read_bytes(), directory)


def test_a_compatible_means_the_devices_that_firmware_describes_by_it(
    guest: Guest, inventory: Path, record: Callable[[Row], None], tmp_path: Path, kernel: str
) -> None:
    initramfs = guest.prepare()[0].initramfs
    if initramfs is None:
        pytest.skip(f"{kernel} boots without an initramfs, so that no table can be added")
    guest.start_again(initramfs=with_table(ENGINES, initramfs.read_bytes(), tmp_path))
    shown = guest.run("cat /sys/bus/platform/devices/ACME0001:00/modalias").stdout.splitlines()
    of_list = Extra(
        "ACME0001:00",
        acpi_path="\\_SB_.ENG1",
        acpi_hid="ACME0001",
        acpi_cids=("PRP0001",),
        acpi_compatible=("acme,engine",),
    )
    assert shown == modaliases(of_list)
    devices = [
        {"compatible": "acme,engine", "expect": 2, "policy": "vfio"},
        {"compatible": "acme,engine-v2", "policy": "no_autobind"},
    ]
    cases = [
        Case("compatible of a _DSD, the second of two", "PRP0001:00", VFIO),
        Case("  of a device with an id of its own", "ACME0001:00", VFIO),
        Case("  another that begins the same", "PRP0001:01", NONE),
    ]
    boots = Boots(guest, inventory, {**SETTINGS, "passthrough_devices": devices})
    boots.apply(passthrough_devices=[])
    boots.apply(passthrough_runtime=False)
    boots.try_twice(cases, record)
