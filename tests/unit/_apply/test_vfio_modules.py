"""A run loads and reloads the vfio modules with the requested parameters, and restores them."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest
from board import AMBA, CRYPTO, Board
from simulated_kernel import NOIOMMU, RESET_REQUIRED, BoardModule, Driver

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import Outcome
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._report import results

DMA = {"name": "b002000.dma", "policy": "vfio"}
BOUND = ("vfio-platform", "vfio-platform")


@pytest.fixture
def loaded(board: Board) -> Board:
    """A board with vfio-platform loaded with the kernel's default: a reset is required."""
    board.kmod.load("vfio-platform")
    board.kmod.calls.clear()
    return board


def test_only_the_module_of_the_buses_bus_is_loaded(board: Board) -> None:
    board.apply([AMBA])
    assert board.kmod.calls == ["load vfio_amba"]


def test_reset_required_is_set_as_the_module_is_loaded(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    assert board.kmod.calls == ["load vfio_platform reset_required=N"]
    assert board.kernel.read(RESET_REQUIRED) == "N"


def test_a_module_that_is_loaded_as_asked_is_left_alone(loaded: Board) -> None:
    loaded.kernel.reset_functions.add("acme,crypto-v1")
    outcome = loaded.apply([CRYPTO], reset_required=True)
    assert not loaded.kmod.calls
    assert not outcome.host_steps


def test_a_module_is_loaded_anew_for_another_setting_and_says_so(loaded: Board) -> None:
    predicted = loaded.check([CRYPTO], reset_required=False)
    outcome = loaded.apply([CRYPTO], reset_required=False)
    assert loaded.kmod.calls == [
        "unload vfio_platform",
        "load vfio_platform reset_required=N",
    ]
    assert loaded.kernel.read(RESET_REQUIRED) == "N"
    assert loaded.kernel.binding("b000000.crypto") == BOUND
    assert outcome.host_steps == predicted.host_steps
    assert "reload module vfio-platform with reset_required=N" in steps(outcome)
    loaded.kmod.calls.clear()
    assert not loaded.apply([CRYPTO], reset_required=False).is_changed
    assert not loaded.kmod.calls


def test_null_leaves_the_setting_as_it_is(loaded: Board) -> None:
    loaded.kernel.reset_functions.add("acme,crypto-v1")
    loaded.apply([CRYPTO])
    assert not loaded.kmod.calls
    assert loaded.kernel.read(RESET_REQUIRED) == "Y"


def test_devices_of_the_list_come_through_a_reload(loaded: Board) -> None:
    loaded.kernel.reset_functions.add("acme,crypto-v1")
    loaded.apply([CRYPTO])
    loaded.apply([CRYPTO, {"name": "b001000.crypto", "policy": "vfio"}], reset_required=False)
    assert loaded.kernel.binding("b000000.crypto") == BOUND
    assert loaded.kernel.binding("b001000.crypto") == BOUND


def test_a_device_that_does_not_come_through_a_reload_undoes_it(loaded: Board) -> None:
    loaded.apply([CRYPTO], reset_required=False)
    before = loaded.kernel.bindings()
    # The module has an alias for a reset function, but registers none.
    loaded.kmod.modules["broken"] = BoardModule(
        name="broken", aliases=("vfio-reset:acme,crypto-v1",)
    )
    with pytest.raises(PolicyError, match="Nothing was changed"):
        loaded.apply([CRYPTO], reset_required=True)
    assert loaded.kernel.read(RESET_REQUIRED) == "N"
    assert loaded.kernel.bindings() == before


def test_a_reload_is_refused_while_devices_of_others_are_on_the_driver(loaded: Board) -> None:
    kernel = loaded.kernel
    kernel.reset_functions.add("acme,crypto-v1")
    kernel.write("bus/platform/drivers/acme-crypto/unbind", "b001000.crypto")
    kernel.write("bus/platform/devices/b001000.crypto/driver_override", "vfio-platform")
    kernel.write("bus/platform/drivers/vfio-platform/bind", "b001000.crypto")
    kernel.writes.clear()
    with pytest.raises(PolicyError, match=r"bound to it: b001000\.crypto"):
        loaded.apply([CRYPTO], reset_required=False)
    assert not kernel.writes
    assert not loaded.kmod.calls


def test_a_reload_is_refused_while_a_device_is_held_open(loaded: Board) -> None:
    loaded.kernel.reset_functions.add("acme,crypto-v1")
    loaded.apply([CRYPTO])
    loaded.kernel.writes.clear()
    loaded.process(77, "crosvm", "/dev/vfio/1")
    with pytest.raises(PolicyError, match=r"held open by crosvm \(pid 77\)"):
        loaded.apply([CRYPTO], reset_required=False)
    assert not loaded.kernel.writes
    assert not loaded.kmod.calls


def test_a_built_in_vfio_platform_is_told_to_be_set_on_the_command_line(board: Board) -> None:
    kernel = board.kernel
    kernel.put(RESET_REQUIRED, "Y\n")
    kernel.put(NOIOMMU, "N\n")
    kernel.register(Driver("vfio-platform", module="vfio_platform"))
    with pytest.raises(PolicyError, match=r"vfio_platform\.reset_required=0"):
        board.apply([CRYPTO], reset_required=False)
    assert not kernel.writes
    assert not board.kmod.calls


def test_noiommu_is_set_at_run_time_and_gives_a_node_of_its_own_name(board: Board) -> None:
    outcome = board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    assert board.kernel.read(NOIOMMU) == "Y"
    (device,) = outcome.devices
    assert device.after.vfio_nodes[0] == f"/dev/vfio/noiommu-{device.after.iommu_group}"
    assert set(device.after.vfio_nodes) == set(board.nodes())
    assert "set vfio.enable_unsafe_noiommu_mode to Y" in steps(outcome)
    assert not board.apply([DMA], reset_required=False, unsafe_noiommu=True).is_changed


def test_noiommu_that_modprobe_is_told_of_is_known_before_anything_is_touched(
    board: Board,
) -> None:
    board.write_file("/etc/modprobe.d/a.conf", "options vfio enable_unsafe_noiommu_mode=1\n")
    board.kmod.options["vfio"] = {"enable_unsafe_noiommu_mode": "1"}
    board.apply([DMA], reset_required=False)
    assert board.kernel.driver_of("b002000.dma") == "vfio-platform"


def test_noiommu_is_off_if_asked_even_where_modprobe_turns_it_on(board: Board) -> None:
    board.kmod.options["vfio"] = {"enable_unsafe_noiommu_mode": "1"}
    board.apply([CRYPTO], reset_required=False, unsafe_noiommu=False)
    assert board.kernel.read(NOIOMMU) == "N"
    assert not board.apply([CRYPTO], reset_required=False, unsafe_noiommu=False).is_changed


@pytest.mark.parametrize("unsafe_noiommu", [None, True])
def test_noiommu_that_is_on_stays_on_through_a_reload(
    loaded: Board, unsafe_noiommu: bool | None
) -> None:
    loaded.kernel.write(NOIOMMU, "Y")
    settings = {"unsafe_noiommu": unsafe_noiommu, "persistent": False}
    loaded.apply([DMA], reset_required=False, **settings)
    assert loaded.kernel.read(NOIOMMU) == "Y"
    assert loaded.kernel.driver_of("b002000.dma") == "vfio-platform"


def test_a_kernel_without_noiommu_is_said_to_have_none(board: Board) -> None:
    board.kmod.modules["vfio"] = BoardModule(name="vfio")
    before = board.kernel.bindings()
    with pytest.raises(PolicyError, match="CONFIG_VFIO_NOIOMMU"):
        board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    assert board.kernel.bindings() == before
    board.apply([CRYPTO], reset_required=False, unsafe_noiommu=False)
    assert not board.apply([CRYPTO], reset_required=False, unsafe_noiommu=False).is_changed


def test_a_module_that_registers_no_driver_is_found_out(board: Board) -> None:
    module = board.kmod.modules["vfio_platform"]
    board.kmod.modules["vfio_platform"] = replace(module, drivers=())
    before = board.kernel.bindings()
    with pytest.raises(PolicyError, match="its driver is not registered"):
        board.apply([CRYPTO], reset_required=False)
    assert board.kernel.bindings() == before
    assert not board.kmod.is_loaded("vfio_platform")


def test_a_module_that_binds_at_registration_is_not_asked_to_bind_again(board: Board) -> None:
    kernel = board.kernel
    kernel.write("bus/platform/drivers/acme-crypto/unbind", "b000000.crypto")
    kernel.writes.clear()
    board.apply([CRYPTO], reset_required=False)
    assert kernel.writes == [
        ("bus/platform/devices/b000000.crypto/driver_override", "vfio-platform\n")
    ]


def test_with_autoprobe_off_devices_are_bound_all_the_same(board: Board) -> None:
    kernel = board.kernel
    kernel.write("bus/platform/drivers_autoprobe", "0")
    board.apply([CRYPTO], reset_required=False)
    assert kernel.binding("b000000.crypto") == BOUND
    board.apply([])
    assert kernel.binding("b000000.crypto") == ("acme-crypto", None)


def test_with_autoprobe_off_devices_come_back_when_a_reload_is_undone(loaded: Board) -> None:
    loaded.kernel.reset_functions.add("acme,crypto-v1")
    loaded.apply([CRYPTO])
    loaded.kernel.write("bus/platform/drivers_autoprobe", "0")
    loaded.kmod.failing.append("load vfio_platform reset_required=N")
    with pytest.raises(PolicyError, match="Nothing was changed"):
        loaded.apply([CRYPTO], reset_required=False)
    assert loaded.kernel.binding("b000000.crypto") == BOUND


def test_with_autoprobe_off_devices_come_through_a_reload(loaded: Board) -> None:
    loaded.kernel.reset_functions.add("acme,crypto-v1")
    loaded.apply([CRYPTO])
    loaded.kernel.write("bus/platform/drivers_autoprobe", "0")
    loaded.apply([CRYPTO], reset_required=False)
    assert loaded.kernel.binding("b000000.crypto") == BOUND


def test_a_failed_write_of_noiommu_is_an_error_without_a_traceback(loaded: Board) -> None:
    loaded.kernel.answer(NOIOMMU, errno.EPERM)
    with pytest.raises(PolicyError, match="EPERM"):
        loaded.apply([DMA], reset_required=False, unsafe_noiommu=True)
    assert loaded.kernel.driver_of("b002000.dma") == "acme-dma"


def steps(outcome: Outcome) -> list[str]:
    """Return the messages of the host's steps."""
    sentences: list[str] = results.result(outcome)["host_steps"]
    return sentences


RESTORED = (
    "set vfio.enable_unsafe_noiommu_mode to N, its value before `unsafe_noiommu: true` was applied"
)
STAYS = "vfio.enable_unsafe_noiommu_mode stays Y: "


def bind_by_others(board: Board, name: str) -> None:
    """Bind a device to VFIO as another tool does."""
    driver = board.kernel.driver_of(name)
    board.kernel.write(f"bus/platform/devices/{name}/driver_override", "vfio-platform")
    board.kernel.write(f"bus/platform/drivers/{driver}/unbind", name)
    board.kernel.write("bus/platform/drivers/vfio-platform/bind", name)


@pytest.mark.parametrize("is_loaded", [False, True])
@pytest.mark.parametrize("entries", [[], [CRYPTO], [dict(CRYPTO, policy="no_autobind")]])
def test_noiommu_that_a_list_turned_on_is_off_when_no_list_asks_for_it(
    board: Board, entries: list[dict[str, Any]], is_loaded: bool
) -> None:
    if is_loaded:
        board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    predicted = board.check(entries, reset_required=False)
    outcome = board.apply(entries, reset_required=False)
    assert board.kernel.read(NOIOMMU) == "N"
    assert RESTORED in steps(outcome)
    assert predicted.host_steps == outcome.host_steps
    (modules,) = (
        part for part in results.diff(predicted) if part["after_header"] == "kernel modules"
    )
    assert RESTORED + "\n" in modules["after"]
    assert outcome.unsafe_kept == []
    assert "# before: " not in (board.file(RULES) or "")
    assert not board.apply(entries, reset_required=False).is_changed


def test_an_option_that_is_given_beside_an_empty_list_asks_for_nothing(board: Board) -> None:
    """group_vars can set the option for hosts whose devices are all released."""
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    board.apply([], reset_required=False, unsafe_noiommu=True)
    assert board.kernel.read(NOIOMMU) == "N"


def test_what_the_list_still_asks_for_stays_on(board: Board) -> None:
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    outcome = board.apply([CRYPTO], reset_required=False, unsafe_noiommu=True)
    assert board.kernel.read(NOIOMMU) == "Y"
    assert outcome.unsafe_kept == []
    board.apply([])
    assert board.kernel.read(NOIOMMU) == "N"


def test_noiommu_is_off_after_the_rollout_that_turned_it_on_is_rolled_back(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    before = board.file(RULES)
    board.apply([CRYPTO, DMA], reset_required=False, unsafe_noiommu=True, rollout="one")
    outcome = board.apply([], rollout="one", restores=True)
    assert board.kernel.read(NOIOMMU) == "N"
    assert RESTORED in steps(outcome)
    assert board.file(RULES) == before


def test_a_reboot_in_between_does_not_make_it_forgotten(board: Board) -> None:
    """After a reboot, the list's own file in modprobe.d has enabled the parameter."""
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    board.kmod.unload("vfio_platform")
    board.kmod.options["vfio"] = {"enable_unsafe_noiommu_mode": "1"}
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    board.apply([])
    assert board.kernel.read(NOIOMMU) == "N"


@pytest.mark.parametrize("is_loaded", [False, True])
def test_noiommu_that_somebody_had_turned_on_stays_on(board: Board, is_loaded: bool) -> None:
    if is_loaded:
        board.kmod.load("vfio-platform", {"reset_required": "N"})
        board.kernel.write(NOIOMMU, "Y")
    else:
        board.write_file("/etc/modprobe.d/a.conf", "options vfio enable_unsafe_noiommu_mode=1\n")
        board.kmod.options["vfio"] = {"enable_unsafe_noiommu_mode": "1"}
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    outcome = board.apply([])
    assert board.kernel.read(NOIOMMU) == "Y"
    assert outcome.unsafe_kept == [
        STAYS + "it was Y before a list with `unsafe_noiommu: true` was applied"
    ]


def test_noiommu_stays_on_for_devices_of_others_and_that_is_told(board: Board) -> None:
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    bind_by_others(board, "b003000.dma")
    outcome = board.apply([])
    assert board.kernel.read(NOIOMMU) == "Y"
    assert outcome.unsafe_kept == [STAYS + "platform/b003000.dma is bound to VFIO without an IOMMU"]
    assert board.kernel.driver_of("b003000.dma") == "vfio-platform"


def test_a_list_whose_own_device_needs_it_is_told_until_the_device_goes(board: Board) -> None:
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    board.write_file("/etc/modprobe.d/a.conf", "options vfio enable_unsafe_noiommu_mode=1\n")
    outcome = board.apply([DMA], reset_required=False)
    assert outcome.unsafe_kept == [STAYS + "platform/b002000.dma is bound to VFIO without an IOMMU"]
    again = board.apply([DMA], reset_required=False)
    assert (again.is_changed, again.unsafe_kept) == (False, outcome.unsafe_kept)
    board.apply([])
    assert board.kernel.read(NOIOMMU) == "N"


def test_of_an_older_header_it_is_not_known_what_it_was_before(board: Board) -> None:
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    lines = (board.file(RULES) or "").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("# before:", "# Values before"))]
    board.write_file(RULES, "".join(kept))
    assert not board.apply([DMA], reset_required=False, unsafe_noiommu=True).is_changed
    assert board.apply([]).unsafe_kept == [STAYS + "its previous value is unknown"]
    assert board.kernel.read(NOIOMMU) == "Y"


