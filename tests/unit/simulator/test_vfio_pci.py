"""vfio-pci and its variant drivers: what they require, the nodes that they make, their aliases."""

from __future__ import annotations

import errno

import pytest
from pci_boards import E1000E, PORT, booted, content, device, driver_of, give_to_vfio, write

from extensions.simulator.machine import Machine
from extensions.simulator.tree import File
from extensions.simulator.vfio import NOIOMMU, RESET_REQUIRED

NIC = "0000:01:00.0"
VARIANT = """\
drivers:
  - {name: mlx5_vfio_pci, bus: pci, vfio_ids: ["15b3:101e"], module: mlx5_vfio_pci}
modules:
  - {name: mlx5_vfio_pci, needs: [vfio_pci_core, vfio]}
"""
CONNECTX = "0000:00:02.0 15b3:101e 020000 driver=mlx5_core"


@pytest.fixture
def machine() -> Machine:
    return booted(PORT, E1000E)


def resolved(machine: Machine, alias: str) -> list[str]:
    return machine.modules.modprobe(["--resolve-alias", alias], "").output.split()


def test_a_bound_function_has_the_nodes_of_its_group_and_of_itself(machine: Machine) -> None:
    assert give_to_vfio(machine, NIC) == 0
    assert driver_of(machine, NIC) == "vfio-pci"
    group = machine.tree.link(f"{device(NIC)}/iommu_group")
    assert group is not None
    assert machine.vfio.nodes.names("") == sorted([group.rpartition("/")[2], "devices", "vfio"])
    assert machine.tree.names(f"{device(NIC)}/vfio-dev") == ["vfio0"]
    assert machine.vfio.nodes.names("devices") == ["vfio0"]
    assert write(machine, "bus/pci/drivers/vfio-pci/unbind", NIC) == 0
    assert machine.vfio.nodes.names("") == ["vfio"]
    assert "vfio-dev" not in machine.tree.names(device(NIC))


def test_it_is_released_to_its_native_driver(machine: Machine) -> None:
    before = machine.tree.names(device(NIC))
    give_to_vfio(machine, NIC)
    write(machine, f"{device(NIC)}/driver_override", "\n")
    assert write(machine, "bus/pci/drivers/vfio-pci/unbind", NIC) == 0
    assert write(machine, "bus/pci/drivers_probe", NIC) == 0
    assert driver_of(machine, NIC) == "e1000e"
    assert machine.tree.names(device(NIC)) == before


def test_vfio_pci_binds_only_what_has_its_override(machine: Machine) -> None:
    machine.modules.load("vfio_pci")
    write(machine, "bus/pci/drivers/e1000e/unbind", NIC)
    assert write(machine, "bus/pci/drivers/vfio-pci/bind", NIC) == errno.ENODEV
    write(machine, "bus/pci/drivers_probe", NIC)
    assert driver_of(machine, NIC) == "e1000e"


def test_an_override_before_the_module_binds_at_registration(machine: Machine) -> None:
    write(machine, "bus/pci/drivers/e1000e/unbind", NIC)
    write(machine, f"{device(NIC)}/driver_override", "vfio-pci")
    machine.modules.load("vfio_pci")
    assert driver_of(machine, NIC) == "vfio-pci"


def test_a_bridge_is_refused(machine: Machine) -> None:
    assert give_to_vfio(machine, "0000:00:01.0") == errno.EINVAL
    assert driver_of(machine, "0000:00:01.0") is None


def test_a_function_without_a_group_needs_noiommu() -> None:
    machine = booted(PORT, E1000E + " iommu_group=none")
    assert give_to_vfio(machine, NIC) == errno.EINVAL
    assert write(machine, NOIOMMU, "1") == 0
    assert write(machine, "bus/pci/drivers/vfio-pci/bind", NIC) == 0
    group = machine.tree.resolve(f"{device(NIC)}/iommu_group")
    assert content(machine, f"{group}/name") == "vfio-noiommu\n"
    assert "noiommu-1" in machine.vfio.nodes.names("")


def test_it_needs_neither_a_reset_nor_an_id_of_firmware() -> None:
    machine = booted(PORT, E1000E + " reset=none")
    machine.modules.load("vfio_platform")
    assert content(machine, RESET_REQUIRED) == "Y\n"
    assert give_to_vfio(machine, NIC) == 0


def test_an_unused_function_is_in_a_low_power_state(machine: Machine) -> None:
    state = f"{device(NIC)}/power_state"
    assert content(machine, state) == "D0\n"
    give_to_vfio(machine, NIC)
    assert content(machine, state) == "D3hot\n"
    node = machine.vfio.nodes.find("devices/vfio0")
    assert isinstance(node, File)
    node.opened = 1
    assert content(machine, state) == "D0\n"
    node.opened = 0
    assert content(machine, state) == "D3hot\n"


@pytest.mark.parametrize(("more", "state"), [("", "D3hot\n"), (" pm=no", "D0\n")])
def test_a_virtual_function_has_power_management_if_its_physical_function_has(
    more: str, state: str
) -> None:
    machine = booted("0000:00:02.0 1b36:0010 010802 driver=nvme vfs=1" + more)
    write(machine, f"{device('0000:00:02.0')}/sriov_numvfs", "1")
    assert give_to_vfio(machine, "0000:00:02.1") == 0
    assert content(machine, f"{device('0000:00:02.1')}/power_state") == state


