"""A selector is refused, or normalised to text without special characters."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import (
    KINDS,
    Selector,
    match,
    proper_entry,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector_entry import (
    check_driver,
    parse,
)

MODULE_UTILS = Path(__file__).parents[3] / "plugins/module_utils"

# Characters with a meaning in udev's match values or assignments, quoted strings, paths or lines.
SPECIAL = set("\"'*?[]|$%\\\n\r\t\0{}=!;&<>`()~^ ")
# An ACPI path starts with a backslash and a compatible may have a slash; see their own tests.
PLAIN = set(string.ascii_letters + string.digits + ",._+@#-:/\\")
# What the kernel allows in a name, and a match of udev takes as it is.
OF_NAMES = set(" !$%&'()<=>;^`~")

NASTY = st.one_of(
    st.text(max_size=40),
    st.text("/.\\*?|$%\"'\n\0 abz019@:,-_+#", max_size=40),
    st.builds("/{}/{}".format, st.text(max_size=8), st.sampled_from(["..", ".", "a\nb", "x"])),
    st.builds("{}{}".format, st.sampled_from(KINDS), st.characters()),
)


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("dt_path", "/soc/ethernet@e0700000", "/soc/ethernet@e0700000"),
        ("dt_path", "/proc/device-tree/soc/x@1", "/soc/x@1"),
        ("dt_path", "/sys/firmware/devicetree/base/soc/x@1", "/soc/x@1"),
        ("dt_path", "/proc/device-trees/x", "/proc/device-trees/x"),
        ("dt_path", "/gpio-keys", "/gpio-keys"),
        ("dt_path", "/cpus/cpu@0,1/l2-cache#0", "/cpus/cpu@0,1/l2-cache#0"),
        ("dt_path", "ethernet0", "ethernet0"),
        ("dt_path", "soc0/x@1", "soc0/x@1"),
        ("compatible", "arm,pl031", "arm,pl031"),
        ("compatible", "vendor,ip-1.0/b", "vendor,ip-1.0/b"),
        ("acpi_path", "\\_SB_.VR00", "\\_SB_.VR00"),
        ("acpi_path", "\\_SB.PCI0.A", "\\_SB_.PCI0.A___"),
        ("acpi_hid", "LNRO0005", "LNRO0005"),
        ("pci_address", "0000:01:00.0", "0000:01:00.0"),
        ("pci_address", "0002:ff:1f.7", "0002:ff:1f.7"),
        ("pci_address", "10000:e1:00.0", "10000:e1:00.0"),
        ("pci_id", "8086:10d3", "8086:10d3"),
        ("pci_id", "8086:10d3:8086:a01f", "8086:10d3:8086:a01f"),
        ("name", "b000000.crypto", "b000000.crypto"),
        ("name", "soc:keys", "soc:keys"),
        ("name", "platform-bus@c000000", "platform-bus@c000000"),
        ("name", "LNRO0005:1f", "LNRO0005:1f"),
        ("name", "arm-smmu-v3.0.auto", "arm-smmu-v3.0.auto"),
        ("name", "Fixed MDIO bus.0", "Fixed MDIO bus.0"),
        ("name", "virtio0.rpmsg-client-sample.-1.1024", "virtio0.rpmsg-client-sample.-1.1024"),
        ("name", "a!b", "a!b"),
        ("name", "it's 100% (a) = $b", "it's 100% (a) = $b"),
    ],
)
def test_a_good_selector_is_taken_and_normalised(kind: str, given: str, value: str) -> None:
    assert parse({kind: given}) == Selector(kind, value)


@pytest.mark.parametrize(
    ("kind", "given", "reason"),
    [
        ("pci_address", "", "its domain is missing"),
        ("pci_address", "01:00.0", "its domain is missing"),
        ("pci_address", "0000:01:00", "its function is missing"),
        ("pci_address", "0000:0A:00.0", "its letters have to be lower case"),
        ("pci_address", "0000:01:00.*", "patterns are not supported"),
        ("pci_address", "0000:01:00.?", "patterns are not supported"),
        ("pci_address", "0000:01:20.0", "a bus has devices 00 to 1f"),
        ("pci_address", "0000:01:00.8", "a device has functions 0 to 7"),
        ("pci_address", "0000:1:00.0", "it is not of the form DDDD:BB:DD.F"),
        ("pci_address", "00000:01:00.0", "it is not of the form DDDD:BB:DD.F"),
        ("pci_address", "0000:01.00:0", "it is not of the form DDDD:BB:DD.F"),
        ("pci_address", "0000:01:00.0\n", "only the digits 0 to 9 and a to f"),
        ("pci_address", "../0000:01:00.0", "only the digits 0 to 9 and a to f"),
        ("pci_address", "60.0", "YAML makes one of an address without quotes"),
        ("pci_id", "", "it has to have two or four parts, not 1"),
        ("pci_id", "8086", "it has to have two or four parts, not 1"),
        ("pci_id", "8086:10d3:8086", "it has to have two or four parts, not 3"),
        ("pci_id", "8086:10D3", "its letters have to be lower case"),
        ("pci_id", "8086:*", "patterns are not supported"),
        ("pci_id", "8086:10d", "each part has to have four digits"),
        ("pci_id", "0x8086:0x10d3", "only the digits 0 to 9 and a to f"),
        ("pci_id", "8086:10d3\n", "only the digits 0 to 9 and a to f"),
        ("dt_path", "", "root of the device tree"),
        ("dt_path", "/proc/device-tree", "root of the device tree"),
        ("dt_path", "/", "empty"),
        ("dt_path", "/soc//x", "empty"),
        ("dt_path", "/soc/x/", "empty"),
        ("dt_path", "/soc/../x", "not allowed"),
        ("dt_path", "../x", "not allowed"),
        ("dt_path", "./x", "not allowed"),
        ("dt_path", "/soc/x y", "'x y' is not a valid node name"),
        ("dt_path", "/soc/x*", "is not a valid node name"),
        ("dt_path", '/soc/x"', "is not a valid node name"),
        ("dt_path", "/soc/x\n", "is not a valid node name"),
        ("dt_path", "/soc/$kernel", "is not a valid node name"),
        ("dt_path", "/soc/%k", "is not a valid node name"),
        ("dt_path", "/soc/a|b", "is not a valid node name"),
        ("dt_path", "ethernet@0", "is not a valid node name"),
        ("compatible", "acme,*", "without patterns"),
        ("compatible", "acme crypto", "without patterns"),
        ("compatible", "", "without patterns"),
        ("compatible", "acme\n", "without patterns"),
        ("acpi_path", "_SB_.VR00", "not an absolute ACPI path"),
        ("acpi_path", "\\", "not an absolute ACPI path"),
        ("acpi_path", "\\_SB_.TOOLONG", "not an absolute ACPI path"),
        ("acpi_path", "\\_SB_..VR00", "not an absolute ACPI path"),
        ("acpi_hid", "lnro0005", "not a hardware id"),
        ("acpi_hid", "LNRO0005*", "not a hardware id"),
        ("acpi_hid", "PRP0001", "firmware gives it to every device"),
        ("name", "a{b", "without patterns or paths"),
        ("name", "a[b]", "without patterns or paths"),
        ("name", "a|b", "without patterns or paths"),
        ("name", "a\\b", "without patterns or paths"),
        ("name", " a", "no space at an end"),
        ("name", "a ", "no space at an end"),
        ("name", "a\tb", "without patterns or paths"),
        ("name", "ä", "without patterns or paths"),
        ("name", "a/b", "without patterns or paths"),
        ("name", "..", "without patterns or paths"),
        ("name", ".", "without patterns or paths"),
        ("name", "", "without patterns or paths"),
        ("name", "a\nb", "without patterns or paths"),
        ("name", "a*", "without patterns"),
        ("name", 'a"b', "without patterns"),
    ],
)
def test_a_bad_selector_is_refused_and_named(kind: str, given: str, reason: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse({kind: given})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{kind} {given!r} ")
    assert reason in problem


@given(st.sampled_from(KINDS), NASTY)
@example("dt_path", "/proc/device-tree/sys/firmware/devicetree/base/x")
@settings(max_examples=400)
def test_what_is_taken_is_special_to_nobody(kind: str, text: str) -> None:
    try:
        value = parse({kind: text}).value
    except PolicyError:
        return
    allowed = {"acpi_path": set("\\"), "name": OF_NAMES}.get(kind, set())
    assert value == value.strip()
    assert value
    assert set(value) <= PLAIN | allowed
    assert not (SPECIAL - allowed) & set(value)
    if kind != "compatible":
        assert not {".", ".."} & set(value.split("/"))
    if kind not in ("compatible", "dt_path"):
        assert "/" not in value
    assert parse({kind: value}).value == value


@given(NASTY)
@settings(max_examples=200)
def test_a_driver_that_is_taken_is_special_to_nobody(text: str) -> None:
    try:
        name = check_driver(text)
    except PolicyError:
        return
    assert name == text == text.strip()
    assert not (SPECIAL - {" "}) & set(name)
    assert "/" not in name
    assert name not in ("", ".", "..")


@pytest.mark.parametrize("name", ["vfio-platform", "rtc-pl031", "of_fixed_clk", "dwmac rockchip"])
def test_a_drivers_name_is_taken_as_it_is(name: str) -> None:
    assert check_driver(name) == name


@pytest.mark.parametrize(
    "name", ["", " x", "x ", "a/b", "..", "a\nb", 'a"b', "$x", "%k", "a*", "ä"]
)
def test_what_is_no_drivers_name_is_refused(name: str) -> None:
    with pytest.raises(PolicyError) as caught:
        check_driver(name)
    assert repr(name) in str(caught.value)


def test_a_driver_is_as_long_as_the_kernel_takes_with_the_newline() -> None:
    assert check_driver("x" * 4093)
    with pytest.raises(PolicyError, match="longer than the kernel accepts"):
        check_driver("x" * 4094)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, "no selector"),
        ({"bus": "amba"}, "no selector"),
        ({"name": "a", "dt_path": "/b"}, "dt_path and name"),
        ({"name": None, "dt_path": None}, "no selector"),
        ({"compatible": "a,b", "bus": "amba"}, "bus requires the selector name"),
        ({"acpi_path": "\\A", "acpi_uid": "0"}, "acpi_uid requires the selector acpi_hid"),
        ({"acpi_uid": "0"}, "no selector"),
        *(
            ({"acpi_hid": "ACME0001", "acpi_uid": uid}, "acpi_uid .* is not valid")
            for uid in ("", " ", "0 ", " 0", "*", "a|b", 'a"b', "a\nb", "{{ x }}", "a\\b", "ä")
        ),
        ({"compatible": "a,b", "expect": 0}, "1 or more"),
        ({"compatible": "a,b", "expect": -1}, "1 or more"),
    ],
)
def test_an_entry_has_one_selector_and_what_goes_with_it(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        parse(entry)


# Values of each selector that have the form of no other one.
TYPICAL = {
    "dt_path": ["/soc/crypto@b000000", "/sys/firmware/devicetree/base/soc/x"],
    "compatible": ["acme,crypto-v1"],
    "acpi_path": ["\\_SB_.VR00", "\\_SB.A"],
    "acpi_hid": ["LNRO0005", "PNP0C33", "ACPI0011"],
    "pci_address": ["0000:01:00.0", "01:00.0"],
    "pci_id": ["8086:10d3", "8086:10D3", "8086:10d3:8086:a01f"],
    "name": ["LNRO0005:00", "b000000.crypto", "arm-smmu-v3.0.auto", "/sys/devices/platform/x.0"],
}
# A name of the kernel can be any text.
TAKEN_AS_NAME = {"compatible", "acpi_hid", "pci_address", "pci_id"}
TAKEN = {
    "compatible": {"LNRO0005", "PNP0C33", "ACPI0011", "b000000.crypto", "arm-smmu-v3.0.auto"}
    | {"/sys/firmware/devicetree/base/soc/x", "/sys/devices/platform/x.0"},
    "dt_path": {"LNRO0005", "PNP0C33", "ACPI0011", "b000000.crypto", "arm-smmu-v3.0.auto"}
    | {"acme,crypto-v1", "/sys/devices/platform/x.0"},
    "name": {value for kind in TAKEN_AS_NAME for value in TYPICAL[kind]},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_the_value_of_another_selector_is_answered_with_the_entry_that_is_meant(
    kind: str, other: str
) -> None:
    for value in TYPICAL[other] if kind != other else ():
        proper = proper_entry(kind, value) or ""
        entry = re.fullmatch(f"that is an? `{other}`. Use `{other}: '(.*)'`", proper)
        assert entry
        assert parse({other: entry[1]}).kind == other
        if value not in TAKEN.get(kind, ()):
            with pytest.raises(PolicyError) as caught:
                parse({kind: value})
            assert str(caught.value) == (
                f"{kind} {value!r} is the value of another selector: {proper}"
            )


def test_what_could_be_a_value_of_several_selectors_is_not_said_to_be_one() -> None:
    for kind in KINDS:
        for value in ("crypto0", "soc:keys", "gpio-keys", "PRP0001", "x", "", "a*", "\0", "é"):
            assert proper_entry(kind, value) is None


def test_an_alias_that_is_not_there_may_be_the_value_of_another_selector() -> None:
    with pytest.raises(PolicyError, match="is the value of another selector: that is a `name`"):
        Selector("dt_path", "b000000.crypto").resolved(lambda _alias: None)


def test_options_of_a_selector_are_kept() -> None:
    assert parse({"acpi_hid": "ACME0001", "acpi_uid": "010"}).acpi_uid == "010"
    assert parse({"acpi_hid": "ACME0001", "acpi_uid": "CPU 0/1"}).label == (
        "acpi_hid 'ACME0001' with acpi_uid 'CPU 0/1'"
    )
    assert parse({"acpi_hid": "ACME0001"}).acpi_uid is None
    assert parse({"name": "a", "bus": "amba", "expect": 2, "required": False}) == Selector(
        "name", "a", "amba", 2, False
    )
    assert parse({"name": "a", "required": None}).required


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, ()),
        ("marvell,armada-ap810", ("marvell,armada-ap810",)),
        (["acme,b", "acme,a", "acme,b"], ("acme,b", "acme,a", "acme,b")),
        ("QEMU Virtual Machine", ("QEMU Virtual Machine",)),
        (["ProLiant XL270d Gen10 (P12345-B21)"], ("ProLiant XL270d Gen10 (P12345-B21)",)),
        ("Standard PC (Q35 + ICH9, 2009)", ("Standard PC (Q35 + ICH9, 2009)",)),
        ("ProLiant™ [Gen10]", ("ProLiant™ [Gen10]",)),
        ("AS -1014S-WTRT ", ("AS -1014S-WTRT",)),
        ("19\" Rack's", ("19\" Rack's",)),
        ("Acme\\xae 100%; <A|B> $1 `x` ~^!é", ("Acme\\xae 100%; <A|B> $1 `x` ~^!é",)),
    ],
)
def test_an_entry_is_for_one_board_or_several(given: object, names: tuple[str, ...]) -> None:
    assert parse({"name": "a", "when_board": given}).when_board == names


@pytest.mark.parametrize(
    "given",
    [
        *("", " ", "a\n", "a\tb", "acme,*", "a?", "{{ x }}", "{% x %}", "a\xa0b", "\x1b[1m"),
        *("\u202eab", "\udcae"),
        *([], [""], ["a", "b*"], ["a", None], [["a"]], 510, True, False, {"a": "b"}, {}),
    ],
)
def test_what_is_no_name_of_a_board_is_refused_and_its_entry_named(given: object) -> None:
    with pytest.raises(PolicyError) as caught:
        parse({"name": "the.entry", "when_board": given})
    assert f"when_board of name 'the.entry' is {given!r}. " in str(caught.value)


@given(st.one_of(NASTY, st.text("acme,-. ()&:@=*\n", max_size=20)))
@settings(max_examples=400)
def test_the_name_of_a_board_that_is_taken_is_kept_and_no_pattern(text: str) -> None:
    try:
        (name,) = parse({"name": "a", "when_board": text}).when_board
    except PolicyError:
        return
    assert name == text.strip()
    assert text.isprintable()
    assert not set("*?{}") & set(text)


def test_an_alias_is_replaced_and_the_rest_is_kept() -> None:
    lookup = {"soc0": "/soc@0"}.get
    assert Selector("dt_path", "soc0/x@1").resolved(lookup).value == "/soc@0/x@1"
    assert Selector("dt_path", "/soc0").resolved(lookup).value == "/soc0"
    with pytest.raises(PolicyError, match="no device-tree alias"):
        Selector("dt_path", "gone").resolved(lookup)


DEVICES = [
    Identity("platform", "1.x", "/soc/x@1", ("a,x1", "a,x")),
    Identity("platform", "2.x", "/soc/x@2", ("a,x2", "a,x")),
    Identity("amba", "1.x", "/soc/x@3"),
    Identity("platform", "HID00001:00", None, (), "\\_SB_.X000", "HID00001", acpi_uid="0"),
    Identity("platform", "HID00001:01", None, (), "\\_SB_.X001", "HID00001", acpi_uid="00"),
    Identity("platform", "HID00001:02", None, (), "\\_SB_.X002", "HID00001"),
]


@pytest.mark.parametrize(
    ("selector", "positions"),
    [
        (Selector("dt_path", "/soc/x@1"), [0]),
        (Selector("dt_path", "/soc/x"), []),
        (Selector("dt_path", "/soc"), []),
        (Selector("compatible", "a,x"), [0, 1]),
        (Selector("compatible", "a,x2"), [1]),
        (Selector("compatible", "a"), []),
        (Selector("name", "1.x"), [0, 2]),
        (Selector("name", "1.x", "amba"), [2]),
        (Selector("name", "/soc/x@1"), []),
        (Selector("acpi_path", "\\_SB_.X000"), [3]),
        (Selector("acpi_hid", "HID00001"), [3, 4, 5]),
        (Selector("acpi_hid", "HID00001", acpi_uid="0"), [3]),
        (Selector("acpi_hid", "HID00001", acpi_uid="00"), [4]),
        (Selector("acpi_hid", "HID00001", acpi_uid="1"), []),
    ],
)
def test_a_selector_matches_whole_values_only(selector: Selector, positions: list[int]) -> None:
    assert match([selector], DEVICES) == [[DEVICES[position] for position in positions]]
    assert [selector.matches(device) for device in DEVICES] == [
        position in positions for position in range(len(DEVICES))
    ]


def test_many_selectors_are_matched_each_for_itself_even_if_they_are_alike() -> None:
    selector = Selector("name", "2.x")
    assert match([selector, Selector("name", "gone"), selector], DEVICES) == [
        [DEVICES[1]],
        [],
        [DEVICES[1]],
    ]


@pytest.mark.parametrize(
    ("value", "paths", "meant"),
    [
        ("/soc/x@1", {}, "/soc/x@1"),
        ("soc0/x@1", {"soc0": "/soc@0"}, "/soc@0/x@1"),
        # udev events have aliases that end in a number, without a path below them.
        ("serial0", {}, "serial0"),
        ("soc0/x@1", {}, None),
        ("serial", {}, None),
    ],
)
def test_a_selector_is_for_the_next_boot_if_udev_can_match_it(
    value: str, paths: dict[str, str], meant: str | None
) -> None:
    for_boot = Selector("dt_path", value).for_boot(paths)
    assert (for_boot and for_boot.value) == meant


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_selector_is_compared_with_a_field_of_devices(kind: str) -> None:
    selector = Selector(kind, "X")
    assert hasattr(Identity("acme", "x"), selector.field)
    for_boot = selector.for_boot({selector.reference: "/X"} if selector.reference else {})
    assert for_boot
    assert "X" in for_boot.udev_match


def test_only_their_own_file_tells_kinds_of_selectors_apart() -> None:
    branches = [f'kind {operator} "{kind}"' for kind in KINDS for operator in ("==", "!=", "in")]
    assert [
        path.name
        for path in MODULE_UTILS.rglob("*.py")
        if any(branch in path.read_text() for branch in branches)
    ] == []