def test_for_the_next_boot_alone_the_running_setting_is_left(board: Board) -> None:
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    board.apply([], runtime=False)
    assert board.kernel.read(NOIOMMU) == "Y"


def test_it_is_on_again_if_the_run_that_turned_it_off_fails(grouped_board: Board) -> None:
    board = grouped_board
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    before = board.file(RULES)

    def fail() -> None:
        raise PolicyError("no")

    board.kernel.answer((NOIOMMU, "N"), fail)
    with pytest.raises(PolicyError, match="Nothing was changed"):
        board.apply([])
    assert board.kernel.read(NOIOMMU) == "Y"
    assert board.kernel.driver_of("b002000.dma") == "vfio-platform"
    assert board.file(RULES) == before


def test_reset_required_that_stays_off_is_told(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    assert board.apply([CRYPTO], reset_required=False).reset_kept is None
    outcome = board.apply([])
    assert board.kernel.read(RESET_REQUIRED) == "N"
    assert "'modprobe -r vfio-platform'" in (outcome.reset_kept or "")
    assert board.apply([]).reset_kept is None


@pytest.mark.parametrize("header", ['{"unsafe_noiommu": 1}', '{"other": true}', "[]", "no"])
def test_a_header_that_says_nonsense_of_before_is_refused(board: Board, header: str) -> None:
    board.apply([DMA], reset_required=False, unsafe_noiommu=True)
    content = (board.file(RULES) or "").replace('# before: {"unsafe_noiommu": false}', "# before: ")
    board.write_file(RULES, content.replace("# before: ", "# before: " + header))
    with pytest.raises(PolicyError, match="cannot be parsed"):
        board.apply([])
