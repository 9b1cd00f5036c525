"""Calls from end to end on a simulated machine change its /sys and its files as required."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from board import AMBA, CRYPTO, DMA, LIST, Board
from simulated_kernel import EPROBE_DEFER, TREE, Driver, coldplug

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import (
    Outcome,
    reconcile,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.forecast import Binding
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODPROBE,
    MODULES_LOAD,
    RULES,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.checker import Usage
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import Selector
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info, results
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs

ASKED = {
    "b000000.crypto": ("vfio-platform", "vfio-platform"),
    "b001000.crypto": ("vfio-platform", "vfio-platform"),
    "b002000.dma": (None, "none"),
    "b003000.dma": ("acme-dma-uio", "acme-dma-uio"),
    "b004000.ethernet": (None, None),
    "b008000.blob": ("vfio-amba", "vfio-amba"),
    "soc:keys": ("gpio-keys", None),
}
NATIVE = {
    "b000000.crypto": ("acme-crypto", None),
    "b001000.crypto": ("acme-crypto", None),
    "b002000.dma": ("acme-dma", None),
    "b003000.dma": ("acme-dma", None),
    "b004000.ethernet": (None, None),
    "b008000.blob": ("acme-blob", None),
    "soc:keys": ("gpio-keys", None),
}
OVERRIDE = "bus/platform/devices/%s/driver_override"


def reported(outcome: Outcome) -> dict[str, Any]:
    """Return what check mode predicts of a run: not group and nodes, which the probe creates."""
    result = results.result(outcome)
    for device in result["devices"]:
        del device["iommu_group"], device["vfio_nodes"]
    return {**result, "boot_files": results.boot_files(outcome)}


@pytest.fixture
def applied(board: Board) -> Board:
    """The board after the list was applied, with all counters reset."""
    board.apply(LIST, reset_required=False)
    board.kernel.writes.clear()
    board.kmod.calls.clear()
    return board


def test_the_first_run_brings_every_device_to_what_was_asked(board: Board) -> None:
    outcome = board.apply(LIST, reset_required=False)
    assert board.kernel.bindings() == ASKED
    assert outcome.is_changed
    assert {node for node in board.nodes() if "devices" not in node} == {
        "/dev/vfio/1",
        "/dev/vfio/2",
        "/dev/vfio/3",
    }


def test_the_group_that_is_reported_has_its_node(board: Board) -> None:
    outcome = board.apply(LIST, reset_required=False)
    for device in results.result(outcome)["devices"]:
        if device["driver"] in ("vfio-platform", "vfio-amba"):
            assert device["iommu_group"] == board.kernel.link_name(
                f"devices/platform/{device['name']}/iommu_group"
            )
            assert f"/dev/vfio/{device['iommu_group']}" in device["vfio_nodes"]
            assert set(device["vfio_nodes"]) <= set(board.nodes())


def test_the_second_run_writes_nothing_at_all(applied: Board) -> None:
    before = applied.everything()
    outcome = applied.apply(LIST, reset_required=False)
    assert not outcome.is_changed
    assert results.result(outcome)["diff"] == []
    assert not applied.kernel.writes
    assert not applied.kmod.calls
    assert applied.everything() == before


def test_a_device_that_the_list_names_twice_is_moved_once(board: Board) -> None:
    entries = [CRYPTO, {"name": "b000000.crypto", "policy": "vfio"}]
    board.apply(entries, reset_required=False)
    assert [path.rpartition("/")[2] for path, _text in board.kernel.writes] == [
        "driver_override",
        "unbind",
        "bind",
    ]
    assert board.kernel.driver_of("b000000.crypto") == "vfio-platform"


def test_a_check_predicts_the_first_run_and_touches_nothing(board: Board) -> None:
    before = board.everything()
    predicted = board.check(LIST, reset_required=False)
    assert not board.kernel.writes
    assert not board.kmod.calls
    assert board.everything() == before
    assert reported(predicted) == reported(board.apply(LIST, reset_required=False))


@pytest.mark.parametrize("entries", [[], [CRYPTO], [DMA, AMBA], [dict(CRYPTO, policy="default")]])
def test_a_check_predicts_what_a_changed_list_gives_back(
    applied: Board, entries: list[dict[str, Any]]
) -> None:
    predicted = applied.check(entries, reset_required=False)
    assert not applied.kernel.writes
    assert reported(predicted) == reported(applied.apply(entries, reset_required=False))


def test_a_check_of_what_is_so_already_predicts_no_change(applied: Board) -> None:
    assert not applied.check(LIST, reset_required=False).is_changed


def test_every_override_is_written_before_anything_else(board: Board) -> None:
    board.apply(LIST, reset_required=False)
    kinds = [path.rpartition("/")[2] for path, _text in board.kernel.writes]
    overrides = kinds.count("driver_override")
    assert overrides == 5
    assert set(kinds[overrides:]).isdisjoint({"driver_override"})


def test_overrides_are_set_before_a_module_is_loaded(board: Board) -> None:
    seen: list[str | None] = []
    load = board.kmod.load

    def watched(module: str, parameters: Any = None) -> None:
        seen.append(board.kernel.override_of("b000000.crypto"))
        load(module, parameters)

    board.kmod.load = watched  # type: ignore[method-assign]
    board.apply([CRYPTO], reset_required=False)
    assert seen == ["vfio-platform"]


def test_a_device_is_never_seen_on_a_driver_that_nobody_asked_for(board: Board) -> None:
    seen: set[str | None] = set()
    board.kernel.after_write = lambda: seen.add(board.kernel.driver_of("b003000.dma"))
    board.apply(LIST, reset_required=False)
    assert seen <= {"acme-dma", None, "acme-dma-uio"}
    seen.clear()
    board.apply(
        [dict(LIST[3], policy="vfio", driver=None)], reset_required=False, unsafe_noiommu=True
    )
    assert seen <= {"acme-dma-uio", None, "vfio-platform"}


def test_an_entry_taken_off_the_list_gives_its_device_back_and_the_diff_says_so(
    applied: Board,
) -> None:
    outcome = applied.apply(LIST[1:], reset_required=False)
    assert applied.kernel.bindings() == {
        **ASKED,
        "b000000.crypto": NATIVE["b000000.crypto"],
        "b001000.crypto": NATIVE["b001000.crypto"],
    }
    (devices, *_files) = results.result(outcome)["diff"]
    line = "/soc/crypto@b000000 (platform device b000000.crypto): driver "
    assert line + "vfio-platform, driver_override vfio-platform\n" in devices["before"]
    assert line + "acme-crypto, driver_override (unset) (released)\n" in devices["after"]


def test_an_empty_list_gives_everything_back_and_removes_our_files(applied: Board) -> None:
    applied.apply([])
    assert applied.kernel.bindings() == NATIVE
    assert [applied.file(path) for path in (RULES, MODPROBE, MODULES_LOAD)] == [None] * 3
    assert not applied.nodes()


def test_giving_back_twice_changes_nothing_the_second_time(applied: Board) -> None:
    applied.apply([])
    applied.kernel.writes.clear()
    assert not applied.apply([]).is_changed
    assert not applied.kernel.writes


def test_an_empty_list_on_a_fresh_machine_does_nothing(board: Board) -> None:
    before = board.everything()
    assert not board.apply([]).is_changed
    assert board.everything() == before


def test_a_device_moves_from_one_policy_to_the_other(applied: Board) -> None:
    applied.apply([dict(CRYPTO, policy="no_autobind")])
    assert applied.kernel.binding("b000000.crypto") == (None, "none")
    applied.apply([CRYPTO], reset_required=False)
    assert applied.kernel.binding("b000000.crypto") == ("vfio-platform", "vfio-platform")
    applied.apply([])
    assert applied.kernel.bindings() == NATIVE


def test_what_we_never_claimed_is_never_touched(board: Board) -> None:
    board.kernel.write(OVERRIDE % "b001000.crypto", "somebodys\n")
    board.kernel.writes.clear()
    board.apply([CRYPTO], reset_required=False)
    board.apply([])
    assert board.kernel.binding("b001000.crypto") == ("acme-crypto", "somebodys")
    assert not [path for path, text in board.kernel.writes if "b001000" in path + text]


@pytest.mark.parametrize(
    ("driver", "override"),
    [("acme-dma-uio", "acme-dma-uio"), ("acme-crypto", None), (None, "none")],
)
def test_what_somebody_else_made_of_a_device_since_is_left_alone(
    applied: Board, driver: str | None, override: str | None
) -> None:
    kernel, name = applied.kernel, "b000000.crypto"
    kernel.write("bus/platform/drivers/vfio-platform/unbind", name)
    kernel.write(OVERRIDE % name, (override or "") + "\n")
    if driver:
        kernel.write(f"bus/platform/drivers/{driver}/bind", name)
    kernel.writes.clear()
    applied.apply(LIST[1:])
    assert kernel.binding(name) == (driver, override)
    assert not [path for path, text in kernel.writes if name in path + text]


def test_a_device_that_was_driverless_when_it_was_taken_is_so_again(board: Board) -> None:
    entries = [{"dt_path": "/soc/ethernet@e0700000", "policy": "vfio"}]
    board.apply(entries, reset_required=False)
    assert board.kernel.driver_of("b004000.ethernet") == "vfio-platform"
    board.apply([])
    assert board.kernel.binding("b004000.ethernet") == (None, None)


def test_default_loads_the_native_drivers_module_for_a_driverless_device_once(
    board: Board,
) -> None:
    entries = [{"dt_path": "/soc/ethernet@e0700000", "policy": "default"}]
    board.apply(entries)
    assert board.kernel.binding("b004000.ethernet") == ("acme-eth", None)
    board.kernel.write("bus/platform/drivers/acme-eth/unbind", "b004000.ethernet")
    assert not board.apply(entries).is_changed


def test_the_native_driver_is_loaded_anew_if_its_module_is_gone(applied: Board) -> None:
    applied.kernel.write("bus/platform/drivers/acme-dma-uio/unbind", "b003000.dma")
    applied.kmod.unload("acme")
    applied.apply([])
    assert applied.kernel.driver_of("b000000.crypto") == "acme-crypto"
    assert "load acme" in applied.kmod.calls


def test_a_device_of_vfio_whose_native_driver_nobody_knows_ends_without_one(
    board: Board,
) -> None:
    kernel = board.kernel
    kernel.add_device("b00a000.odd", "/soc/odd@b00a000", ("acme,odd",), iommus=True)
    board.apply([{"name": "b00a000.odd", "policy": "vfio"}], reset_required=False)
    kernel.write(OVERRIDE % "b00a000.odd", "\n")
    board.apply([{"name": "b00a000.odd", "policy": "default"}])
    assert kernel.binding("b00a000.odd") == (None, None)


def test_a_probe_that_the_kernel_refuses_is_an_error_even_where_no_driver_is_known(
    board: Board,
) -> None:
    kernel = board.kernel
    kernel.add_device("b00a000.odd", "/soc/odd@b00a000", ("acme,odd",), iommus=True)
    board.apply([{"name": "b00a000.odd", "policy": "vfio"}], reset_required=False)
    kernel.answer("bus/platform/drivers_probe", errno.EPERM)
    with pytest.raises(PolicyError, match="EPERM"):
        board.apply([])
    assert kernel.binding("b00a000.odd") == ("vfio-platform", "vfio-platform")


def test_a_native_driver_that_declines_leaves_the_device_without_one(board: Board) -> None:
    module = board.kmod.modules["acme_eth"]
    (driver,) = module.drivers
    declining = replace(driver, probe={"b004000.ethernet": errno.ENODEV})
    board.kmod.modules["acme_eth"] = replace(module, drivers=(declining,))
    board.apply([{"name": "b004000.ethernet", "policy": "default"}])
    assert board.kernel.binding("b004000.ethernet") == (None, None)


def test_an_override_that_names_the_native_driver_itself_can_be_cleared(board: Board) -> None:
    kernel = board.kernel
    kernel.register(Driver("rtc-pl031", compatible=("arm,pl031",)))
    kernel.add_device("9010000.pl031", "/pl031@9010000", ("arm,pl031",))
    kernel.write(OVERRIDE % "9010000.pl031", "rtc-pl031\n")
    board.apply([{"name": "9010000.pl031", "policy": "default"}])
    assert kernel.binding("9010000.pl031") == ("rtc-pl031", None)


def test_a_foreign_file_is_refused_and_left_alone(board: Board) -> None:
    board.write_file(RULES, "# mine\n")
    assert f"{RULES} was not written by this collection" in board.refusal([CRYPTO])
    assert board.file(RULES) == "# mine\n"


@pytest.mark.parametrize(
    "line",
    [
        "# policy: {",
        "# policy: []",
        '# policy: {"name": "a/b", "policy": "vfio"}',
        '# policy: {"name": "x"}',
        '# policy: {"name": "x", "policy": "nonsense"}',
        '# policy: {"name": "x", "policy": "driver"}',
        '# policy: {"name": "x", "policy": "driver", "driver": 5}',
        '# policy: {"name": 5, "policy": "vfio"}',
        '# policy: {"compatible": "x", "policy": "vfio", "expect": "two"}',
        '# native: {"/x": 5}',
        '# native: {"/x": "../../y"}',
        "# native: [1]",
        '# numvfs before: {"/x": -1}',
        "# pci ids: [1]",
        '# pci ids: {"/x": 5}',
    ],
)
def test_a_damaged_header_is_refused_and_said_to_be_damaged(applied: Board, line: str) -> None:
    rules = applied.file(RULES) or ""
    applied.write_file(RULES, rules + line + "\n")
    assert f"The header of {RULES} cannot be parsed" in applied.refusal([])


def test_a_list_that_contradicts_itself_by_now_can_still_be_given_back(applied: Board) -> None:
    both = "acme,crypto\0acme,late\0"
    entries: list[dict[str, Any]] = [
        CRYPTO,
        {"compatible": "acme,late", "required": False, "policy": "no_autobind"},
    ]
    applied.apply(entries, reset_required=False)
    applied.kernel.put(f"{TREE}/soc/crypto@b000000/compatible", both)
    applied.apply([])
    assert applied.kernel.binding("b000000.crypto") == NATIVE["b000000.crypto"]


def test_without_persistence_no_file_is_written(board: Board) -> None:
    before = {key for key in board.everything() if key.startswith("host/etc")}
    board.apply(LIST, persistent=False, reset_required=False)
    assert board.kernel.bindings() == ASKED
    assert {key for key in board.everything() if key.startswith("host/etc")} == before


def test_without_runtime_only_files_are_written(board: Board) -> None:
    board.kernel.is_on_read_only_mount = True
    outcome = board.apply(LIST, runtime=False, reset_required=False)
    assert board.kernel.bindings() == NATIVE
    assert not board.kernel.writes
    assert outcome.is_changed
    assert not board.apply(LIST, runtime=False, reset_required=False).is_changed


def test_the_files_for_boot_are_the_same_whether_made_now_or_at_run_time(board: Board) -> None:
    board.apply(LIST, reset_required=False)
    paths = (RULES, MODPROBE, MODULES_LOAD)
    at_run_time = [board.file(path) for path in paths]
    outcome = board.apply(LIST, runtime=False, reset_required=False)
    assert not outcome.is_changed
    assert [board.file(path) for path in paths] == at_run_time


def test_after_a_reboot_that_the_rules_made_good_nothing_is_to_be_done(applied: Board) -> None:
    kernel = applied.kernel
    rules = applied.file(RULES)
    for name in ("b000000.crypto", "b001000.crypto"):
        kernel.write("bus/platform/drivers/vfio-platform/unbind", name)
        kernel.write("bus/platform/drivers/vfio-platform/bind", name)
    coldplug(kernel, applied.kmod, rules or "")
    kernel.writes.clear()
    assert not applied.apply(LIST, reset_required=False).is_changed
    assert applied.file(RULES) == rules


BAD: list[tuple[dict[str, Any], str]] = [
    ({"dt_path": "/soc/gone"}, "no such node"),
    ({"compatible": "acme,crypto", "expect": 3}, "expect is 3"),
    ({"name": "soc:keys"}, "that driver has no unbind"),
    ({"name": "soc:keys", "policy": "no_autobind"}, "is built into the kernel"),
    ({"name": "b002000.dma", "policy": "driver", "driver": "vfio-amba"}, "Set `policy: vfio`"),
    ({"name": "b002000.dma", "policy": "driver", "driver": "gone"}, "does not exist here"),
    ({"name": "b002000.dma", "policy": "driver", "driver": "acme_eth"}, "is not loaded"),
    ({"name": "b002000.dma", "policy": "driver", "driver": "acme-blob"}, "is on the amba bus"),
    ({"name": "b004000.ethernet", "policy": "driver", "driver": "gpio-keys"}, "has no bind"),
]


@pytest.mark.parametrize(("said", "words"), BAD)
def test_what_cannot_be_done_is_refused_before_anything_is_touched(
    board: Board, said: dict[str, Any], words: str
) -> None:
    assert words in board.refusal([{**DMA, "name": "b003000.dma"}, {"policy": "vfio", **said}])


def test_two_policies_for_one_device_are_refused(board: Board) -> None:
    message = board.refusal([CRYPTO, {"compatible": "acme,crypto", "policy": "no_autobind"}])
    assert "/soc/crypto@b000000" in message
    assert "different policies" in message


def test_a_kernel_without_vfio_is_said_to_have_none(board: Board) -> None:
    board.kmod.modules.clear()
    assert "has no vfio-platform" in board.refusal([CRYPTO])
    assert "CONFIG_VFIO_AMBA" in board.refusal([AMBA])


def test_a_read_only_sys_is_refused(board: Board) -> None:
    board.kernel.is_on_read_only_mount = True
    assert "/sys is mounted read-only" in board.refusal([CRYPTO])


def test_whoever_is_not_root_is_told_to_become_root(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "become: true" in board.refusal([CRYPTO])
    assert not board.apply([]).is_changed


def test_every_reason_not_to_begin_is_told_at_once(board: Board) -> None:
    board.kernel.is_on_read_only_mount = True
    entries = [{**entry, "policy": "vfio"} for entry, _words in BAD[2:3]]
    entries += [{"name": "b002000.dma", "policy": "driver", "driver": "gone"}]
    message = board.refusal(entries)
    assert all(word in message for word in ("read-only", "has no unbind", "does not exist"))


def test_without_a_sys_it_is_said_what_can_be_done(board: Board) -> None:
    board.kernel.rename("bus", "gone")
    with pytest.raises(PolicyError, match="`runtime: false`"):
        board.apply([CRYPTO])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EINVAL, "IOMMU group 1"),
        (errno.ENOENT, "no reset function"),
        (errno.EAGAIN, "supplier of the device is not ready"),
        (errno.EIO, "dmesg"),
    ],
)
def test_a_failed_bind_names_the_device_the_errno_and_a_remedy(
    board: Board, code: int, words: str
) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.kernel.answer("bus/platform/drivers/vfio-platform/bind", code)
    with pytest.raises(PolicyError) as caught:
        board.apply([CRYPTO], reset_required=False)
    message = str(caught.value)
    assert "/soc/crypto@b000000 (platform device b000000.crypto): cannot bind to" in message
    assert errno.errorcode[code] in message
    assert words in message
    assert "Nothing was changed" in message


def test_a_missing_reset_function_is_told_with_the_option_that_helps(board: Board) -> None:
    with pytest.raises(PolicyError, match="`reset_required: false`"):
        board.apply([CRYPTO])
    assert board.kernel.bindings() == NATIVE


def test_a_reset_function_wanted_for_nothing_is_told_to_be_the_kernels_fault(
    board: Board,
) -> None:
    board.kernel.has_reset_bug = True
    with pytest.raises(PolicyError, match=r"Linux before 6\.3"):
        board.apply([CRYPTO], reset_required=False)
    assert board.kernel.bindings() == NATIVE


def test_a_missing_iommu_group_is_told_with_the_option_that_helps(board: Board) -> None:
    entries = [{"name": "b002000.dma", "policy": "vfio"}]
    with pytest.raises(PolicyError) as caught:
        board.apply(entries, reset_required=False)
    assert "no iommus property" in str(caught.value)
    assert "`unsafe_noiommu: true`" in str(caught.value)
    assert board.kernel.bindings() == NATIVE
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.kernel.writes.clear()
    assert "no iommus property" in board.refusal(entries, reset_required=False)


def test_a_write_that_had_no_effect_is_found_out(board: Board) -> None:
    native = "bus/platform/drivers/acme-crypto/unbind"

    def forget() -> None:
        board.kernel.put(OVERRIDE % "b000000.crypto", "else\n")

    board.kernel.answer((native, "b000000.crypto"), forget)
    with pytest.raises(PolicyError, match=r"b000000\.crypto"):
        board.apply([CRYPTO], reset_required=False)
    assert board.kernel.bindings() == NATIVE


def test_what_is_reported_is_what_is_true_at_the_end(board: Board) -> None:
    kernel = board.kernel

    def take_away() -> None:
        if kernel.driver_of("b000000.crypto") == "vfio-platform":
            kernel.write("bus/platform/drivers/vfio-platform/unbind", "b000000.crypto")

    kernel.answer(("bus/amba/drivers/acme-blob/unbind", "b008000.blob"), take_away)
    with pytest.raises(PolicyError, match=r"b000000\.crypto"):
        board.apply([CRYPTO, AMBA], reset_required=False)
    assert board.file(RULES) is None


def test_a_supplier_may_come_after_its_consumer(board: Board) -> None:
    board.kernel.add_link("b001000.crypto", "b000000.crypto")
    entries = [CRYPTO, {"name": "b001000.crypto", "policy": "vfio"}]
    board.apply(entries, reset_required=False, allow=["consumers"])
    assert board.kernel.driver_of("b000000.crypto") == "vfio-platform"
    assert board.kernel.driver_of("b001000.crypto") == "vfio-platform"


def test_a_native_driver_that_waits_for_a_supplier_is_no_success(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    native = board.kernel.drivers["platform", "acme-crypto"]
    board.kernel.drivers["platform", "acme-crypto"] = replace(
        native, probe={"b000000.crypto": EPROBE_DEFER}
    )
    with pytest.raises(PolicyError, match="its driver is none"):
        board.apply([])
    assert board.kernel.driver_of("b000000.crypto") == "vfio-platform"
    assert board.file(RULES)


def test_the_header_remembers_the_list_and_the_native_drivers(applied: Board) -> None:
    lines = (applied.file(RULES) or "").splitlines()
    policies = [json.loads(line[10:]) for line in lines if line.startswith("# policy: ")]
    assert policies == LIST
    natives = [json.loads(line[10:]) for line in lines if line.startswith("# native: ")]
    assert {"/soc/crypto@b000000": "acme-crypto"} in natives
    assert {"/soc/blob@b008000": "acme-blob"} in natives


@pytest.mark.parametrize("name", ["odd:driver (v1)", "Fixed/MDIO", 'quo"ted', "ünï", "$x%y|*"])
def test_a_native_driver_may_be_called_whatever_its_author_liked(board: Board, name: str) -> None:
    kernel = board.kernel
    in_sysfs = name.replace("/", "!")
    kernel.register(Driver(in_sysfs, compatible=("acme,odd",)))
    kernel.add_device("b00a000.odd", "/soc/odd@b00a000", ("acme,odd",), iommus=True)
    entries = [{"name": "b00a000.odd", "policy": "vfio"}]
    board.apply(entries, reset_required=False)
    assert not board.apply(entries, reset_required=False).is_changed
    board.apply([])
    assert kernel.binding("b00a000.odd") == (in_sysfs, None)


def test_devices_that_share_a_node_each_go_back_to_their_own_driver(board: Board) -> None:
    kernel = board.kernel
    kernel.add_device("crypto-dma.1", "/soc/crypto@b000000", ("acme,dma",))
    native = kernel.bindings()
    assert native["crypto-dma.1"] == ("acme-dma", None)
    entries = [{"dt_path": "/soc/crypto@b000000", "policy": "no_autobind", "expect": 2}]
    board.apply(entries)
    assert kernel.binding("b000000.crypto") == kernel.binding("crypto-dma.1") == (None, "none")
    assert not board.apply(entries).is_changed
    board.apply([])
    assert kernel.bindings() == native


def test_what_is_prepared_for_the_next_boot_needs_one_until_the_devices_are_so(
    board: Board,
) -> None:
    asked: dict[str, Any] = {"reset_required": False, "runtime": False}
    assert board.apply(LIST, **asked).needs_boot
    assert board.apply(LIST, **asked).needs_boot
    assert not board.apply(LIST, reset_required=False).needs_boot
    assert not board.apply(LIST, **asked).needs_boot
    # A device that is removed from the list is released by the next boot.
    assert board.apply(LIST[:1], **asked).needs_boot
    assert board.kernel.bindings() == ASKED


def test_an_image_needs_no_boot_to_be_finished(board: Board, tmp_path: Path) -> None:
    image = board.host._replace(sysfs=Sysfs(str(tmp_path / "nothing")))
    request = Request(parse_entries([CRYPTO]), is_whole_list=True, runtime=False, persistent=True)
    usage = Usage(image.sysfs)
    outcome = reconcile(image, usage, board.run_lock(), request, check_mode=False)
    assert outcome.is_changed
    assert not outcome.needs_boot


def test_info_tells_what_will_be_after_the_next_boot(applied: Board) -> None:
    devices = applied.devices()
    assert len(devices) == 7
    crypto = devices["b000000.crypto"]
    assert crypto["claimed_by"] == LIST[0]
    assert crypto["next_boot"]["driver"] == "vfio-platform"
    assert devices["b002000.dma"]["next_boot"]["driver"] is None
    assert devices["b002000.dma"]["next_boot"]["driver_override"] == "none"
    assert devices["soc:keys"]["next_boot"]["driver"] == "gpio-keys"
    assert devices["soc:keys"]["claimed_by"] is None
    assert [device["drift"] for device in devices.values()] == [[]] * 7
    assert not applied.kernel.writes


def test_info_gives_the_list_last_applied_back(applied: Board) -> None:
    assert device_info.inspections(applied.inspect([]))["policy_list"] == LIST


def test_info_tells_of_a_device_that_is_not_as_the_list_wants_it(applied: Board) -> None:
    applied.kernel.write("bus/platform/drivers/vfio-platform/unbind", "b000000.crypto")
    crypto = applied.devices()["b000000.crypto"]
    assert crypto["desired"] == {"driver": "vfio-platform", "driver_override": "vfio-platform"}
    running = "it is bound to no driver with driver_override vfio-platform, "
    wanted = "bound to vfio-platform with driver_override vfio-platform"
    sentence = f"{running}but the last-applied configuration requires it to be {wanted}"
    assert crypto["drift"] == [sentence + ", as it will be after the next boot"]


def test_info_tells_of_a_next_boot_that_does_not_restore_the_list(applied: Board) -> None:
    applied.kernel.write("bus/platform/drivers/vfio-platform/unbind", "b000000.crypto")
    inspected = applied.inspect([Selector("dt_path", "crypto0")]).devices[0]
    native = inspected.next_boot._replace(binding=Binding("acme-crypto", None), reason="built in")
    now, later = inspected._replace(next_boot=native).drift
    assert now.endswith("bound to vfio-platform with driver_override vfio-platform")
    after = "bound to acme-crypto with driver_override unset after the next boot: built in"
    assert later.endswith(after)


def test_info_on_chosen_devices_tells_of_them_alone(applied: Board) -> None:
    selector = Selector("dt_path", "crypto0")
    inspections = applied.inspect([selector]).devices
    assert [inspection.device.name for inspection in inspections] == ["b000000.crypto"]


def test_info_on_what_is_claimed_tells_of_nothing_else(applied: Board) -> None:
    def names(selectors: list[Selector] | None) -> list[str]:
        inspections = applied.inspect(selectors, only_claimed=True).devices
        return [inspection.device.name for inspection in inspections]

    everything = applied.devices().values()
    assert names(None) == [device["name"] for device in everything if device["claimed_by"]]
    assert len(names(None)) == 5
    assert names([Selector("dt_path", "crypto0"), Selector("name", "soc:keys")]) == [
        "b000000.crypto"
    ]


def test_info_tells_of_a_device_that_hangs_and_of_all_others(board: Board) -> None:
    board.apply([DMA])
    board.kernel.hung.add("b000000.crypto")
    by_name = {inspection.device.name: inspection for inspection in board.inspect(None).devices}
    assert by_name["b002000.dma"].state.driver_override == "none"
    assert by_name["b000000.crypto"].state.driver == "acme-crypto"
    (hazard,) = by_name["b000000.crypto"].hazards
    assert (hazard.kind, hazard.subject) == ("blocked", "b000000.crypto")
    assert "did not answer" in hazard.sentence


def test_info_tells_that_what_was_set_by_hand_does_not_last(board: Board) -> None:
    board.apply([CRYPTO], persistent=False, reset_required=False)
    reported_of = board.devices()["b000000.crypto"]
    assert reported_of["driver"] == "vfio-platform"
    assert reported_of["next_boot"]["driver"] is reported_of["next_boot"]["driver_override"] is None
    assert not reported_of["next_boot"]["known"]
    (sentence,) = reported_of["drift"]
    assert sentence.startswith(
        "it is bound to vfio-platform with driver_override vfio-platform, which does not persist "
        "across reboots: "
    )


def test_on_a_machine_with_acpi_devices_are_given_by_acpi_names_with_noiommu(
    board: Board,
) -> None:
    board.kernel.add_device("LNRO0005:00", acpi=("\\_SB_.VR00", "LNRO0005"))
    entries = [{"acpi_path": "\\_SB.VR00", "policy": "vfio"}]
    board.apply(entries, reset_required=False, unsafe_noiommu=True)
    assert board.kernel.driver_of("LNRO0005:00") == "vfio-platform"
    assert not board.apply(entries, reset_required=False, unsafe_noiommu=True).is_changed
    board.apply([])
    assert board.kernel.binding("LNRO0005:00") == (None, None)
