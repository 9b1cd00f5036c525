"""Every option for a driver refuses a name that no driver of the device's bus has."""

from __future__ import annotations

from typing import Callable

import pytest
from board import Board
from simulated_kernel import BoardModule, Driver

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import DRIVER, Policy
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import Entry
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import Selector

DMA, AMBA = "b002000.dma", "b008000.blob"
ENGINE = BoardModule(
    name="zynqmp_dma",
    drivers=(Driver("xilinx-zynqmp-dma", compatible=("xlnx,dma",), module="zynqmp_dma"),),
)


def by_host_policy(board: Board, name: str, driver: str) -> None:
    board.apply([{"name": name, "policy": "driver", "driver": driver}])


def by_host_policy_for_the_next_boot(board: Board, name: str, driver: str) -> None:
    board.apply([{"name": name, "policy": "driver", "driver": driver}], runtime=False)


def by_driver_override(board: Board, name: str, driver: str, *, rebind: bool = False) -> None:
    policy = Policy(DRIVER, driver, rebind=rebind)
    board.reconcile(Request([Entry(Selector("name", name), policy)]), check_mode=False)


def by_driver_override_with_rebind(board: Board, name: str, driver: str) -> None:
    by_driver_override(board, name, driver, rebind=True)


Asking = Callable[[Board, str, str], None]
AT_ONCE = [by_host_policy, by_driver_override_with_rebind]
LATER = [by_host_policy_for_the_next_boot, by_driver_override]


def refused(board: Board, ask: Asking, name: str, driver: str) -> str:
    with board.unchanged(), pytest.raises(PolicyError) as caught:
        ask(board, name, driver)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("ask", [*AT_ONCE, *LATER])
@pytest.mark.parametrize("driver", ["zynqmp_dma", "zynqmp-dma"])
def test_the_name_of_a_loaded_module_is_answered_with_those_of_its_drivers(
    board: Board, ask: Asking, driver: str
) -> None:
    board.kmod.modules[ENGINE.name] = ENGINE
    board.kmod.load(ENGINE.name)
    assert refused(board, ask, DMA, driver) == (
        f"Driver {driver} for /soc/dma@b002000 (platform device {DMA}) does not exist here: on the "
        "platform bus it is called xilinx-zynqmp-dma. Set `driver: xilinx-zynqmp-dma`"
    )


@pytest.mark.parametrize("ask", [*AT_ONCE, *LATER])
@pytest.mark.parametrize(
    ("name", "driver", "words"),
    [
        (DMA, "acme", "it is called acme-crypto or acme-dma or acme-dma-uio. Set `driver: acme-c"),
        (AMBA, "acme", "on the amba bus it is called acme-blob. Set `driver: acme-blob`"),
        (AMBA, "acme_eth", "has no driver on the amba bus, but acme-eth on the platform bus"),
        (DMA, "acme_dma", "it is called acme-dma. Set `driver: acme-dma`"),
        (DMA, "acme-blob", "Driver acme-blob is on the amba bus, but /soc/dma@b002000"),
        (DMA, "vfio_pci", "is on the platform bus, where the VFIO driver is vfio-platform"),
        (AMBA, "vfio_platform", "is on the platform bus"),
        (DMA, "vfio_platform", "it is called vfio-platform. Set `policy: vfio`"),
    ],
)
def test_what_cannot_be_a_driver_of_the_device_is_refused_everywhere(
    board: Board, ask: Asking, name: str, driver: str, words: str
) -> None:
    board.kmod.load("acme_eth")
    assert words in refused(board, ask, name, driver)


@pytest.mark.parametrize(
    ("driver", "bus"), [("vfio-pci", "pci"), ("mlx5_vfio_pci", "pci"), ("vfio-fsl-mc", "fsl-mc")]
)
def test_a_vfio_driver_of_another_bus_is_refused(board: Board, driver: str, bus: str) -> None:
    words = f"Driver {driver} is on the {bus} bus, but /soc/dma@b002000"
    assert words in refused(board, by_driver_override, DMA, driver)
    assert "is a VFIO driver. Set `policy: vfio`" in refused(board, by_host_policy, DMA, driver)


@pytest.mark.parametrize("ask", AT_ONCE)
def test_of_a_module_that_is_not_loaded_it_is_not_known_what_its_drivers_are_called(
    board: Board, ask: Asking
) -> None:
    board.kmod.modules[ENGINE.name] = ENGINE
    problem = refused(board, ask, DMA, "zynqmp_dma")
    assert "is not loaded. Load its module with 'modprobe zynqmp_dma'" in problem
    assert "'ls /sys/module/zynqmp_dma/drivers'" in problem


@pytest.mark.parametrize("ask", AT_ONCE)
@pytest.mark.parametrize("has_directory", [True, False])
def test_so_it_is_of_one_that_is_built_in(board: Board, ask: Asking, has_directory: bool) -> None:
    """A built-in module has a directory in /sys/module if it has a parameter or a version."""
    board.kmod.modules["gpio_keys"] = BoardModule(name="gpio_keys")
    if has_directory:
        board.kernel.put("module/gpio_keys/uevent", "")
    else:
        board.kmod.build_in("gpio_keys")
    # The driver gpio-keys is found because its name differs only in punctuation.
    assert "it is called gpio-keys." in refused(board, ask, DMA, "gpio_keys")
    board.kmod.modules["acme_led"] = BoardModule(name="acme_led")
    if has_directory:
        board.kernel.put("module/acme_led/uevent", "")
    else:
        board.kmod.build_in("acme_led")
    problem = refused(board, ask, DMA, "acme_led")
    assert "acme_led is the name of a loaded or built-in module" in problem
    assert "'ls /sys/bus/platform/drivers'" in problem


@pytest.mark.parametrize("ask", LATER)
@pytest.mark.parametrize("driver", ["later", "acme_eth"])
def test_what_may_come_later_is_accepted_where_nothing_is_bound_now(
    board: Board, ask: Asking, driver: str
) -> None:
    ask(board, DMA, driver)
    assert board.kernel.driver_of(DMA) == "acme-dma"


def test_an_override_that_can_never_bind_is_refused_though_it_is_set_already(board: Board) -> None:
    board.kernel.write(f"bus/platform/devices/{DMA}/driver_override", "vfio-pci")
    board.kernel.writes.clear()
    assert "is on the pci bus" in refused(board, by_driver_override, DMA, "vfio-pci")


def test_the_driver_that_vfio_has_for_the_bus_can_be_set_by_driver_override(board: Board) -> None:
    by_driver_override(board, DMA, "vfio-platform")
    assert board.kernel.binding(DMA) == ("acme-dma", "vfio-platform")
