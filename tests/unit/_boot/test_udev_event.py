"""Which rules udev applies to a device: yes, no, or not known before the event."""

from __future__ import annotations

from pathlib import Path

import pytest
from udev_machine import ACPI, FUNCTION, OTHERS, RING, RING_ALIAS, Machine

SET = 'ATTR{driver_override}="uio"'
SURE, MAYBE = {"uio": True}, {"uio": False}


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    "conditions",
    [
        'SUBSYSTEM=="platform"',
        'SUBSYSTEM=="platform|amba", KERNEL=="*.ring"',
        'SUBSYSTEM!="pci"',
        r'KERNEL==e"b100000\x2ering"',
        'DEVPATH=="/devices/platform/soc/b100000.ring"',
        'DEVPATH=="*/b100000.ring"',
        'ENV{DEVPATH}=="*.ring", ENV{SUBSYSTEM}=="platform"',
        f'ENV{{MODALIAS}}=="{RING_ALIAS}"',
        'ENV{MODALIAS}=="of:NringT*Cacme,ring"',
        'ATTR{modalias}=="of:*Cacme,ring"',
        'ATTR{modalias}!="platform:*"',
        'ENV{OF_FULLNAME}=="/soc/ring@b100000", ENV{OF_NAME}=="ring"',
        'ENV{OF_COMPATIBLE_0}=="acme,ring-v2", ENV{OF_COMPATIBLE_N}=="2"',
        'ENV{OF_COMPATIBLE_1}=="acme,ring", ENV{OF_COMPATIBLE_2}==""',
        'ENV{OF_ALIAS_0}=="ring0"',
        'ENV{OF_ALIAS_1}!="ring0"',
        'ENV{PCI_ID}=="", ENV{PCI_SLOT_NAME}!="?*"',
        'ATTR{of_node/acme,label}=="left"',
        'ATTRS{of_node/acme,label}=="left"',
        # Those of the device itself count, and those of one above it.
        'KERNELS=="b100000.ring", SUBSYSTEMS=="platform"',
        'KERNELS=="soc"',
        'KERNELS=="soc", ATTRS{modalias}=="*Csimple-bus"',
        'ATTRS{modalias}=="*Csimple-bus"',
        'SUBSYSTEMS!="pci"',
        'TEST=="/usr/bin/claim"',
        'TEST!="/usr/bin/nothing"',
        'CONST{arch}=="arm64"',
        'ENV{NOBODY_SETS_IT}==""',
        'ENV{X}="1"\nENV{X}=="1"',
        'ENV{X}="a"\nENV{X}+="b"\nENV{X}=="a b"',
        'ENV{X}="$kernel"\nENV{X}=="b100000.ring"',
        'ENV{X}="%p%%$$"\nENV{X}=="/devices/platform/soc/b100000.ring%$"',
        'ENV{X}="$attr{of_node/acme,label}-$env{OF_NAME}"\nENV{X}=="left-ring"',
        'KERNELS=="soc", ENV{X}="$id"\nENV{X}=="soc"',
        'KERNELS=="soc", ENV{Y}="1"\nENV{X}="$id"\nENV{X}=="soc"',
        'KERNELS=="nothing", ENV{Y}="1"\nENV{X}="$id"\nENV{X}==""',
        'NAME==""',
        'RESULT==""',
        'ACTION!="remove"',
        'ACTION=="add|change"',
        'IMPORT{builtin}="kmod load vfio-platform"',
        'IMPORT{parent}="X"\nENV{OF_NAME}=="ring"',
        'IMPORT{parent}="X"\nENV{X}="1"\nENV{X}=="1"',
        "",
    ],
)
def test_a_rule_whose_conditions_the_device_meets_applies(
    machine: Machine, conditions: str
) -> None:
    machine.write("/usr/bin/claim", "")
    machine.write("/proc/sys/kernel/arch", "aarch64\n")
    assert machine.overrides(f"{conditions}, {SET}") == SURE


