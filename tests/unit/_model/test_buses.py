"""The entry of a bus is sufficient for every policy, with and without a VFIO driver."""

from __future__ import annotations

import ast
import errno
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from board import Board, acme_board
from simulated_kernel import BoardModule, Driver

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.buses import (
    BUSES,
    RESETTING,
    VFIO_DRIVERS,
    Bus,
    is_vfio_driver,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity, State
from ansible_collections.armfleet.vfio.plugins.module_utils._model.plan import is_native
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import KINDS
from extensions.simulator import kernel

PLUGINS = Path(__file__).parents[3] / "plugins"
DEVICE = "spi0.0"
WITHOUT_VFIO = ("spi", "rpmsg", "vmbus")


@pytest.fixture(autouse=True)
def _every_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the simulator add the directories of all buses."""
    monkeypatch.setattr(kernel, "BUSES", tuple(BUSES))


@pytest.fixture
def bus() -> str:
    """A bus for which VFIO has no driver, and whose devices have nodes."""
    return "spi"


@pytest.fixture
def board_with_device(tmp_path: Path, bus: str) -> Board:
    board = acme_board(tmp_path)
    board.kernel.add_device(DEVICE, "/soc/codec@0", ("acme,codec",), bus=bus)
    return board


@pytest.mark.parametrize("name", BUSES)
def test_the_entry_of_a_bus_is_complete(name: str) -> None:
    entry = BUSES[name]
    assert entry.name == name
    assert entry.title.lower() == name
    assert set(entry.identified_by) <= set(Identity._fields) & {*KINDS, "acpi_uid"}
    assert entry.vfio_driver == VFIO_DRIVERS.get(name)
    assert bool(entry.vfio_needs) == bool(entry.vfio_driver)


def test_what_udev_asks_modprobe_with_is_the_modalias_or_made_of_the_id() -> None:
    files = {"modalias": "of:Ncrypto", "id": "000bb0a1"}
    assert BUSES["platform"].modalias(files.get) == "of:Ncrypto"
    assert BUSES["amba"].modalias(files.get) == "amba:d000BB0A1"
    both = {"modalias": "acpi:ACME0001:\nof:Neng0TCacme,engine"}
    assert BUSES["platform"].modalias(both.get) == "of:Neng0TCacme,engine"
    assert Bus("i2s", "I2S").modalias({}.get) == ""


def test_one_vfio_driver_asks_for_a_reset() -> None:
    assert [entry.name for entry in BUSES.values() if entry.vfio_resets] == [RESETTING.name]


def quoted_buses(source: str) -> list[str]:
    """Return the strings of a Python file that are names of buses; documentation is longer."""
    nodes = ast.walk(ast.parse(source))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and node.value in BUSES]


def test_no_other_file_names_a_bus() -> None:
    quoting = {path.name for path in PLUGINS.rglob("*.py") if quoted_buses(path.read_text())}
    assert quoting == {"buses.py"}


@pytest.mark.parametrize("name", BUSES)
def test_the_name_of_a_bus_is_found_in_code(name: str) -> None:
    assert quoted_buses(f"entry.get('bus', {name!r})") == [name]
    assert quoted_buses(f'"""Devices of {name!r} have chips."""') == []


def test_no_driver_is_that_of_a_bus_without_one(bus: str) -> None:
    assert not is_vfio_driver(None, bus)
    assert is_native(Identity(bus, DEVICE), State())


def test_a_device_of_a_bus_without_a_vfio_driver_is_kept_from_drivers(
    board_with_device: Board, bus: str
) -> None:
    entries = [{"compatible": "acme,codec", "policy": "no_autobind"}]
    assert board_with_device.apply(entries).is_changed
    assert not board_with_device.apply(entries).is_changed
    override = f"bus/{bus}/devices/{DEVICE}/driver_override"
    assert board_with_device.kernel.read(override) == "none"
    assert f'SUBSYSTEM!="{"|".join(BUSES)}"' in (board_with_device.file(RULES) or "")
    board_with_device.apply([])
    assert board_with_device.kernel.read(override) == "(null)"


@pytest.mark.parametrize("settings", [{}, {"runtime": False}])
def test_policy_vfio_is_refused_on_a_bus_without_a_vfio_driver(
    board_with_device: Board, bus: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(PolicyError) as caught:
        board_with_device.apply([{"compatible": "acme,codec", "policy": "vfio"}], **settings)
    (problem,) = caught.value.problems
    assert problem == (
        f"/soc/codec@0 ({bus} device {DEVICE}) cannot have policy vfio: VFIO has no driver "
        f"for the {bus} bus. Use policy no_autobind or driver"
    )
    assert not board_with_device.kernel.writes


def test_an_entry_with_policy_vfio_cannot_name_a_bus_without_a_vfio_driver(bus: str) -> None:
    entry = {"name": DEVICE, "bus": bus}
    assert parse_entries([{**entry, "policy": "no_autobind"}])
    with pytest.raises(PolicyError, match="VFIO has no driver for the spi bus"):
        parse_entries([{**entry, "policy": "vfio"}])


def test_a_compatible_that_is_on_both_kinds_of_buses_at_boot_gives_vfio_no_other_device(
    board: Board, bus: str
) -> None:
    board.apply([{"compatible": "acme,crypto", "policy": "vfio"}], reset_required=False)
    buses = "|".join(WITHOUT_VFIO)
    assert bus in WITHOUT_VFIO
    rule = f'ENV{{ARMFLEET_VFIO_POLICY}}=="vfio", SUBSYSTEM=="{buses}", GOTO="armfleet_vfio_end"'
    assert rule in (board.file(RULES) or "")


@pytest.mark.parametrize("name", WITHOUT_VFIO)
def test_a_bus_without_a_vfio_driver_has_every_other_policy(tmp_path: Path, name: str) -> None:
    board = acme_board(tmp_path)
    board.kernel.add_device("x.0", None, (), bus=name)
    board.kernel.register(Driver("acme-x", name))
    entry = {"name": "x.0", "bus": name}
    board.apply([{**entry, "policy": "driver", "driver": "acme-x"}])
    assert board.kernel.binding("x.0") == ("acme-x", "acme-x")
    board.apply([{**entry, "policy": "no_autobind"}])
    assert board.kernel.binding("x.0") == (None, "none")
    board.apply([{**entry, "policy": "default"}])
    assert board.kernel.binding("x.0") == (None, None)


@pytest.mark.parametrize(("name", "device"), [("fsl-mc", "dprc.2"), ("cdx", "cdx-00:00")])
def test_a_device_of_a_bus_with_a_vfio_driver_is_bound_to_it(
    tmp_path: Path, name: str, device: str
) -> None:
    board = acme_board(tmp_path)
    driver = BUSES[name].vfio_driver or ""
    board.kernel.add_device(device, None, (), bus=name, iommus=True)
    module = driver.replace("-", "_")
    board.kmod.modules[module] = BoardModule(
        name=module, drivers=(Driver(driver, name, module=module),)
    )
    outcome = board.check([{"name": device, "bus": name, "policy": "vfio"}])
    assert [reported.after.driver for reported in outcome.devices] == [driver]
    assert outcome.host_steps[0].value == driver


def board_with_vfio(directory: Path, name: str, devices: dict[str, str | None]) -> Board:
    """Return a board with devices of a bus, each with its parent, and the bus's VFIO driver."""
    board = acme_board(directory)
    for device, parent in devices.items():
        board.kernel.add_device(device, None, (), bus=name, iommus=True, parent=parent)
    driver = BUSES[name].vfio_driver or ""
    module = driver.replace("-", "_")
    board.kmod.modules[module] = BoardModule(
        name=module, drivers=(Driver(driver, name, module=module),)
    )
    return board


OBJECTS = {"dprc.1": None, "dprc.2": "dprc.1", "dpni.1": "dprc.1", "dpni.2": "dprc.2"}


@pytest.mark.parametrize("settings", [{}, {"runtime": False}])
@pytest.mark.parametrize("name", ["dpni.1", "dpni.2"])
def test_an_object_of_a_container_cannot_be_bound_to_vfio_by_itself(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    board = board_with_vfio(tmp_path, "fsl-mc", OBJECTS)
    with pytest.raises(PolicyError) as caught:
        board.apply([{"name": name, "policy": "vfio"}], **settings)
    (problem,) = caught.value.problems
    assert problem == (
        f"fsl-mc device {name} cannot be bound to VFIO by itself: VFIO takes a container (dprc) "
        f"with all objects in it, and it is in {OBJECTS[name]}. Select a container that has the "
        "objects for user space, and no others"
    )
    assert not board.kernel.writes
    board.apply([{"name": name, "policy": "no_autobind"}])
    assert board.kernel.binding(name) == (None, "none")


def test_the_device_of_a_cdx_bus_cannot_be_bound_to_vfio(tmp_path: Path) -> None:
    board = board_with_vfio(tmp_path, "cdx", {"cdx-00": None, "cdx-00:00": "cdx-00"})
    with pytest.raises(PolicyError) as caught:
        board.apply([{"name": "cdx-00", "policy": "vfio"}])
    (problem,) = caught.value.problems
    assert problem == (
        "cdx device cdx-00 cannot be bound to VFIO by itself: VFIO takes the devices of a bus "
        "(cdx-00:00). Select these devices"
    )
    outcome = board.check([{"name": "cdx-00:00", "policy": "vfio"}])
    assert [reported.after.driver for reported in outcome.devices] == ["vfio-cdx"]


def board_with_container(directory: Path) -> Board:
    """Return a board with a container and its objects in one IOMMU group, on native drivers."""
    board = board_with_vfio(directory, "fsl-mc", {})
    add = partial(board.kernel.add_device, path=None, bus="fsl-mc", iommus=True)
    add("dprc.2")
    add("dprc.3")
    for name, parent in (("dpni.2", "dprc.2"), ("dpio.2", "dprc.2"), ("dpni.3", "dprc.3")):
        add(name, parent=parent, group="dprc.2")
    native = Driver("acme-native", "fsl-mc", devices=("dprc.2", "dprc.3", "dpni.2", "dpni.3"))
    board.kernel.register(native)
    return board


def test_the_objects_of_a_container_do_not_keep_it_from_vfio(tmp_path: Path) -> None:
    board = board_with_container(tmp_path)
    with pytest.raises(PolicyError) as caught:
        board.check([{"name": "dprc.2", "policy": "vfio"}])
    (problem,) = caught.value.problems
    assert "fsl-mc/dpni.3 of the same IOMMU group" in problem
    containers = [{"name": name, "policy": "vfio"} for name in ("dprc.2", "dprc.3")]
    outcome = board.check(containers)
    assert [reported.after.driver for reported in outcome.devices] == ["vfio-fsl-mc"] * 2


@pytest.mark.parametrize("settings", [{}, {"runtime": False}])
@pytest.mark.parametrize("policy", ["vfio", "no_autobind"])
def test_an_object_is_not_in_a_list_with_its_container(
    tmp_path: Path, policy: str, settings: dict[str, Any]
) -> None:
    board = board_with_container(tmp_path)
    devices = [
        {"name": "dprc.2", "policy": policy},
        {"name": "dprc.3", "policy": policy},
        {"name": "dpio.2", "policy": "no_autobind"},
    ]
    with pytest.raises(PolicyError) as caught:
        board.check(devices, **settings)
    (problem,) = caught.value.problems
    assert problem == (
        "fsl-mc device dpio.2 is in dprc.2, which the list takes from its driver: the kernel then "
        "removes all devices in it, and only VFIO adds them again, for itself. Remove one of the "
        "two entries"
    )


def test_an_object_is_in_a_list_with_the_driver_of_its_container(tmp_path: Path) -> None:
    board = board_with_container(tmp_path)
    board.apply(
        [
            {"name": "dprc.2", "policy": "driver", "driver": "acme-native"},
            {"name": "dpni.2", "policy": "no_autobind"},
        ]
    )
    assert board.kernel.binding("dprc.2") == ("acme-native", "acme-native")
    assert board.kernel.binding("dpni.2") == (None, "none")


def test_the_network_of_an_object_keeps_its_container_from_vfio(tmp_path: Path) -> None:
    board = board_with_container(tmp_path)
    board.kernel.put("devices/platform/dprc.2/dpni.2/net/eth1/flags", "0x1003\n")
    containers = [{"name": name, "policy": "vfio"} for name in ("dprc.2", "dprc.3")]
    with pytest.raises(PolicyError) as caught:
        board.apply(containers)
    (problem,) = caught.value.problems
    assert problem.startswith("fsl-mc device dprc.2 is in use: network interface eth1 is up")
    assert not board.kernel.writes


def test_vfio_cdx_that_rejects_every_device_is_explained(tmp_path: Path) -> None:
    board = board_with_vfio(tmp_path, "cdx", {"cdx-00:00": None})
    (driver,) = board.kmod.modules["vfio_cdx"].drivers
    board.kernel.register(replace(driver, probe={"*": errno.EINVAL}))
    with pytest.raises(PolicyError) as caught:
        board.apply([{"name": "cdx-00:00", "policy": "vfio"}])
    assert "lacks detach_ioas, which kernels with CONFIG_IOMMUFD require" in str(caught.value)
    assert board.kernel.binding("cdx-00:00") == (None, None)
