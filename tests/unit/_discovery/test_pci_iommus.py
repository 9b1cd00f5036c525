"""Whether a PCI function that no driver was probed for is behind an IOMMU."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.pci_iommus import PciIommus
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs

NEVER_PROBED = Identity("pci", "0000:00:08.0")
BRIDGE, OTHER_BRIDGE = "4010000000.pcie/pci0000:00", "4020000000.pcie/pci0001:00"


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    """A /sys with an IOMMU and a function that has neither driver nor group."""
    (tmp_path / "class/iommu/smmu3").mkdir(parents=True)
    add(tmp_path, BRIDGE, NEVER_PROBED.name)
    return tmp_path


def add(sys: Path, bridge: str, name: str, *entries: str) -> None:
    """Add a function with these entries in its directory."""
    directory = sys / "devices/platform" / bridge / name
    directory.mkdir(parents=True)
    for entry in entries:
        (directory / entry).touch()
    links = sys / "bus/pci/devices"
    links.mkdir(parents=True, exist_ok=True)
    (links / name.rpartition("/")[2]).symlink_to(f"../../../devices/platform/{bridge}/{name}")


def lacks(sys: Path) -> bool:
    return PciIommus(Sysfs(str(sys))).is_missing_for(NEVER_PROBED)


def test_it_is_if_a_function_of_its_host_bridge_was_probed_and_has_a_group(sys: Path) -> None:
    add(sys, BRIDGE, "0000:00:05.0", "driver", "iommu_group")
    add(sys, BRIDGE, "0000:00:05.0/0000:01:00.0", "driver", "iommu_group")
    assert not lacks(sys)


def test_it_is_not_if_a_function_of_its_host_bridge_was_probed_and_has_none(sys: Path) -> None:
    add(sys, BRIDGE, "0000:00:05.0/0000:01:00.0", "driver")
    assert lacks(sys)


def test_functions_of_other_host_bridges_tell_nothing(sys: Path) -> None:
    add(sys, OTHER_BRIDGE, "0001:00:01.0", "driver")
    # A domain of its own behind a function of the first one.
    add(sys, f"{BRIDGE}/0000:00:06.0/pci10000:00", "10000:00:01.0", "driver")
    assert not lacks(sys)


def test_it_is_not_known_if_no_function_was_probed(sys: Path) -> None:
    add(sys, BRIDGE, "0000:00:00.0")
    assert not lacks(sys)


def test_it_is_not_without_any_iommu(sys: Path) -> None:
    (sys / "class/iommu/smmu3").rmdir()
    assert lacks(sys)


class CountingSysfs(Sysfs):
    """A /sys that counts what is read of it."""

    reads = 0

    def names(self, path: str) -> list[str]:
        self.reads += 1
        return super().names(path)

    def link(self, path: str) -> str | None:
        self.reads += 1
        return super().link(path)

    def exists(self, path: str) -> bool:
        self.reads += 1
        return super().exists(path)


@pytest.mark.parametrize("has_iommu", [True, False])
def test_the_reads_for_all_functions_grow_with_their_number(sys: Path, *, has_iommu: bool) -> None:
    if not has_iommu:
        (sys / "class/iommu/smmu3").rmdir()
    names = [f"0000:{bus:02x}:00.0" for bus in range(1, 101)]
    for name in names:
        add(sys, BRIDGE, name)
    sysfs = CountingSysfs(str(sys))
    iommus = PciIommus(sysfs)
    assert [iommus.is_missing_for(Identity("pci", name)) for name in names] == [
        not has_iommu
    ] * len(names)
    assert sysfs.reads <= 4 * len(names) + 4
