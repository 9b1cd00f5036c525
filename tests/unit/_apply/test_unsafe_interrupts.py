# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of VFIO are allowed to have devices whose interrupts are not isolated, if asked."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from acpi_tables import (
    MSI_FRAME,
    SINGLE,
    TABLES,
    TRANSLATOR,
    Mapping,
    component,
    gicv2,
    gicv3,
    iort,
    its_group,
    smmu,
)
from board import AMBA, CRYPTO, DMA, Board
from simulated_kernel import TREE

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import Outcome
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODPROBE,
    MODULES_LOAD,
    RULES,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.vfio import (
    INTERRUPTS,
    NOIOMMU,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._report import results

OTHERS = "/etc/modprobe.d/others.conf"
OPTION = "options vfio_iommu_type1 allow_unsafe_interrupts=1\n"
SET = "set vfio_iommu_type1.allow_unsafe_interrupts to Y"
RESTORED = (
    "set vfio_iommu_type1.allow_unsafe_interrupts to N, its value before `unsafe_interrupts: true` "
    "was applied"
)
STAYS = "vfio_iommu_type1.allow_unsafe_interrupts stays Y: "
REFUSED = "is refused (EPERM of vfio_iommu_type1)"
FROM_BOOT_ON = "so from the next boot on user space"
NO_RESET: dict[str, Any] = {"reset_required": False}
ALLOWED: dict[str, Any] = {**NO_RESET, "unsafe_interrupts": True}
PLAIN = {"name": "b002000.dma", "policy": "vfio"}


def steps(outcome: Outcome) -> list[str]:
    sentences: list[str] = results.result(outcome)["host_steps"]
    return sentences


def reported(outcome: Outcome) -> list[str]:
    """Return the warnings about interrupts."""
    return [warning for warning in outcome.warnings if REFUSED in warning]


def bind_by_others(board: Board, name: str) -> None:
    """Bind a device to VFIO as another tool does."""
    driver = board.kernel.driver_of(name)
    board.kernel.write(f"bus/platform/devices/{name}/driver_override", "vfio-platform")
    board.kernel.write(f"bus/platform/drivers/{driver}/unbind", name)
    board.kernel.write("bus/platform/drivers/vfio-platform/bind", name)


def isolate(board: Board, *paths: str) -> None:
    """Let the nodes of devices refer to an ITS."""
    board.kernel.add_node("/its", ("arm,gic-v3-its",))
    board.kernel.put(f"{TREE}/its/msi-controller", b"")
    board.kernel.put(f"{TREE}/its/phandle", struct.pack(">I", 7))
    for path in paths:
        board.kernel.put(f"{TREE}{path}/msi-parent", struct.pack(">I", 7))


def forget_container_module(board: Board) -> None:
    """Let vfio be loaded alone, as when something else keeps the module from following it."""
    for name, module in list(board.kmod.modules.items()):
        if name == "vfio":
            fields = {**module.__dict__, "then": ()}
            board.kmod.modules[name] = type(module)(**fields)


@pytest.mark.parametrize("is_loaded", [False, True])
@pytest.mark.parametrize("entry", [CRYPTO, AMBA])
def test_it_is_set_now_and_for_each_boot(
    board: Board, entry: dict[str, Any], is_loaded: bool
) -> None:
    if is_loaded:
        board.kmod.load("vfio-platform", {"reset_required": "N"})
        board.kmod.load("vfio-amba")
    predicted = board.check([entry], **ALLOWED)
    outcome = board.apply([entry], **ALLOWED)
    assert board.kernel.read(INTERRUPTS) == "Y"
    assert steps(predicted) == steps(outcome)
    assert SET in steps(outcome)
    assert OPTION in (board.file(MODPROBE) or "")
    assert "\nvfio_iommu_type1\n" in (board.file(MODULES_LOAD) or "")
    assert reported(outcome) == reported(predicted) == []
    assert not board.apply([entry], **ALLOWED).is_changed


def test_its_module_is_loaded_if_nothing_else_loads_it(board: Board) -> None:
    forget_container_module(board)
    board.apply([CRYPTO], **NO_RESET)
    assert not board.kmod.is_loaded("vfio_iommu_type1")
    board.apply([CRYPTO], **ALLOWED)
    assert board.kernel.read(INTERRUPTS) == "Y"
    assert board.kmod.calls[-1] == "load vfio_iommu_type1"
    assert not board.apply([CRYPTO], **ALLOWED).is_changed


def test_without_the_module_there_is_nothing_to_turn_off(board: Board) -> None:
    forget_container_module(board)
    settings = {**NO_RESET, "unsafe_interrupts": False}
    board.apply([CRYPTO], **settings)
    assert not board.kmod.is_loaded("vfio_iommu_type1")
    assert "allow_unsafe_interrupts=0" in (board.file(MODPROBE) or "")
    assert "vfio_iommu_type1" not in (board.file(MODULES_LOAD) or "")
    assert not board.apply([CRYPTO], **settings).is_changed


def test_it_is_off_if_asked_even_where_modprobe_turns_it_on(board: Board) -> None:
    board.kmod.options["vfio_iommu_type1"] = {"allow_unsafe_interrupts": "1"}
    settings = {**NO_RESET, "unsafe_interrupts": False}
    board.apply([CRYPTO], **settings)
    assert board.kernel.read(INTERRUPTS) == "N"
    assert not board.apply([CRYPTO], **settings).is_changed


def test_a_kernel_without_the_module_is_told_before_anything_is_changed(board: Board) -> None:
    forget_container_module(board)
    del board.kmod.modules["vfio_iommu_type1"]
    (sentence,) = board.refused([CRYPTO], **ALLOWED)
    assert sentence.startswith("`unsafe_interrupts` cannot be set: ")
    assert "Use a kernel with CONFIG_VFIO_IOMMU_TYPE1" in sentence
    assert board.apply([CRYPTO], **NO_RESET, unsafe_interrupts=False).is_changed


def test_a_failed_write_is_an_error_and_is_rolled_back(board: Board) -> None:
    before = board.kernel.bindings()
    board.kernel.answer(INTERRUPTS, errno.EPERM)
    with pytest.raises(PolicyError, match=r"`unsafe_interrupts` cannot be set: .*EPERM"):
        board.apply([CRYPTO], **ALLOWED)
    assert board.kernel.bindings() == before
    assert not board.kmod.is_loaded("vfio_iommu_type1")


def test_it_is_off_again_if_a_later_device_fails(board: Board) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    path = "bus/platform/drivers/vfio-platform/bind"
    board.kernel.answer((path, "b000000.crypto"), errno.EINVAL)
    with pytest.raises(PolicyError, match="Nothing was changed"):
        board.apply([CRYPTO], **ALLOWED)
    assert board.kernel.read(INTERRUPTS) == "N"


@pytest.mark.parametrize("goes_too", [False, True])
def test_it_stays_as_it_is_through_a_reload_of_the_driver(
    board: Board, monkeypatch: pytest.MonkeyPatch, goes_too: bool
) -> None:
    board.kernel.reset_functions.add("acme,crypto-v1")
    board.apply([CRYPTO])
    board.kernel.write(INTERRUPTS, "Y")
    unload = board.kmod.unload

    def unload_all(module: str) -> None:
        unload(module)
        unload("vfio_iommu_type1")

    if goes_too:
        monkeypatch.setattr(board.kmod, "unload", unload_all)
    board.apply([CRYPTO], **NO_RESET)
    assert board.kernel.read(INTERRUPTS) == "Y"


@pytest.mark.parametrize("entries", [[], [CRYPTO], [dict(CRYPTO, policy="no_autobind")]])
def test_it_goes_with_the_list_that_turned_it_on(
    board: Board, entries: list[dict[str, Any]]
) -> None:
    board.apply([CRYPTO], **ALLOWED)
    if entries == [CRYPTO]:
        isolate(board, "/soc/crypto@b000000")
    predicted = board.check(entries, **NO_RESET)
    outcome = board.apply(entries, **NO_RESET)
    # The device of the list that stays is bound to VFIO still.
    assert board.kernel.read(INTERRUPTS) == "N"
    assert RESTORED in steps(outcome)
    assert steps(predicted) == steps(outcome)
    assert outcome.unsafe_kept == []
    assert "# before: " not in (board.file(RULES) or "")
    assert OPTION not in (board.file(MODPROBE) or "")
    assert not board.apply(entries, **NO_RESET).is_changed


def test_a_value_of_before_is_remembered_beside_that_of_noiommu(board: Board) -> None:
    board.apply([CRYPTO, PLAIN], unsafe_noiommu=True, **ALLOWED)
    before = '# before: {"unsafe_noiommu": false, "unsafe_interrupts": false}\n'
    assert before in (board.file(RULES) or "")
    outcome = board.apply([])
    assert len([step for step in steps(outcome) if "its value before" in step]) == 2


def test_it_stays_on_for_a_device_that_may_need_it_and_that_is_told(board: Board) -> None:
    board.apply([CRYPTO], **ALLOWED)
    bind_by_others(board, "b001000.crypto")
    outcome = board.apply([])
    assert board.kernel.read(INTERRUPTS) == "Y"
    assert outcome.unsafe_kept == [
        STAYS + "platform/b001000.crypto is bound to VFIO, with interrupts that may not be isolated"
    ]
    assert outcome.unsafe_kept[0] in results.vfio_result(outcome)["kept_settings"]
    again = board.apply([])
    assert not again.is_changed


def test_it_stays_on_for_a_device_of_which_only_the_kernel_knows(board: Board) -> None:
    board.apply([CRYPTO], **ALLOWED)
    bind_by_others(board, "b001000.crypto")
    board.kernel.put(f"{TREE}/soc/crypto@b001000/msi-parent", struct.pack(">I", 9))
    assert "platform/b001000.crypto" in board.apply([]).unsafe_kept[0]


def test_a_blacklist_counts_where_vfio_is_built_in(board: Board) -> None:
    """Only a module that is loaded brings its softdep along."""
    board.write_file(OTHERS, "blacklist vfio_iommu_type1\n")
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.kernel.remove("module/vfio/initstate")
    outcome = board.apply([CRYPTO], **NO_RESET)
    assert any(CONTAINERS in warning for warning in outcome.warnings)


def test_it_does_not_stay_on_for_isolated_devices_and_those_without_an_iommu(
    board: Board,
) -> None:
    board.apply([CRYPTO], unsafe_noiommu=True, **ALLOWED)
    bind_by_others(board, "b001000.crypto")
    bind_by_others(board, "b002000.dma")
    isolate(board, "/soc/crypto@b001000")
    outcome = board.apply([])
    assert board.kernel.read(INTERRUPTS) == "N"
    assert len(outcome.unsafe_kept) == 1
    assert "enable_unsafe_noiommu_mode stays Y" in outcome.unsafe_kept[0]


UNSAFE = [
    ("unsafe_interrupts", INTERRUPTS, "vfio_iommu_type1.allow_unsafe_interrupts", CRYPTO),
    ("unsafe_noiommu", NOIOMMU, "vfio.enable_unsafe_noiommu_mode", PLAIN),
]
FOR_NOW: dict[str, Any] = {**NO_RESET, "persistent": False}


@pytest.mark.parametrize(("option", "path", "parameter", "entry"), UNSAFE)
@pytest.mark.parametrize("policy", [None, "default", "no_autobind"])
def test_what_an_earlier_run_without_persistence_turned_on_stays_on_and_that_is_told(
    board: Board, option: str, path: str, parameter: str, entry: dict[str, Any], policy: str | None
) -> None:
    board.apply([entry], **FOR_NOW, **{option: True})
    left = [dict(entry, policy=policy)] if policy else []
    stays = [
        f"{parameter} stays Y: its previous value is unknown. Set `{option}: false` to turn it off"
    ]
    assert board.check(left, **FOR_NOW).unsafe_kept == stays
    outcome = board.apply(left, **FOR_NOW)
    assert outcome.unsafe_kept == stays
    assert board.apply(left, **FOR_NOW).unsafe_kept == stays
    assert board.kernel.read(path) == "Y"


@pytest.mark.parametrize(("option", "path", "parameter", "entry"), UNSAFE)
def test_it_is_turned_off_without_persistence_if_that_is_asked_for(
    board: Board, option: str, path: str, parameter: str, entry: dict[str, Any]
) -> None:
    name = "b000000.crypto" if entry is CRYPTO else "b002000.dma"
    board.apply([entry], **FOR_NOW, **{option: True})
    off = {**FOR_NOW, option: False}
    # The device is bound still: nothing has recorded that this list claimed it.
    (kept,) = board.apply([], **off).unsafe_kept
    assert kept.startswith(f"{parameter} stays Y: platform/{name}")
    native = [dict(entry, policy="default")]
    assert board.check(native, **off).unsafe_kept == []
    outcome = board.apply(native, **off)
    assert outcome.unsafe_kept == []
    assert board.kernel.read(path) == "N"
    assert not board.apply(native, **off).is_changed
    board.kernel.write(path, "Y")
    assert board.apply([], **off).is_changed
    assert board.kernel.read(path) == "N"


@pytest.mark.parametrize(("option", "path", "parameter", "entry"), UNSAFE)
def test_what_is_configured_on_the_host_is_not_told_without_persistence(
    board: Board, option: str, path: str, parameter: str, entry: dict[str, Any]
) -> None:
    module, _dot, name = parameter.partition(".")
    board.write_file(OTHERS, f"options {module} {name}=1\n")
    board.apply([entry], **FOR_NOW, **{option: True})
    assert board.apply([], **FOR_NOW).unsafe_kept == []
    assert board.kernel.read(path) == "Y"


def test_nothing_is_told_of_what_is_off_or_left_to_the_next_boot(board: Board) -> None:
    assert board.apply([CRYPTO], **FOR_NOW).unsafe_kept == []
    assert board.apply([], **FOR_NOW).unsafe_kept == []
    board.kernel.write(INTERRUPTS, "Y")
    assert board.apply([], runtime=False).unsafe_kept == []


def test_what_somebody_had_turned_on_stays_on(board: Board) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.kernel.write(INTERRUPTS, "Y")
    board.apply([CRYPTO], **ALLOWED)
    outcome = board.apply([])
    assert board.kernel.read(INTERRUPTS) == "Y"
    assert outcome.unsafe_kept == [
        STAYS + "it was Y before a list with `unsafe_interrupts: true` was applied"
    ]


def test_what_a_file_of_others_turns_on_is_its_value_of_before(board: Board) -> None:
    board.write_file(OTHERS, OPTION)
    board.kmod.options["vfio_iommu_type1"] = {"allow_unsafe_interrupts": "1"}
    board.apply([CRYPTO], **ALLOWED)
    board.apply([])
    assert board.kernel.read(INTERRUPTS) == "Y"


def test_a_file_of_others_with_another_value_is_refused(board: Board) -> None:
    board.write_file("/etc/modprobe.d/zz.conf", OPTION.replace("=1", "=0"))
    (sentence,) = board.refused([CRYPTO], **ALLOWED)
    assert "allow_unsafe_interrupts=0, but this list sets it to 1 at each boot" in sentence
    assert "or omit `unsafe_interrupts`" in sentence


def test_it_is_off_after_the_rollout_that_turned_it_on_is_rolled_back(board: Board) -> None:
    board.apply([CRYPTO], **NO_RESET)
    board.apply([CRYPTO], rollout="one", **ALLOWED)
    isolate(board, "/soc/crypto@b000000")
    board.apply([], rollout="one", restores=True)
    assert board.kernel.read(INTERRUPTS) == "N"


def test_a_list_that_gives_a_device_without_isolation_to_vfio_is_warned(board: Board) -> None:
    predicted = board.check([CRYPTO, AMBA], **NO_RESET)
    outcome = board.apply([CRYPTO, AMBA], **NO_RESET)
    (warning,) = reported(outcome)
    assert reported(predicted) == [warning]
    assert "/soc/crypto@b000000" in warning
    assert "/soc/blob@b008000" in warning
    assert "set `unsafe_interrupts: true`" in warning
    assert FROM_BOOT_ON not in warning
    assert reported(board.apply([CRYPTO, AMBA], **NO_RESET)) == []


@pytest.mark.parametrize(
    ("table", "version", "is_warned"),
    [
        (gicv2(MSI_FRAME), "6.12.0", True),
        (gicv2(MSI_FRAME), "6.1.0", True),
        (gicv3(), "6.12.0", True),
        (gicv3(TRANSLATOR), "6.12.0", True),
        (gicv3(TRANSLATOR), "6.1.0", False),
    ],
    ids=range(5),
)
def test_so_is_one_with_a_device_that_acpi_describes(
    board: Board, table: bytes, version: str, is_warned: bool
) -> None:
    path = "\\_SB_.VR00"
    board.kernel.add_device("LNRO0005:00", acpi=(path, "LNRO0005"), iommus=True)
    behind = iort(its_group(), smmu(), component(path, Mapping(1, flags=SINGLE)))
    for name, content in (("APIC", table), ("IORT", behind)):
        board.kernel.put(f"{TABLES}/{name}", content)
    banner = board.files_root / "proc/version"
    banner.parent.mkdir(parents=True, exist_ok=True)
    banner.write_text(f"Linux version {version} (acme@acme) (gcc 14) #1 SMP\n")
    warnings = reported(board.apply([{"acpi_path": path, "policy": "vfio"}], **NO_RESET))
    assert [path in warning for warning in warnings] == [True] * is_warned


def test_only_devices_that_containers_refuse_are_named(board: Board) -> None:
    isolate(board, "/soc/crypto@b000000")
    entries = [CRYPTO, PLAIN, dict(DMA, name="b003000.dma"), AMBA]
    (warning,) = reported(board.apply(entries, unsafe_noiommu=True, **NO_RESET))
    assert "/soc/blob@b008000" in warning
    assert "crypto" not in warning
    assert "dma" not in warning


def test_of_what_only_the_kernel_knows_nothing_is_said(board: Board) -> None:
    board.kernel.put(f"{TREE}/soc/crypto@b000000/msi-parent", struct.pack(">I", 9))
    assert reported(board.apply([CRYPTO], **NO_RESET)) == []


@pytest.mark.parametrize("asked", [True, False])
def test_a_list_that_decides_is_not_warned(board: Board, asked: bool) -> None:
    assert reported(board.apply([CRYPTO], **NO_RESET, unsafe_interrupts=asked)) == []


def test_a_value_that_the_next_boot_loses_is_a_warning(board: Board) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.kernel.write(INTERRUPTS, "Y")
    (warning,) = reported(board.apply([CRYPTO], **NO_RESET))
    assert FROM_BOOT_ON in warning
    assert reported(board.apply([dict(AMBA)], persistent=False)) == []


def test_a_value_that_others_set_at_each_boot_is_enough(board: Board) -> None:
    board.write_file(OTHERS, OPTION)
    board.kmod.options["vfio_iommu_type1"] = {"allow_unsafe_interrupts": "1"}
    assert reported(board.apply([CRYPTO], **NO_RESET)) == []


def test_a_list_for_the_next_boot_alone_is_warned_of_that_boot(board: Board) -> None:
    (warning,) = reported(board.apply([CRYPTO], runtime=False, **NO_RESET))
    assert FROM_BOOT_ON in warning


def test_turning_it_off_for_a_list_that_keeps_its_device_is_a_warning(board: Board) -> None:
    board.apply([CRYPTO], **ALLOWED)
    outcome = board.apply([CRYPTO], **NO_RESET)
    assert board.kernel.read(INTERRUPTS) == "Y"
    assert "platform/b000000.crypto is bound to VFIO" in outcome.unsafe_kept[0]
    (warning,) = reported(outcome)
    assert FROM_BOOT_ON in warning


CONTAINERS = "and user space cannot open devices through a container"
BUILT_IN = "is built into this kernel, so modprobe.d does not set its parameters at boot"


def test_a_module_that_is_built_in_is_set_by_the_command_line(board: Board) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.kernel.remove("module/vfio_iommu_type1/initstate")
    outcome = board.apply([CRYPTO], **ALLOWED)
    assert board.kernel.read(INTERRUPTS) == "Y"
    (warning,) = [text for text in outcome.warnings if BUILT_IN in text]
    assert "Add vfio_iommu_type1.allow_unsafe_interrupts=1 to the kernel command line" in warning
    path = board.files_root / "proc/cmdline"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("quiet vfio_iommu_type1.allow_unsafe_interrupts=1\n")
    again = board.apply([CRYPTO], **ALLOWED)
    assert [text for text in again.warnings if BUILT_IN in text] == []


@pytest.mark.parametrize(
    ("line", "is_reported"),
    [
        ("install vfio_iommu_type1 /bin/false", True),
        ("install vfio-iommu-type1 /bin/true", True),
        ("alias vfio_iommu_type1 off", True),
        ("alias vfio-iommu-type1 acme", True),
        # kmod 30 loads it all the same, for the softdep of vfio.
        ("blacklist vfio_iommu_type1", False),
        ("install vfio_iommu_type1 /sbin/modprobe --ignore-install vfio_iommu_type1", False),
        ("options vfio_iommu_type1 disable_hugepages=1", False),
        ("# install vfio_iommu_type1 /bin/false", False),
    ],
)
def test_what_keeps_containers_from_an_iommu_is_told(
    board: Board, line: str, is_reported: bool
) -> None:
    board.write_file(OTHERS, line + "\n")
    outcome = board.apply([CRYPTO], **NO_RESET)
    warnings = [warning for warning in outcome.warnings if CONTAINERS in warning]
    assert len(warnings) == is_reported
    if is_reported:
        assert warnings[0].startswith(f"{OTHERS}:1 has '{line}', so vfio_iommu_type1 is not loaded")
    assert board.kernel.driver_of("b000000.crypto") == "vfio-platform"


def test_so_is_a_value_that_the_kernel_refuses(board: Board) -> None:
    line = "options vfio_iommu_type1 disable_hugepages=maybe"
    board.write_file(OTHERS, line + "\n")
    warnings = [text for text in board.apply([CRYPTO], **NO_RESET).warnings if CONTAINERS in text]
    (warning,) = warnings
    assert warning.startswith(
        f"{OTHERS}:1 has '{line}', and the kernel refuses disable_hugepages=maybe, so "
        "vfio_iommu_type1 is not loaded"
    )


def test_a_command_that_may_load_it_is_told_as_such(board: Board) -> None:
    line = "install vfio_iommu_type1 /usr/local/sbin/type1"
    board.write_file(OTHERS, line + "\n")
    (warning,) = [text for text in board.apply([CRYPTO], **NO_RESET).warnings if OTHERS in text]
    reported = (
        f"{OTHERS}:1 has '{line}', so whether vfio_iommu_type1 is loaded at boot depends on that"
    )
    assert warning.startswith(reported)


@pytest.mark.parametrize("command", ["/bin/false", "/usr/local/sbin/type1"])
def test_a_list_without_an_iommu_needs_no_module_for_it(board: Board, command: str) -> None:
    board.write_file(OTHERS, f"install vfio_iommu_type1 {command}\n")
    settings = {"unsafe_noiommu": True, **NO_RESET}
    for entries in ([PLAIN], [PLAIN], [dict(CRYPTO, policy="no_autobind")], []):
        outcome = board.apply(entries, **settings)
        assert not any(OTHERS in warning for warning in outcome.warnings)


def test_device_info_shows_lines_about_the_module_of_containers(board: Board) -> None:
    board.apply([CRYPTO], **NO_RESET)
    board.write_file(OTHERS, "install vfio_iommu_type1 /bin/false\n")
    devices = {known.device.name: known for known in board.inspect(None).devices}
    assert [line.location for line in devices["b000000.crypto"].lines] == [OTHERS + ":1"]
    assert devices["b002000.dma"].lines == []
