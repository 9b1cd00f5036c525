# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A failed run rolls back more than the devices of its list; test_model.py found these cases."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from extensions.simulator.description import Description, Driver, Habits
from extensions.simulator.machine import build
from tests.simulated.boards import Part, device_tree
from tests.simulated.lab import Lab, bindings
from tests.simulated.traces import differences

NETWORK, CRYPTO, TIMER = "1000.net", "2000.crypto", "3000.timer"
PARTS = (
    Part("net", False, True, False, False, None),
    Part("crypto", False, True, False, False, 0),
    Part("timer", False, True, False, False, None),
)
DESCRIPTION = Description(
    kernel=Habits(groups_at_boot=True),
    drivers=(
        Driver("acme-uio"),
        # The run fails here after all earlier entries were applied.
        Driver("acme-broken", probe={"*": errno.EIO}),
    ),
)
FAILING = {"name": TIMER, "policy": "driver", "driver": "acme-broken"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(lambda: build(device_tree(PARTS), DESCRIPTION), tmp_path)


def write(lab: Lab, path: str, text: str) -> None:
    lab.host.sysfs.write(path, text)


def override(lab: Lab, name: str, driver: str) -> None:
    write(lab, f"bus/platform/devices/{name}/driver_override", driver)


def assert_put_back(lab: Lab, *names: str) -> None:
    """Assert that a list of these devices and the failing one leaves all bindings unchanged."""
    before = bindings(lab.machine)
    modules = set(lab.machine.tree.names("module"))
    entries = [{"name": name, "policy": "vfio"} for name in names]
    with pytest.raises(PolicyError, match="Nothing was changed: all changes of this run were"):
        lab.apply([*entries, FAILING], reset_required=False, allow=["consumers"])
    assert bindings(lab.machine) == before
    assert set(lab.machine.tree.names("module")) == modules


def test_a_device_goes_back_to_the_driver_that_had_it_against_its_override(lab: Lab) -> None:
    override(lab, CRYPTO, "acme-uio")
    assert bindings(lab.machine)[CRYPTO] == ("acme-crypto", "acme-uio")
    assert_put_back(lab, CRYPTO)


def test_a_module_that_went_with_another_one_is_loaded_again(lab: Lab) -> None:
    lab.machine.modules.modprobe(["--", "vfio_platform_base"], "")
    assert "vfio_platform_base" in lab.machine.tree.names("module")
    assert_put_back(lab, CRYPTO)


def test_a_consumer_comes_back_with_its_supplier_to_the_driver_that_it_had(lab: Lab) -> None:
    # Without a rollback of the consumer, the kernel would bind it to the driver of its override.
    override(lab, CRYPTO, "acme-uio")
    assert_put_back(lab, NETWORK)


def test_a_consumer_that_had_no_driver_has_none_again(lab: Lab) -> None:
    # The kernel probes a consumer when its supplier is bound: device_links_driver_bound.
    write(lab, "bus/platform/drivers/acme-crypto/unbind", CRYPTO)
    assert_put_back(lab, NETWORK)


def test_a_consumer_of_a_consumer_that_has_a_step_of_its_own_comes_back(tmp_path: Path) -> None:
    chain = (*PARTS, Part("dma", False, True, False, False, 1))
    lab = Lab(lambda: build(device_tree(chain), DESCRIPTION), tmp_path)
    # It is bound to another driver than its override names, which a probe would not restore.
    override(lab, "4000.dma", "acme-uio")
    before = bindings(lab.machine)
    assert before["4000.dma"] == ("acme-dma", "acme-uio")
    overridden = {"name": CRYPTO, "policy": "driver", "driver": "acme-crypto"}
    supplier = {"name": NETWORK, "policy": "vfio"}
    with pytest.raises(PolicyError, match="Nothing was changed"):
        lab.apply([overridden, supplier, FAILING], reset_required=False, allow=["consumers"])
    assert bindings(lab.machine) == before


def test_a_list_with_unsafe_noiommu_off_does_not_keep_what_would_not_come_back(
    tmp_path: Path,
) -> None:
    part = Part("net", False, False, False, False, None)
    lab = Lab(lambda: build(device_tree([part]), Description()), tmp_path)
    entries = [{"name": NETWORK, "policy": "vfio"}]
    lab.apply(entries, reset_required=False, unsafe_noiommu=True)
    before = lab.everything()
    with pytest.raises(PolicyError, match=f"{NETWORK}.* is bound to VFIO without an IOMMU"):
        lab.apply(entries, unsafe_noiommu=False)
    assert lab.everything() == before


def test_a_link_that_the_kernel_drops_at_the_first_bind_is_all_that_differs(tmp_path: Path) -> None:
    # The supplier matches no driver, so the kernel relaxed its link after boot.
    iommu = Driver("acme-iommu", compatible=("acme,iommu",), suppress_bind_attrs=True)
    kernel = Habits(groups_at_boot=True, noiommu=False)
    description = Description(kernel=kernel, natives="none", drivers=(iommu,))
    lab = Lab(lambda: build(device_tree(PARTS), description), tmp_path)
    before = lab.everything()
    with pytest.raises(PolicyError, match="with CONFIG_VFIO_NOIOMMU"):
        lab.apply([{"name": CRYPTO, "policy": "vfio"}], reset_required=False, unsafe_noiommu=True)
    after = lab.everything()
    gone = {path for path in before.keys() - after.keys() if path.startswith("sys/class/devlink")}
    assert gone == {"sys/class/devlink/platform:1000.net--platform:2000.crypto"}
    assert not differences(before, after)