def test_a_function_without_power_management_stays_in_d0() -> None:
    machine = booted(PORT, E1000E + " pm=no")
    assert give_to_vfio(machine, NIC) == 0
    assert content(machine, f"{device(NIC)}/power_state") == "D0\n"


def test_a_parameter_keeps_it_in_d0(machine: Machine) -> None:
    machine.modules.modprobe(["vfio-pci", "disable_idle_d3=1"], "")
    assert give_to_vfio(machine, NIC) == 0
    assert content(machine, f"{device(NIC)}/power_state") == "D0\n"


def test_a_native_driver_cannot_join_a_group_that_user_space_owns() -> None:
    functions = [f"0000:00:02.{number} 14e4:16d7 020000 driver=bnxt_en acs=no" for number in (0, 1)]
    machine = booted(*functions)
    assert give_to_vfio(machine, "0000:00:02.0") == 0
    assert driver_of(machine, "0000:00:02.1") == "bnxt_en"
    write(machine, "bus/pci/drivers/bnxt_en/unbind", "0000:00:02.1")
    (group,) = (name for name in machine.vfio.nodes.names("") if name.isdigit())
    node = machine.vfio.nodes.find(group)
    assert isinstance(node, File)
    node.opened = 1
    assert write(machine, "bus/pci/drivers/bnxt_en/bind", "0000:00:02.1") == errno.EBUSY
    node.opened = 0
    assert write(machine, "bus/pci/drivers/bnxt_en/bind", "0000:00:02.1") == 0


def test_a_port_above_does_not_spoil_the_group_that_it_shares() -> None:
    machine = booted(PORT + " acs=no", E1000E)
    assert give_to_vfio(machine, NIC) == 0
    node = machine.vfio.nodes.find("0")
    assert isinstance(node, File)
    node.opened = 1
    assert write(machine, "bus/pci/drivers/pcieport/unbind", "0000:00:01.0") == 0
    # pcieport sets driver_managed_dma.
    assert write(machine, "bus/pci/drivers/pcieport/bind", "0000:00:01.0") == 0


def test_modules_depend_on_each_other_as_in_modules_dep(machine: Machine) -> None:
    assert machine.modules.modprobe(["vfio-pci"], "").code == 0
    loaded = {"vfio", "vfio_pci", "vfio_pci_core", "vfio_iommu_type1", "iommufd"}
    assert loaded <= set(machine.tree.names("module"))
    assert machine.tree.names("module/vfio_pci_core/holders") == ["vfio_pci"]
    assert machine.tree.names("module/vfio/holders") == [
        "vfio_iommu_type1",
        "vfio_pci",
        "vfio_pci_core",
    ]


def test_a_kernel_without_vfio_has_no_vfio_pci() -> None:
    machine = booted(PORT, E1000E, more="kernel: {vfio: absent}\n")
    assert machine.modules.modprobe(["vfio-pci"], "").code == 1


def test_the_alias_names_a_variant_driver_beside_vfio_pci() -> None:
    machine = booted(CONNECTX, PORT, E1000E, more=VARIANT)
    modaliases = [
        content(machine, f"{device(address)}/modalias") for address in ("0000:00:02.0", NIC)
    ]
    variant, other = (f"vfio_{modalias.strip()}" for modalias in modaliases)
    assert set(resolved(machine, variant)) == {"mlx5_vfio_pci", "vfio_pci"}
    assert resolved(machine, other) == ["vfio_pci"]


def test_no_driver_of_vfio_is_loaded_by_the_modalias_of_a_function() -> None:
    machine = booted(CONNECTX, more=VARIANT)
    modalias = content(machine, f"{device('0000:00:02.0')}/modalias").strip()
    assert machine.modules.modprobe(["--resolve-alias", modalias], "").code == 1


def test_the_alias_of_vfio_pci_is_that_of_debian() -> None:
    answer = booted().modules.modinfo(["--field=alias", "--", "vfio-pci"])
    assert answer.output == "vfio_pci:v*d*sv*sd*bc*sc*i*\n"


def test_a_variant_driver_is_one_of_vfio() -> None:
    machine = booted(CONNECTX, more=VARIANT)
    assert driver_of(machine, "0000:00:02.0") == "mlx5_core"
    assert give_to_vfio(machine, "0000:00:02.0", "mlx5_vfio_pci") == 0
    assert machine.tree.names(f"{device('0000:00:02.0')}/vfio-dev") == ["vfio0"]
    assert content(machine, f"{device('0000:00:02.0')}/power_state") == "D3hot\n"
    assert write(machine, f"{device('0000:00:02.0')}/driver_override", "\n") == 0
    assert write(machine, "bus/pci/drivers/mlx5_vfio_pci/unbind", "0000:00:02.0") == 0
    assert write(machine, "bus/pci/drivers/mlx5_vfio_pci/bind", "0000:00:02.0") == errno.ENODEV
