"""Boots with ACPI, as most ARM servers do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.boots.table import UNTOUCHED, Boots, Case, Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