@pytest.mark.parametrize(
    "conditions",
    [
        'SUBSYSTEM=="pci"',
        'SUBSYSTEM!="platform"',
        'KERNEL=="b100000.rin?x"',
        'KERNEL=="B100000.ring"',
        'KERNEL!=i"B100000.RING"',
        'DEVPATH=="/devices/platform/b100000.ring"',
        'ENV{MODALIAS}=="platform:*"',
        'ATTR{modalias}=="acpi*"',
        # udev compares an attribute that is missing with nothing, whatever the operator.
        'ATTR{of_node/missing}!="left"',
        'ENV{OF_COMPATIBLE_2}=="acme,*"',
        'ENV{OF_ALIAS_0}=="console"',
        'ENV{OF_ALIAS_1}=="?*"',
        'ENV{OF_TYPE}=="?*"',
        'ENV{PCI_ID}=="8086:1521"',
        'KERNELS=="nothing"',
        # Both have to be met by the same device.
        'KERNELS=="b100000.ring", ATTRS{modalias}=="*Csimple-bus"',
        'SUBSYSTEMS=="pci"',
        'TEST!="/usr/bin/claim"',
        'TEST=="/usr/bin/nothing"',
        'CONST{arch}=="x86-64"',
        'CONST{arch}!="arm64"',
        'ENV{NOBODY_SETS_IT}=="1"',
        'ENV{X}="1"\nENV{X}=="2"',
        'NAME=="eth0"',
        'RESULT=="?*"',
        'ATTR{firmware_node/hid}=="LNRO0005"',
    ],
)
def test_a_rule_for_others_does_not(machine: Machine, conditions: str) -> None:
    machine.write("/usr/bin/claim", "")
    machine.write("/proc/sys/kernel/arch", "aarch64\n")
    assert machine.overrides(f"{conditions}, {SET}") == {}


@pytest.mark.parametrize(
    "conditions",
    [
        'DRIVER=="acme-ring"',
        'DRIVER!="uio"',
        'DRIVERS=="acme-*"',
        # A line of another file can have chosen the parent.
        'ENV{X}="$id"\nENV{X}==""',
        'ENV{X}="%b"\nENV{X}=="b100000.ring"',
        'ENV{X}="$attr{of_node/missing}"\nENV{X}==""',
        'PROGRAM="/bin/ask"',
        'PROGRAM=="/bin/ask", RESULT=="yes"',
        'IMPORT{program}="/bin/ask"',
        'IMPORT{program}="/bin/ask"\nENV{X}=="1"',
        'IMPORT{db}="X"\nENV{X}=="1"',
        'IMPORT{cmdline}="claim"',
        'IMPORT{parent}="OF_*"\nENV{OF_NAME}=="ring"',
        'ENV{X}="1"\nIMPORT{parent}="X"\nENV{X}=="1"',
        'IMPORT{parent}="$env{ID_X}"\nENV{OF_NAME}=="ring"',
        'ENV{ID_PATH}=="platform-*"',
        'ENV{SEQNUM}=="1"',
        'ATTR{driver_override}=="(null)"',
        'ATTR{power/control}=="auto"',
        'ATTR{[platform/b200000.other]modalias}=="*"',
        'ATTR{/sys/devices/platform/soc/b100000.ring/modalias}=="*"',
        'TEST=="driver"',
        'TEST=="/sys/bus/platform/drivers/acme-ring"',
        'TEST=="/run/claim"',
        'TEST=="/home/claim"',
        'TAG=="systemd"',
        'TAGS=="systemd"',
        'SYMLINK=="x"',
        'SYSCTL{kernel/arch}=="aarch64"',
        'CONST{virt}=="none"',
        'PROGRAM="/bin/ask", ENV{X}="1"\nENV{X}=="1"',
    ],
)
def test_what_is_not_known_before_the_event_is_not_decided(
    machine: Machine, conditions: str
) -> None:
    assert machine.overrides(f"{conditions}, {SET}") == MAYBE


@pytest.mark.parametrize(
    ("version", "expected"),
    [(None, MAYBE), (247, {}), (252, {}), (257, SURE), (262, SURE)],
)
def test_a_match_that_ignores_case_is_one_since_systemd_257(
    machine: Machine, version: int | None, expected: dict[str, bool]
) -> None:
    if version:
        machine.write(f"/usr/lib/systemd/libsystemd-shared-{version}.so", "")
    assert machine.overrides(f'KERNEL==i"B100000.RING", {SET}') == expected
    # A line that is dropped has no label either.
    line = f'KERNEL==i"B100000.RING", GOTO="end"\n{SET}\nLABEL="end"'
    assert machine.overrides(line) == {None: MAYBE, 247: SURE, 252: SURE}.get(version, {})


