"""The boot files have the exact text, the effect in udev, and no text that udev would expand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from board import AMBA, CRYPTO, DMA, LIST, Board, acme_board
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_kernel import DeviceEvent, Driver, coldplug

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODPROBE,
    MODULES_LOAD,
    RULES,
    BootPlan,
    LastApplied,
    check_access,
    not_ours,
    parse_header,
    to_mapping,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.matched_devices import (
    matched_devices,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.udev_rules import render
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import (
    AUTO,
    NEVER,
    Options,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import (
    Entry,
    parse_entries,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import KINDS
from extensions.simulator.udev import parse

MIXED: list[dict[str, Any]] = [
    {"dt_path": "/soc/crypto@b000000", "policy": "vfio"},
    {"dt_path": "dma1", "policy": "no_autobind"},
    {"compatible": "acme,ring", "expect": 2, "policy": "vfio"},
    {"acpi_path": "\\_SB_.VR00", "required": False, "policy": "vfio", "tag": "left-ring"},
    {"acpi_hid": "LNRO0005", "required": False, "policy": "no_autobind"},
    {"name": "b004000.ethernet", "bus": "platform", "policy": "driver", "driver": "acme-uio"},
    {"name": "soc:keys", "policy": "default"},
]


def boot_plan(entries: list[dict[str, Any]], **more: Any) -> BootPlan:
    parsed = parse_entries(entries)
    plan = BootPlan(
        parsed,
        [entry.selector.for_boot({}) for entry in parsed],
        natives={},
        buses=[],
        modules={},
    )
    return plan._replace(**more)


def mixed() -> dict[str, str | None]:
    return render(
        boot_plan(
            MIXED,
            natives={"platform/b004000.ethernet": None, "/soc/crypto@b000000": "acme-crypto"},
            buses=["platform", "amba"],
            modules={"acme-uio": "acme"},
            options=Options(VfioSettings(False), NodeAccess("kvm", "0660")),
        )
    )


def test_module_options_and_modules_to_load_are_rendered_to_this_very_text() -> None:
    head = (
        "# Written by armfleet.vfio.host_policy. Do not edit: the next run replaces this file.\n"
        f"# The policy list is in {RULES}.\n"
    )
    assert mixed()[MODPROBE] == (head + "options vfio_platform reset_required=0\n")
    assert mixed()[MODULES_LOAD] == head + "vfio-amba\nvfio-platform\n"


def test_settings_that_are_not_asked_for_are_not_written_down() -> None:
    assert render(boot_plan(MIXED))[MODPROBE] is None
    assert render(boot_plan(MIXED))[MODULES_LOAD] is None
    on = render(boot_plan(MIXED, options=Options(VfioSettings(True, False))))[MODPROBE] or ""
    assert on.endswith("reset_required=1\noptions vfio enable_unsafe_noiommu_mode=0\n")


def test_an_empty_list_has_no_files() -> None:
    empty = boot_plan([], options=Options(VfioSettings(True, True)), natives={"/x": "y"})
    assert render(empty) == {RULES: None, MODPROBE: None, MODULES_LOAD: None}


def test_a_list_of_defaults_has_a_header_and_no_rule() -> None:
    text = render(boot_plan([MIXED[6]]))[RULES] or ""
    assert parse(text) == []
    assert parse_header(text).entries == parse_entries([MIXED[6]])


def test_an_entry_that_no_rule_can_match_is_remembered_without_a_rule() -> None:
    text = render(boot_plan([CRYPTO], resolved=[None]))[RULES] or ""
    assert parse(text) == []
    assert len(parse_header(text).entries) == 1


SEGMENT = st.text("abcXYZ019,._+@#-", min_size=1, max_size=12).filter(
    lambda text: text not in (".", "..")
)
DRIVER = st.text("abcXYZ019,._+#-", min_size=1, max_size=12).filter(
    lambda text: text not in (".", "..")
)
VALUES = {
    "dt_path": st.lists(SEGMENT, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    "compatible": st.text("abcXYZ019,._+/#-", min_size=1, max_size=20),
    "acpi_path": st.lists(st.text("ABCXYZ_", min_size=4, max_size=4), min_size=1).map(
        lambda parts: "\\" + ".".join(parts)
    ),
    "acpi_hid": st.text("ABC019", min_size=3, max_size=8),
    "pci_address": st.builds(
        "{:04x}:{:02x}:{:02x}.{}".format, *map(st.integers, (0, 0, 0, 0), (65535, 255, 31, 7))
    ),
    "pci_id": st.one_of(
        *(
            st.lists(st.integers(0, 65535), min_size=parts, max_size=parts).map(
                lambda numbers: ":".join(f"{number:04x}" for number in numbers)
            )
            for parts in (2, 4)
        )
    ),
    "name": st.one_of(
        SEGMENT,
        st.text("abc019,._+@#- !$%&'()<=>;^`~:", min_size=1, max_size=12).filter(
            lambda text: text not in (".", "..") and text == text.strip()
        ),
    ),
}
SELECTORS = st.sampled_from(KINDS).flatmap(
    lambda kind: VALUES[kind].map(lambda value: {kind: value})
)
SAID = st.one_of(
    st.sampled_from(["vfio", "no_autobind", "default"]).map(lambda kind: {"policy": kind}),
    st.text("abcXYZ019._-", min_size=1, max_size=64)
    .filter(lambda tag: tag[0] not in ".-")
    .map(lambda tag: {"policy": "vfio", "tag": tag}),
    DRIVER.map(lambda name: {"policy": "driver", "driver": name}),
)
ENTRIES = st.lists(
    st.builds(
        lambda selector, said, expect, required: {
            **selector,
            **said,
            **({"expect": expect} if expect else {}),
            **({} if required else {"required": False}),
        },
        SELECTORS,
        SAID,
        st.one_of(st.none(), st.integers(1, 99)),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda entry: entry.get("tag") or id(entry),
)
OPTIONS = st.builds(
    Options,
    st.builds(VfioSettings, *[st.sampled_from([None, True, False])] * 2),
    st.sampled_from([None, NodeAccess("kvm", None), NodeAccess("kvm", "0660")]),
    st.sampled_from([AUTO, NEVER]),
)
NATIVES = st.dictionaries(VALUES["dt_path"], st.one_of(st.none(), DRIVER), max_size=3)


PCI_IDS = st.dictionaries(VALUES["dt_path"], st.just("8086:10d3:8086:a01f"), max_size=3)


@given(ENTRIES)
@settings(max_examples=60)
def test_each_property_of_ours_is_set_before_a_claim_compares_it(
    entries: list[dict[str, Any]],
) -> None:
    text = render(boot_plan(entries))[RULES]
    is_set = set()
    for rule in (text or "").splitlines():
        compared = set(re.findall(r"ENV\{(\.armfleet_vfio_\w+)\}[=!]=", rule))
        if 'ENV{ARMFLEET_VFIO_POLICY}="' in rule:
            assert compared <= is_set
        is_set |= set(re.findall(r"ENV\{(\.armfleet_vfio_\w+)\}=", rule)) - compared


@given(ENTRIES, NATIVES, OPTIONS, PCI_IDS)
@settings(max_examples=60)
def test_what_the_header_says_is_what_was_written(
    entries: list[dict[str, Any]],
    natives: dict[str, str | None],
    options: Options,
    pci_ids: dict[str, str],
) -> None:
    plan = boot_plan(entries, natives=natives, options=options, pci_ids=pci_ids)
    text = render(plan)[RULES]
    assert parse_header(text) == LastApplied(
        parse_entries(entries), natives, options, pci_ids=pci_ids
    )
    assert [to_mapping(entry) for entry in parse_entries(entries)] == entries
    assert not_ours(RULES, text) == []


def test_no_line_is_too_long_for_udev_however_many_functions_there_are() -> None:
    names = [f"pci/0000:{bus:02x}:{slot:02x}.0" for bus in range(64) for slot in range(32)]
    recorded = {
        "natives": dict.fromkeys(names, "mlx5_core"),
        "pci_ids": dict.fromkeys(names, "15b3:101e:15b3:0058"),
        "numvfs_before": dict.fromkeys(names, 0),
    }
    entries = parse_entries([{"pci_id": "15b3:101e", "policy": "vfio"}])
    devices = [Identity(*name.split("/"), pci_id=("15b3:101e",)) for name in names]
    text = render(
        boot_plan(
            [{"pci_id": "15b3:101e", "policy": "vfio"}],
            matched=[matched_devices(devices)],
            **recorded,
        )
    )[RULES]
    assert max(map(len, (text or "").splitlines())) < 16384
    read = parse_header(text)
    assert read.entries == entries
    assert {field: getattr(read, field) for field in recorded} == recorded
    # Earlier versions wrote one line.
    before = '# pci ids: {"pci/a": "x", "pci/b": "y"}\n'
    assert parse_header(f"{text}{before}").pci_ids == {
        **recorded["pci_ids"],
        "pci/a": "x",
        "pci/b": "y",
    }


# Patterns of names from firmware that the rules must not pass to a command.
ODD_NAMES = (
    "*[!0-9A-Za-z/,._+@#-]*",
    "?*[!0-9A-Z_.]*",
    "*[!0-9A-Za-z:,._+@#-]*",
    "*[!0-9A-Za-z/:,._+@#~! -]*",
    "*[!0-9]*",
    "?*",
    "of:N????TC*",
)


@given(ENTRIES)
@settings(max_examples=60)
def test_whatever_the_list_says_the_rules_are_rules(entries: list[dict[str, Any]]) -> None:
    text = render(boot_plan(entries, options=Options(access=NodeAccess("kvm", None))))[RULES] or ""
    for rule in parse(text):
        # The rules choose the files of TEST and PROGRAM, which use udev's substitutions.
        matches = [
            token._replace(value=token.value.replace(" of:N????T*C", " *C"))
            for token in rule
            if token.operator in ("==", "!=")
            and token.key not in ("TEST", "PROGRAM")
            and token.value not in ODD_NAMES
        ]
        values = [token.value for token in matches]
        assert not any(set(value) & set('[]?"') for value in values)
        # The kernel allows these in names, and udev substitutes nothing in a match.
        assert not any(set(token.value) & set("$%") for token in matches if token.key != "KERNEL")
        globs = [value for value in values if "*" in value]
        ours = (
            r"\* ([^*|]+) \*(\| \*C\1 \| \*C\1C\*)?|\*\.auto|/\*|[a-z|-]+\|\*-vfio-pci\|\*_vfio_pci"
        )
        assert all(re.fullmatch(ours, value) for value in globs)


@given(
    st.sampled_from(KINDS),
    st.text(max_size=10),
    st.sampled_from(
        ["\n", '"', "$env{X}", "%k", "*", "|", "\\", "'", "\0", "\r", "\x85", "\u2028"]
    ),
    st.text(max_size=10),
)
@settings(max_examples=150)
def test_a_nasty_name_never_reaches_a_file(kind: str, left: str, nasty: str, right: str) -> None:
    said = left + nasty + right
    for entry in (
        {kind: said, "policy": "vfio"},
        {"name": "x", "policy": "driver", "driver": said},
        {"name": "x", "policy": "vfio", "tag": said},
    ):
        try:
            parsed = parse_entries([entry])
        except PolicyError:
            continue
        assert isinstance(parsed[0], Entry)
        # A match of udev has no substitutions, and commands never get such a name.
        assert (kind, nasty) in {("acpi_path", "\\"), ("name", "%k"), ("name", "'")}


@pytest.mark.parametrize(
    ("group", "mode"),
    [
        ('kvm"', None),
        ("kvm\n", None),
        ("", None),
        ("$x", None),
        ("a b", None),
        ("-x", None),
        (None, "432"),
        (None, "660"),
        (None, "0999"),
        (None, "rw"),
        (None, "0660\n"),
        (None, ""),
        (None, "10660"),
    ],
)
def test_a_group_or_mode_that_is_none_is_refused(group: str | None, mode: str | None) -> None:
    with pytest.raises(PolicyError, match=r"vfio_(group|mode)"):
        check_access(group, mode)


def test_group_and_mode_are_each_optional() -> None:
    assert check_access(None, None) is None
    assert check_access("kvm", None) == NodeAccess("kvm", None)
    assert check_access(None, "0660") == NodeAccess(None, "0660")


def test_a_file_of_others_is_known_as_such() -> None:
    assert not_ours(RULES, None) == []
    assert len(not_ours(RULES, "# rules\n")) == 1
    assert len(not_ours(RULES, "")) == 1
    assert parse_header(None) == LastApplied([], {})


@pytest.mark.parametrize("entries", [MIXED, [CRYPTO], [DMA], [{**AMBA, "required": False}], LIST])
def test_udevadm_takes_the_rules(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    udevadm = shutil.which("udevadm")
    if udevadm is None:
        pytest.skip("udevadm is not installed here")
    if subprocess.run([udevadm, "verify", "--help"], capture_output=True, check=False).returncode:
        pytest.skip("udevadm has no 'verify' before systemd 254")
    text = render(boot_plan(entries, options=Options(access=NodeAccess("root", "0660"))))[RULES]
    rules = tmp_path / "70-armfleet-vfio.rules"
    rules.write_text(text or "")
    command = [udevadm, "verify", "--resolve-names=never", str(rules)]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def rebooted(board: Board, root: Path) -> Board:
    """Return the machine after a reboot, with its boot files applied by udev and modprobe."""
    root.mkdir()
    again = acme_board(root)
    again.kmod.options = board.kmod.options
    for line in (board.file(MODPROBE) or "").splitlines():
        if line.startswith("options "):
            _options, module, setting = line.split()
            name, value = setting.split("=")
            again.kmod.options.setdefault(module, {})[name] = value
    for path in (RULES, MODPROBE, MODULES_LOAD):
        content = board.file(path)
        if content is not None:
            again.write_file(path, content)
    for line in (board.file(MODULES_LOAD) or "").splitlines():
        if not line.startswith("#"):
            again.kmod.load(line)
    coldplug(again.kernel, again.kmod, board.file(RULES) or "")
    return again


def booted(root: Path) -> Board:
    """Return the board after boot, with the modules that udev loads for devices."""
    root.mkdir()
    board = acme_board(root)
    coldplug(board.kernel, board.kmod, "")
    return board


BOOTED: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    (LIST, {"reset_required": False}),
    (
        [{"name": "b002000.dma", "policy": "vfio"}],
        {"reset_required": False, "unsafe_noiommu": True},
    ),
    ([{"dt_path": "crypto0", "policy": "no_autobind"}], {}),
    ([{"name": "b008000.blob", "bus": "amba", "policy": "vfio"}], {}),
    ([{"compatible": "acme,crypto-v1", "policy": "driver", "driver": "acme-dma-uio"}], {}),
    ([{"acpi_hid": "LNRO0005", "required": False, "policy": "vfio"}], {}),
    ([{"name": "b002000.dma", "policy": "default"}], {}),
]


@pytest.mark.parametrize(("entries", "asked"), BOOTED)
@pytest.mark.parametrize("runtime", [True, False])
def test_after_a_reboot_every_device_is_as_at_run_time(
    tmp_path: Path, entries: list[dict[str, Any]], asked: dict[str, Any], runtime: bool
) -> None:
    board = booted(tmp_path / "now")
    board.apply(entries, **asked)
    now = board.kernel.bindings()
    if not runtime:
        board = booted(tmp_path / "before")
        board.apply(entries, runtime=False, **asked)
    again = rebooted(board, tmp_path / "again")
    assert again.kernel.bindings() == now
    again.kernel.writes.clear()
    if runtime:
        assert not again.apply(entries, **asked).is_changed
        assert not again.kernel.writes


@pytest.mark.parametrize(("entries", "asked"), BOOTED)
def test_events_that_come_again_change_nothing(
    tmp_path: Path, entries: list[dict[str, Any]], asked: dict[str, Any]
) -> None:
    board = booted(tmp_path / "now")
    board.apply(entries, **asked)
    now = board.kernel.bindings()
    board.kernel.held_open |= set(board.nodes())
    board.kernel.writes.clear()
    coldplug(board.kernel, board.kmod, board.file(RULES) or "")
    assert board.kernel.bindings() == now
    assert not [path for path, _text in board.kernel.writes if path.endswith("/unbind")]


def test_after_everything_was_given_back_a_reboot_finds_native_drivers(tmp_path: Path) -> None:
    board = booted(tmp_path / "now")
    native = board.kernel.bindings()
    board.apply(LIST, reset_required=False)
    board.apply([])
    assert rebooted(board, tmp_path / "again").kernel.bindings() == native


@pytest.mark.parametrize("later", [{}, {"reset_required": False}, {"unsafe_noiommu": True}])
@pytest.mark.parametrize("entry", [CRYPTO, dict(DMA, policy="vfio")])
def test_what_a_list_takes_with_the_settings_of_an_earlier_one_it_takes_at_boot_too(
    tmp_path: Path, entry: dict[str, Any], later: dict[str, Any]
) -> None:
    board = booted(tmp_path / "now")
    others = {"name": "b003000.dma", "policy": "vfio"}
    board.apply([entry, others], reset_required=False, unsafe_noiommu=True)
    try:
        board.apply([entry], **later)
    except PolicyError:
        return
    now = board.kernel.bindings()
    assert rebooted(board, tmp_path / "again").kernel.bindings() == now


def test_what_was_given_at_boot_only_can_be_given_back_at_run_time(tmp_path: Path) -> None:
    board = booted(tmp_path / "now")
    native = board.kernel.bindings()
    board.apply(LIST, runtime=False, reset_required=False)
    again = rebooted(board, tmp_path / "again")
    assert not again.apply(LIST, reset_required=False).is_changed
    again.apply([])
    assert again.kernel.bindings() == native


def test_a_native_driver_whose_module_comes_late_does_not_get_the_device(
    board: Board, tmp_path: Path
) -> None:
    entries = [{"dt_path": "/soc/ethernet@e0700000", "policy": "vfio"}]
    board.apply(entries, reset_required=False)
    again = rebooted(board, tmp_path / "again")
    again.kmod.load("acme_eth")
    assert again.kernel.driver_of("b004000.ethernet") == "vfio-platform"


def test_a_sibling_of_the_same_type_is_not_caught_at_boot(board: Board, tmp_path: Path) -> None:
    board.apply([CRYPTO], reset_required=False)
    again = rebooted(board, tmp_path / "again")
    assert again.kernel.binding("b001000.crypto") == ("acme-crypto", None)


def test_a_helper_device_that_shares_the_node_is_not_caught_at_boot(board: Board) -> None:
    board.apply([{**LIST[0], "expect": None}], reset_required=False)
    board.kernel.add_device("helper.0.auto", "/soc/crypto@b000000", ("acme,crypto",))
    before = board.kernel.binding("helper.0.auto")
    coldplug(board.kernel, board.kmod, board.file(RULES) or "")
    assert board.kernel.binding("helper.0.auto") == before


ODD_BUT_LEGAL = ["Fixed MDIO bus.0", "a!b", "it's 100% (a) = $b", "$kernel", "%k", "a b!c d"]


@pytest.mark.parametrize("name", ODD_BUT_LEGAL)
@pytest.mark.parametrize("policy", ["no_autobind", "driver"])
def test_a_name_that_the_kernel_allows_is_the_same_at_run_time_and_at_boot(
    tmp_path: Path, name: str, policy: str
) -> None:
    boards = []
    for start in ("now", "again"):
        board = acme_board(tmp_path / start)
        for other in dict.fromkeys((name, name + "0", "0" + name, name.replace("!", "?"))):
            board.kernel.add_device(other)
        board.kernel.register(Driver("by-name", devices=(name,)))
        assert board.kernel.driver_of(name) == "by-name"
        boards.append(board)
    now, again = boards
    pinned = {"driver": "acme-dma-uio"} if policy == "driver" else {}
    entries = [{"name": name, "bus": "platform", "policy": policy, **pinned}]
    now.apply(entries)
    bound = (pinned.get("driver"), pinned.get("driver", "none"))
    assert now.kernel.binding(name) == bound
    assert not now.apply(entries).is_changed
    before = again.kernel.bindings()
    coldplug(again.kernel, again.kmod, now.file(RULES) or "")
    after = again.kernel.bindings()
    # udev loads this module at each boot.
    assert {device for device in after if after[device] != before[device]} == {
        *(name, "b004000.ethernet")
    }
    assert after[name] == bound
    now.apply([])
    assert now.kernel.binding(name) == ("by-name", None)


@pytest.mark.parametrize("parent", [None, "Fixed MDIO bus.0"])
def test_a_device_with_blanks_in_its_path_has_links_at_boot(
    board: Board, parent: str | None
) -> None:
    if parent:
        board.kernel.add_device(parent)
    name = "bus 1.crypto"
    board.kernel.add_device(name, "/soc/bus@1", ("acme,bus",), iommus=True, parent=parent)
    entries = [{"name": name, "policy": "vfio", "tag": "mdio"}]
    board.apply(entries, reset_required=False)
    links = {
        path: board.files_root.joinpath(path[1:])
        for path in ("/dev/vfio/by-path/soc:bus@1", "/dev/vfio/by-tag/mdio")
    }
    targets = {path: os.readlink(link) for path, link in links.items()}
    for link in links.values():
        link.unlink()
    coldplug(board.kernel, board.kmod, board.file(RULES) or "")
    assert {path: os.readlink(link) for path, link in links.items()} == targets


def test_a_name_with_a_quote_reaches_no_command(board: Board) -> None:
    name = "it's"
    board.kernel.add_device(name, "/soc/bus@1", ("acme,bus",), iommus=True)
    board.apply([{"name": name, "policy": "vfio", "tag": "mdio"}], reset_required=False)
    event = DeviceEvent(board.kernel, board.kmod, name, "add")
    event.run(board.file(RULES) or "")
    assert not event.programs


def acpi_board(root: Path) -> Board:
    """Return a board with devices of ACPI, some of them described by compatibles."""
    board = acme_board(root)
    for number, uid in enumerate(["0", "00", "CPU 0", None]):
        acpi = (f"\\_SB_.RNG{number}", "ACME0001")
        board.kernel.add_device(f"ACME0001:0{number}", acpi=acpi, uid=uid)
    for number, compatible in enumerate(
        [("acme,engine",), ("acme,engine-v1", "acme,engine", "acme,base"), ("acme,engine-v1",)]
    ):
        board.kernel.add_device(
            f"PRP0001:0{number}", acpi=(f"\\_SB_.ENG{number}", "PRP0001"), compatible=compatible
        )
    board.kernel.add_device(
        "ACME0002:00", acpi=("\\_SB_.ENG9", "ACME0002"), compatible=("acme,base", "acme,engine")
    )
    board.kernel.add_device("helper.0.auto", acpi=("\\_SB_.ENG1", "PRP0001"))
    return board


@pytest.mark.parametrize(
    ("selector", "meant"),
    [
        ({"acpi_hid": "ACME0001", "acpi_uid": "0"}, {"ACME0001:00"}),
        ({"acpi_hid": "ACME0001", "acpi_uid": "00"}, {"ACME0001:01"}),
        ({"acpi_hid": "ACME0001", "acpi_uid": "CPU 0"}, {"ACME0001:02"}),
        ({"acpi_hid": "ACME0001"}, {f"ACME0001:0{number}" for number in range(4)}),
        ({"compatible": "acme,engine"}, {"PRP0001:00", "PRP0001:01", "ACME0002:00"}),
        ({"compatible": "acme,engine-v1"}, {"PRP0001:01", "PRP0001:02"}),
        ({"compatible": "acme,base"}, {"PRP0001:01", "ACME0002:00"}),
        ({"compatible": "acme,eng", "required": False}, set()),
        ({"compatible": "engine", "required": False}, set()),
        ({"compatible": "acme,crypto"}, {"b000000.crypto", "b001000.crypto"}),
    ],
)
def test_devices_of_acpi_are_the_same_at_run_time_and_at_boot(
    tmp_path: Path, selector: dict[str, Any], meant: set[str]
) -> None:
    now, again = acpi_board(tmp_path / "now"), acpi_board(tmp_path / "again")
    now.apply([{**selector, "policy": "no_autobind"}])
    coldplug(again.kernel, again.kmod, now.file(RULES) or "")
    for board in (now, again):
        bindings = board.kernel.bindings().items()
        assert {name for name, binding in bindings if binding == (None, "none")} == meant


ODD = "b00a000.odd"
WON = [("vfio", "vfio-platform"), ("no_autobind", None)]


def claim_at_boot(board: Board, policy: str) -> str:
    """Return the rules for a device that is not bound yet, with vfio-platform loaded."""
    board.kernel.add_device(ODD, "/soc/odd@b00a000", ("acme,odd",), iommus=True)
    entries = [{"dt_path": "/soc/odd@b00a000", "policy": policy}]
    board.apply(entries, reset_required=False, runtime=False)
    board.kmod.load("vfio-platform", {"reset_required": "0"})
    return board.file(RULES) or ""


@pytest.mark.parametrize(("policy", "driver"), WON)
def test_a_native_driver_that_comes_while_the_rules_run_loses_the_device(
    board: Board, policy: str, driver: str | None
) -> None:
    rules = claim_at_boot(board, policy)
    event = DeviceEvent(board.kernel, board.kmod, ODD, "add")
    board.kernel.register(Driver("acme-odd", compatible=("acme,odd",)))
    assert board.kernel.driver_of(ODD) == "acme-odd"
    event.run(rules)
    assert board.kernel.driver_of(ODD) == driver


@pytest.mark.parametrize(("policy", "driver"), WON)
def test_a_native_driver_whose_probe_ends_after_the_rules_loses_the_device(
    board: Board, policy: str, driver: str | None
) -> None:
    rules = claim_at_boot(board, policy)
    board.kernel.register(Driver("acme-odd", compatible=("acme,odd",)))
    override = driver or "none"
    board.kernel.write(f"bus/platform/devices/{ODD}/driver_override", override)
    DeviceEvent(board.kernel, board.kmod, ODD, "bind").run(rules)
    assert board.kernel.driver_of(ODD) == driver


def test_a_driver_that_was_bound_by_hand_stays_when_its_event_comes(board: Board) -> None:
    board.apply([{"name": "b002000.dma", "policy": "no_autobind"}])
    kernel = board.kernel
    kernel.write("bus/platform/devices/b002000.dma/driver_override", "acme-dma-uio\n")
    kernel.write("bus/platform/drivers/acme-dma-uio/bind", "b002000.dma")
    for action in ("bind", "add"):
        rules = board.file(RULES) or ""
        DeviceEvent(kernel, board.kmod, "b002000.dma", action).run(rules)
        assert kernel.binding("b002000.dma") == ("acme-dma-uio", "acme-dma-uio")
