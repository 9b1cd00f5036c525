"""Failures are reported before the first write: reset functions, signatures, IOMMUs of ACPI."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from board import CRYPTO, DMA, Board
from simulated_kernel import NOIOMMU, BoardModule

from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.acpi_iort import translates
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError

SLOT, SLOT_PATH = "LNRO0005:00", "\\_SB_.VR00"
TABLES = "firmware/acpi/tables"
NAMED_COMPONENT, SMMU = 1, 4
OTHERS = "/etc/modprobe.d/local.conf"
COMMAND_LINE = "/proc/cmdline"


def is_given(board: Board, entry: dict[str, Any], **settings: Any) -> bool:
    (outcome,) = board.apply([entry], **settings).devices
    return board.kernel.driver_of(outcome.device.name) in ("vfio-platform", "vfio-amba")


def test_a_missing_reset_function_is_known_before_the_module_is_loaded(board: Board) -> None:
    message = board.refusal([CRYPTO])
    assert "has no reset function (acme,crypto-v1)" in message
    assert "`reset_required: false`" in message


def test_what_modprobe_would_load_the_module_with_counts(board: Board) -> None:
    board.write_file(OTHERS, "options vfio_platform reset_required=0\n")
    board.kmod.options["vfio_platform"] = {"reset_required": "0"}
    assert is_given(board, CRYPTO)


def test_only_the_first_compatible_can_have_a_reset_function(board: Board) -> None:
    board.kernel.reset_functions.add("acme,crypto")
    assert "no reset function" in board.refusal([CRYPTO])
    board.kernel.reset_functions.add("acme,crypto-v1")
    assert is_given(board, CRYPTO)


# A module that is not loaded now, and what keeps modprobe from loading it.
KEPT_AWAY = [
    (OTHERS, "install vfio-platform /bin/true\n", "vfio_platform"),
    (OTHERS, "install vfio_platform /bin/false\n", "vfio_platform"),
    (OTHERS, "install vfio_platform_base echo no\n", "vfio_platform_base"),
    (OTHERS, "install vfio_plat?orm :\n", "vfio_platform"),
    (OTHERS, "alias vfio-platform off\n", "vfio_platform"),
    (COMMAND_LINE, "quiet module_blacklist=acme,vfio_platform\n", "vfio_platform"),
]


@pytest.mark.parametrize(("path", "content", "module"), KEPT_AWAY)
def test_a_module_that_modprobe_does_not_load_is_known_before_it_is_asked_to(
    board: Board, path: str, content: str, module: str
) -> None:
    board.write_file(path, content)
    message = board.refusal([CRYPTO], reset_required=False, persistent=False)
    assert f", so modprobe does not load {module}, which VFIO needs now. Remove that" in message
    assert path in message


@pytest.mark.parametrize(("path", "content", "module"), KEPT_AWAY)
def test_one_that_is_not_loaded_at_boot_either_is_named_once(
    board: Board, path: str, content: str, module: str
) -> None:
    board.write_file(path, content)
    message = board.refusal([CRYPTO], reset_required=False)
    assert f", so {module}, which this list requires, is not loaded at boot. Remove" in message
    assert "`persistent: false`" not in message
    assert "now" not in message


@pytest.mark.parametrize(
    "parameters",
    [
        # The kernel compares names as modules have them, and the last parameter counts.
        "module_blacklist=vfio-platform",
        "module_blacklist=vfio_platform module_blacklist=nouveau",
        "quiet -- module_blacklist=vfio_platform",
        "modprobe.blacklist=vfio_platform",
    ],
)
def test_other_parameters_of_the_kernel_keep_nothing_away(board: Board, parameters: str) -> None:
    board.write_file(COMMAND_LINE, parameters + "\n")
    assert is_given(board, CRYPTO, reset_required=False, persistent=False)


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("module", ["vfio_platform", "vfio"])
def test_a_value_that_the_kernel_refuses_keeps_the_module_away(
    board: Board, module: str, *, persistent: bool
) -> None:
    names = {"vfio_platform": "reset_required", "vfio": "enable_unsafe_noiommu_mode"}
    line = f"options {module} {names[module]}=2"
    board.write_file(OTHERS, f"{line}\n")
    message = board.refusal([CRYPTO], reset_required=False, persistent=persistent)
    named = f"{OTHERS}:1 has '{line}', and the kernel refuses {names[module]}=2, so "
    assert message.count(named) == 1
    what = "is not loaded at boot" if persistent else "modprobe does not load"
    assert what in message


def test_a_module_that_is_to_be_reloaded_is_loaded_again_as_well(board: Board) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "1"})
    board.kmod.calls.clear()
    board.write_file(OTHERS, "install vfio-platform /bin/true\n")
    message = board.refusal([CRYPTO], reset_required=False, persistent=False)
    assert "so modprobe does not load vfio_platform, which VFIO needs now" in message


def test_so_is_the_module_of_the_parameter_for_interrupts(board: Board) -> None:
    board.write_file(OTHERS, "install vfio_iommu_type1 /bin/true\n")
    settings = {"reset_required": False, "persistent": False, "unsafe_interrupts": True}
    message = board.refusal([CRYPTO], **settings)
    assert "so modprobe does not load vfio_iommu_type1, which VFIO needs now" in message


@pytest.mark.parametrize(
    "line",
    [
        "blacklist vfio-platform",
        "install vfio-platform /usr/local/sbin/vfio-override",
        "install vfio_platform modprobe -i vfio_platform; logger done",
        "install acme_crypto /bin/false",
    ],
)
def test_modprobe_loads_by_its_name_what_only_aliases_or_other_commands_concern(
    board: Board, line: str
) -> None:
    board.write_file(OTHERS, f"{line}\n")
    assert board.check([CRYPTO], reset_required=False, persistent=False).is_changed


def test_each_line_is_named_once(board: Board) -> None:
    board.write_file(OTHERS, "install vfio* /bin/false\n")
    (line,) = board.refusal([CRYPTO], reset_required=False, persistent=False).splitlines()
    assert "so modprobe does not load vfio_platform and vfio_platform_base, which VFIO" in line


def test_for_a_module_that_is_loaded_this_boot_alone_is_an_alternative(board: Board) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "0"})
    board.kmod.calls.clear()
    board.write_file(OTHERS, "install vfio-platform /bin/false\n")
    message = board.refusal([CRYPTO], reset_required=False)
    assert "is not loaded at boot. Remove that line or parameter, or set `persistent: f" in message


def test_a_module_that_is_loaded_is_not_asked_for(board: Board) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "0"})
    board.write_file(OTHERS, "install vfio* /bin/false\n")
    assert is_given(board, CRYPTO, reset_required=False, persistent=False)


LEFT = {
    "reset_required": (CRYPTO, "has no reset function, and the next boot requires one"),
    "unsafe_noiommu": (dict(DMA, policy="vfio"), "has no IOMMU, and the next boot requires one"),
}


def with_both_left(board: Board) -> None:
    """Leave what a list set, after it was given up: with vfio-platform loaded, nothing in files."""
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.kernel.write(NOIOMMU, "Y")
    board.kernel.writes.clear()
    board.kmod.calls.clear()
    (board.files_root / "proc").mkdir(exist_ok=True)


@pytest.mark.parametrize("runtime", [True, False])
@pytest.mark.parametrize("omitted", LEFT)
def test_a_setting_that_is_left_over_does_not_hold_at_the_next_boot(
    board: Board, omitted: str, runtime: bool
) -> None:
    with_both_left(board)
    entry, sentence = LEFT[omitted]
    settings = {"reset_required": False, "unsafe_noiommu": True, "runtime": runtime}
    message = board.refusal([entry], **{**settings, omitted: None})
    assert message.count(sentence) == 1
    assert f"`{omitted}: {str(settings[omitted]).lower()}`" in message
    assert board.check([entry], **settings).is_changed


@pytest.mark.parametrize("omitted", LEFT)
def test_a_list_for_the_next_boot_alone_needs_what_that_boot_requires(
    board: Board, omitted: str
) -> None:
    entry, sentence = LEFT[omitted]
    settings = {"reset_required": False, "unsafe_noiommu": True, "runtime": False}
    assert sentence in board.refusal([entry], **{**settings, omitted: None})
    assert board.check([entry], **settings).is_changed


@pytest.mark.parametrize("omitted", LEFT)
def test_for_this_boot_alone_a_setting_that_is_left_over_is_enough(
    board: Board, omitted: str
) -> None:
    with_both_left(board)
    entry, _sentence = LEFT[omitted]
    settings = {"reset_required": False, "unsafe_noiommu": True, "persistent": False}
    assert is_given(board, entry, **{**settings, omitted: None})


@pytest.mark.parametrize(
    ("path", "reset", "noiommu", "is_kept"),
    [
        (OTHERS, "options vfio_platform reset_required=0", "options vfio {}=1", True),
        (OTHERS, "options vfio-platform reset-required=n", "options vfio {}=Yes", True),
        (OTHERS, "options vfio_platform reset_required=off", "options vfio {}", True),
        (OTHERS, "options vfio_platform reset_required", "options vfio {}=0", False),
        (
            *(OTHERS, "options vfio_platform reset_required=0 reset_required=1"),
            *("options vfio {}=1\noptions vfio {}=0", False),
        ),
        (OTHERS, "options vfio reset_required=0", "options vfio_platform {}=1", False),
        (OTHERS, "# options vfio_platform reset_required=0", "# options vfio {}=1", False),
        (COMMAND_LINE, "quiet vfio_platform.reset_required=0", "quiet vfio.{}=1", True),
        (COMMAND_LINE, "quiet vfio_platform.reset_required=1", "quiet vfio.{}=0", False),
    ],
)
@pytest.mark.parametrize("omitted", LEFT)
def test_what_others_set_for_each_boot_counts(
    *, board: Board, omitted: str, path: str, reset: str, noiommu: str, is_kept: bool
) -> None:
    with_both_left(board)
    line = reset if omitted == "reset_required" else noiommu
    board.write_file(path, line.replace("{}", "enable_unsafe_noiommu_mode") + "\n")
    entry, sentence = LEFT[omitted]
    settings = {"reset_required": False, "unsafe_noiommu": True, omitted: None}
    if is_kept:
        assert is_given(board, entry, **settings)
    else:
        assert sentence in board.refusal([entry], **settings)


@pytest.mark.parametrize(("path", "is_kept"), [(OTHERS, False), (COMMAND_LINE, True)])
def test_a_driver_that_is_built_in_reads_no_options_of_modprobe(
    board: Board, path: str, is_kept: bool
) -> None:
    with_both_left(board)
    board.kernel.remove("module/vfio_platform/initstate")
    lines = {
        OTHERS: "options vfio_platform reset_required=0\n",
        COMMAND_LINE: "vfio_platform.reset_required=0\n",
    }
    board.write_file(path, lines[path])
    if is_kept:
        assert is_given(board, CRYPTO)
    else:
        assert LEFT["reset_required"][1] in board.refusal([CRYPTO])


def test_vfio_amba_asks_for_no_reset_function(board: Board) -> None:
    assert is_given(board, {"dt_path": "/soc/blob@b008000", "policy": "vfio"})


def test_a_reset_function_that_may_be_built_in_is_left_to_the_kernel(board: Board) -> None:
    compatible = ("amd,xgbe-seattle-v1a",)
    board.kernel.add_device("b00a000.eth", "/soc/eth@b00a000", compatible, iommus=True)
    with pytest.raises(PolicyError, match=r"(?s)ENOENT.*Nothing was changed"):
        board.apply([{"name": "b00a000.eth", "policy": "vfio"}])


def enforce_by_parameter(board: Board) -> None:
    board.kernel.put("module/module/parameters/sig_enforce", "Y\n")


def enforce_by_lockdown(board: Board) -> None:
    board.kernel.put("kernel/security/lockdown", "none [integrity] confidentiality\n")


@pytest.mark.parametrize(
    ("enforce", "reason"),
    [(enforce_by_parameter, "module.sig_enforce"), (enforce_by_lockdown, "lockdown=integrity")],
)
def test_a_module_that_the_kernel_will_not_take_is_known(
    board: Board, enforce: Any, reason: str
) -> None:
    enforce(board)
    board.kmod.without_signature |= {"vfio_platform_base", "vfio_amba"}
    message = board.refusal([CRYPTO], reset_required=False)
    assert message.startswith("Module vfio_platform_base cannot be loaded")
    assert reason in message
    assert "vfio_amba" not in message


def test_signed_modules_are_taken_and_so_is_what_is_loaded_already(board: Board) -> None:
    board.kmod.load("vfio_platform_base")
    enforce_by_lockdown(board)
    board.kmod.without_signature |= {"vfio_platform_base", "vfio"}
    assert is_given(board, CRYPTO, reset_required=False)


def test_without_lockdown_unsigned_modules_are_taken(board: Board) -> None:
    board.kernel.put("kernel/security/lockdown", "[none] integrity confidentiality\n")
    board.kernel.put("module/module/parameters/sig_enforce", "N\n")
    board.kmod.without_signature |= {"vfio_platform", "vfio"}
    assert is_given(board, CRYPTO, reset_required=False)


@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_kernel_without_noiommu_is_known(board: Board, is_loaded: bool) -> None:
    board.kmod.modules["vfio"] = BoardModule(name="vfio")
    if is_loaded:
        board.kmod.load("vfio-platform", {"reset_required": "N"})
        board.kmod.calls.clear()
    entry = {"name": "b002000.dma", "policy": "vfio"}
    message = board.refusal([entry], reset_required=False, unsafe_noiommu=True)
    assert "CONFIG_VFIO_NOIOMMU" in message


def node(kind: int, name: bytes = b"", mappings: int = 0) -> bytes:
    """Return a node of an IORT as defined in include/acpi/actbl2.h."""
    content = struct.pack("<IQB", 0, 0, 64) + name + b"\0" if kind == NAMED_COMPONENT else bytes(60)
    head = struct.pack("<BHBIII", kind, 16 + len(content), 0, 0, mappings, 16 + len(content))
    return head + content


def iort(*nodes: bytes) -> bytes:
    return bytes(36) + struct.pack("<III", len(nodes), 48, 0) + b"".join(nodes)


@pytest.fixture
def acpi(board: Board) -> Board:
    """A board with an ACPI device that was never probed."""
    board.kernel.add_device(SLOT, acpi=(SLOT_PATH, "LNRO0005"))
    return board


BEHIND = node(NAMED_COMPONENT, SLOT_PATH.encode(), mappings=1)
NOT_BEHIND = node(NAMED_COMPONENT, SLOT_PATH.encode())
ANOTHER = node(NAMED_COMPONENT, b"\\_SB_.VR01", mappings=1)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (iort(node(SMMU), ANOTHER, BEHIND), True),
        (iort(node(SMMU), ANOTHER), False),
        (iort(NOT_BEHIND), False),
        (iort(ANOTHER, BEHIND)[:-30], False),
        (b"", False),
        (None, False),
    ],
)
def test_acpi_devices_behind_an_iommu_are_those_of_its_table(
    acpi: Board, table: bytes | None, expected: bool
) -> None:
    if table is not None:
        acpi.kernel.put(f"{TABLES}/IORT", table)
    assert translates(acpi.kernel, SLOT_PATH) is expected


def test_an_acpi_device_without_an_iommu_is_known(acpi: Board) -> None:
    entry = {"acpi_hid": "LNRO0005", "policy": "vfio"}
    message = acpi.refusal([entry])
    assert f"{SLOT_PATH} (platform device {SLOT}) has no IOMMU group" in message
    assert "IORT names no IOMMU" in message
    assert "`unsafe_noiommu: true`" in message


def test_with_another_table_of_iommus_it_is_left_to_the_kernel(acpi: Board) -> None:
    acpi.kernel.put(f"{TABLES}/VIOT", b"")
    assert translates(acpi.kernel, SLOT_PATH) is None


@pytest.mark.parametrize("runtime", [True, False])
def test_a_device_that_the_kernel_made_by_itself_is_not_for_vfio(
    board: Board, runtime: bool
) -> None:
    board.kernel.add_device("serial8250", None, ())
    settings = {"reset_required": False, "unsafe_noiommu": True, "runtime": runtime}
    message = board.refusal([{"name": "serial8250", "policy": "vfio"}], **settings)
    assert message.count("neither a compatible nor an ACPI node") == 1
    assert is_given(board, dict(DMA, policy="vfio"), reset_required=False, unsafe_noiommu=True)