def test_without_the_name_of_the_architecture_it_is_not_known(machine: Machine) -> None:
    assert machine.overrides(f'CONST{{arch}}=="arm64", {SET}') == MAYBE


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ('DRIVER=="?*"', SURE),
        ('DRIVER==""', {}),
        ('DRIVERS!=""', SURE),
        ('DRIVER=="acme-ring"', MAYBE),
        ('ACTION=="bind"', SURE),
        ('ACTION=="add"', {}),
    ],
)
def test_a_device_that_was_bound_has_a_driver(
    machine: Machine, conditions: str, expected: dict[str, bool]
) -> None:
    assert machine.overrides(f"{conditions}, {SET}", action="bind") == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ('ENV{MODALIAS}=="acpi:LNRO0005:"', SURE),
        ('ATTR{modalias}=="acpi:*"', SURE),
        ('ATTR{firmware_node/path}=="*VR00"', SURE),
        ('ATTR{firmware_node/hid}=="LNRO0005", ATTR{firmware_node/uid}=="7"', SURE),
        ('ATTR{firmware_node/uid}=="8"', {}),
        ('ATTR{firmware_node/status}=="15"', MAYBE),
        ('ENV{OF_NAME}=="?*"', {}),
        ('ENV{OF_ALIAS_0}=="?*"', {}),
        ('KERNEL=="LNRO0005:00"', SURE),
    ],
)
def test_a_device_of_acpi_has_an_alias_and_no_properties_of_a_node(
    machine: Machine, conditions: str, expected: dict[str, bool]
) -> None:
    assert machine.overrides(f"{conditions}, {SET}", ACPI) == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ('ENV{PCI_ID}=="8086:1521", ENV{PCI_SUBSYS_ID}=="1028:1F60"', SURE),
        ('ENV{PCI_SLOT_NAME}=="0000:01:00.0"', SURE),
        ('ATTR{vendor}=="0x8086", ATTR{device}=="0x1521", ATTR{class}=="0x02*"', SURE),
        ('ATTR{subsystem_device}=="0x1f61"', {}),
        ('SUBSYSTEMS=="pci", KERNELS=="0000:01:00.0"', SURE),
        ('KERNELS=="pci0000:00"', SURE),
        ('ENV{MODALIAS}=="pci:v00008086d*"', SURE),
        ('ENV{PCI_CLASS}=="20000"', MAYBE),
    ],
)
def test_a_function_has_the_ids_of_its_card(
    machine: Machine, conditions: str, expected: dict[str, bool]
) -> None:
    assert machine.overrides(f"{conditions}, {SET}", FUNCTION) == expected


def test_of_two_aliases_the_order_is_not_known(machine: Machine) -> None:
    machine.put("firmware/devicetree/base/aliases/dma1", "/soc/ring@b100000\0")
    assert machine.overrides(f'ENV{{OF_ALIAS_0}}=="ring0", {SET}') == MAYBE
    assert machine.overrides(f'ENV{{OF_ALIAS_2}}=="ring0", {SET}') == {}


def test_an_alias_without_a_number_is_not_passed_to_udev(machine: Machine) -> None:
    """of_alias_scan in drivers/of/base.c keeps only those that end in a number."""
    machine.put("firmware/devicetree/base/aliases/left", "/soc/ring@b100000\0")
    assert machine.overrides(f'ENV{{OF_ALIAS_0}}=="ring0", {SET}') == SURE
    assert machine.overrides(f'ENV{{OF_ALIAS_0}}=="left", {SET}') == {}
    assert machine.overrides(f'ENV{{OF_ALIAS_1}}=="?*", {SET}') == {}


@pytest.mark.parametrize(
    "lines",
    [
        'SUBSYSTEM=="platform", GOTO="end"\n%s\nLABEL="end"',
        'KERNEL!="b200000.*", GOTO="end"\n%s\nLABEL="end"',
        'SUBSYSTEM=="platform", GOTO="b"\n%s\nLABEL="a"\n%s\nLABEL="b"',
        'ENV{X}="1"\nENV{X}=="1", GOTO="end"\n%s\nLABEL="end"',
        'KERNELS=="soc", GOTO="end"\n%s\nLABEL="end"',
        # The first of two labels counts.
        'GOTO="a"\n%s\nLABEL="a"\nGOTO="b"\n%s\nLABEL="a"\nLABEL="b"',
    ],
)
def test_a_rule_that_the_device_jumps_over_does_not_apply(machine: Machine, lines: str) -> None:
    assert machine.overrides(lines.replace("%s", SET)) == {}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('SUBSYSTEM!="platform", GOTO="end"\n%s\nLABEL="end"', SURE),
        ('SUBSYSTEM=="platform", ENV{ID_X}=="1", GOTO="end"\n%s\nLABEL="end"', MAYBE),
        ('SUBSYSTEM=="platform", PROGRAM="/bin/ask", GOTO="end"\n%s\nLABEL="end"', MAYBE),
        # The rule is at the label of the GOTO, or after it.
        ('SUBSYSTEM=="platform", GOTO="end"\nLABEL="end", %s', SURE),
        ('PROGRAM="/bin/ask", GOTO="end"\nLABEL="end"\n%s', SURE),
        # udev ignores a GOTO without a label, or with a label before it.
        ('SUBSYSTEM=="platform", GOTO="nowhere"\n%s', SURE),
        ('LABEL="end"\nSUBSYSTEM=="platform", GOTO="end"\n%s', SURE),
        # An earlier GOTO skips the GOTO.
        ('GOTO="a"\nSUBSYSTEM=="platform", GOTO="end"\nLABEL="a"\n%s\nLABEL="end"', SURE),
        # A GOTO that udev may skip skips nothing for sure.
        (
            'PROGRAM="/bin/ask", GOTO="a"\nGOTO="end"\nLABEL="a"\n%s\nLABEL="end"',
            MAYBE,
        ),
        # Before systemd 257 udev drops the line of this GOTO.
        ('KERNEL==i"B100000.RING", GOTO="end"\n%s\nLABEL="end"', MAYBE),
        # What a line sets that may apply is not known.
        ('ENV{X}="1"\nPROGRAM="/bin/ask", ENV{X}="2"\nENV{X}=="1", %s', MAYBE),
    ],
)
def test_a_rule_that_the_device_may_come_to_applies_or_may(
    machine: Machine, lines: str, expected: dict[str, bool]
) -> None:
    assert machine.overrides(lines % SET) == expected


def test_what_rules_of_other_files_set_is_followed(machine: Machine) -> None:
    machine.write("/usr/lib/udev/rules.d/10-set.rules", 'KERNEL=="*.ring", ENV{CLAIM}="1"\n')
    line = f'ENV{{CLAIM}}=="1", {SET}'
    assert machine.overrides(line) == SURE
    assert machine.overrides(line, ACPI) == {}
    machine.write("/usr/lib/udev/rules.d/10-set.rules", "")
    assert machine.overrides(line) == {}
    machine.write("/usr/lib/udev/rules.d/90-set.rules", 'KERNEL=="*.ring", ENV{CLAIM}="1"\n')
    assert machine.overrides(line) == {}


def test_a_device_that_is_not_there_is_known_by_what_firmware_says(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    absent = RING._replace(name="b900000.ring", dt_path="/soc/ring@b900000")
    assert machine.overrides(f'ENV{{OF_FULLNAME}}=="*@b900000", {SET}', absent) == SURE
    assert machine.overrides(f'DEVPATH=="*b900000.ring", {SET}', absent) == MAYBE
    assert machine.overrides(f'KERNELS=="soc", {SET}', absent) == MAYBE


def test_the_location_is_the_last_line_of_a_rule(machine: Machine) -> None:
    machine.write(OTHERS, f'KERNEL=="b100000.ring", \\\n# mine\n  {SET}\n')
    assert [rule.location for rule in machine.rules()] == [f"{OTHERS}:3"]
