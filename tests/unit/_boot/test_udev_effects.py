"""What assignments, commands, scripts and units of udev rules do to the driver of a device."""

from __future__ import annotations

from pathlib import Path

import pytest
from udev_machine import ACPI, FUNCTION, OTHERS, RING, Machine

KERNEL = 'KERNEL=="b100000.ring", '
SET_SHELL = f"{KERNEL}RUN+=\"/bin/sh -c 'echo a > /sys/%p/driver_override'\""
SELF = "/sys/devices/platform/soc/b100000.ring"
FUNCTION_AT = "/sys/bus/pci/devices/0000:01:00.0"


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def effects(
    machine: Machine, content: str, action: str | None = None
) -> list[tuple[str, str, bool]]:
    """Return kind, override and sureness of what a file does to the device."""
    machine.write(OTHERS, content + "\n")
    return [
        (rule.kind, rule.driver_override or "", rule.is_sure)
        for rule in machine.rules(RING, action)
    ]


@pytest.mark.parametrize(
    ("assignment", "override", "is_sure"),
    [
        ('ATTR{driver_override}="a"', "a", True),
        ('ATTR{driver_override}+="a"', "a", True),
        # The kernel takes it to the end of the line, with the blank.
        (r'ATTR{driver_override}=e"a\nb"', "a", True),
        ('ATTR{driver_override}="a "', "a ", True),
        ('ENV{X}="a", ATTR{driver_override}="$env{X}-%k"', "a-b100000.ring", True),
        ('ATTR{driver_override}="$env{ID_X}"', "", True),
        ('ATTR{driver_override}=""', "", False),
        ('ATTR{[platform/b100000.ring]driver_override}="a"', "a", True),
        ('ATTR{[platform/b100000.ring]/driver_override}="a"', "a", True),
        ('ATTR{../b100000.ring/driver_override}="a"', "a", True),
        ('ATTR{subsystem/devices/b100000.ring/driver_override}="a"', "a", True),
        (f"RUN+=\"/bin/sh -c 'echo a > {SELF}/driver_override'\"", "a", True),
        ("RUN+=\"/bin/sh -c 'echo a > /sys/%p/driver_override; exit 1'\"", "a", True),
        ("RUN+=\"/bin/sh -c 'echo a >/sys$devpath/driver_override'\"", "a", True),
        ('RUN+="/bin/sh -c \'echo -n \\"a\\" > /sys%p/driver_override\'"', "a", True),
        (
            "RUN+=\"/bin/bash -c 'echo a > /sys/bus/platform/devices/%k/driver_override'\"",
            "a",
            True,
        ),
        ("RUN+=\"/bin/sh -c 'echo a | tee /sys/%p/driver_override'\"", "a", True),
        # The shell may not come to it, or what it writes is not known.
        ("RUN+=\"/bin/sh -c '[ -e /x ] && echo a > /sys/%p/driver_override'\"", "a", False),
        ("RUN+=\"/bin/sh -c 'echo $$X > /sys/%p/driver_override'\"", "", True),
        ("RUN+=\"/bin/sh -c 'echo a > $$DIR/driver_override'\"", "", False),
        ("RUN+=\"/bin/sh -c 'cd /sys/%p; echo a > driver_override'\"", "", False),
        ('RUN+="/usr/sbin/driverctl -b platform set-override %k a"', "a", True),
        ('RUN+="/usr/sbin/driverctl --bus=platform --nosave set-override %k a"', "a", True),
        ('RUN+="driverctl -b platform unset-override b100000.ring"', "", True),
        ('RUN+="/bin/set driver_override of it"', "", False),
        ("PROGRAM=\"/bin/sh -c 'echo a > /sys/%p/driver_override'\"", "a", False),
        ("IMPORT{program}=\"/bin/sh -c 'echo a > /sys/%p/driver_override'\"", "a", False),
    ],
)
def test_all_ways_to_set_an_override_are_known(
    machine: Machine, assignment: str, override: str, is_sure: bool
) -> None:
    assert effects(machine, KERNEL + assignment) == [("override", override, is_sure)]


@pytest.mark.parametrize(
    "line",
    [
        # In the directory of the device there is no such file.
        f'{KERNEL}ATTR{{{SELF}/driver_override}}="a"',
        'ATTR{[platform/b200000.other]driver_override}="a"',
        'ATTR{[$env{SUBSYSTEM}/$kernel]driver_override}="a"',
        f'{KERNEL}ATTR{{driver_override}}=="a", ENV{{X}}="1"',
        f'{KERNEL}ATTR{{power/control}}="on"',
        f'{KERNEL}ATTR{{subsystem/drivers_probe}}="%k"',
        # udev starts no shell for it.
        f'{KERNEL}RUN+="/bin/echo a > {SELF}/driver_override"',
        "RUN+=\"/bin/sh -c 'echo a > /sys/bus/platform/devices/b200000.other/driver_override'\"",
        'RUN+="/usr/sbin/driverctl -b platform set-override b200000.other a"',
        'RUN+="/usr/sbin/driverctl set-override 0000:01:00.0 a"',
        f'{KERNEL}RUN+="/usr/sbin/driverctl load-override platform-%k"',
        f'{KERNEL}RUN+="/usr/sbin/driverctl list-devices"',
        f'{KERNEL}RUN{{builtin}}+="kmod load vfio-platform"',
        f'{KERNEL}RUN+="/usr/bin/logger driver"',
        # After := nothing is added.
        f'{KERNEL}RUN:="/bin/true"\n{KERNEL}RUN+="/bin/set driver_override of it"',
        # What is assigned with = replaces what was added before.
        f'{KERNEL}RUN+="/bin/set driver_override of it"\n{KERNEL}RUN="/bin/true"',
    ],
)
def test_what_does_not_reach_the_device_is_not_reported(machine: Machine, line: str) -> None:
    assert effects(machine, line) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('ATTR{driver/unbind}="%k"', [("unbind", "", True)]),
        ('ATTR{driver/unbind}="b100000.ring"', [("unbind", "", True)]),
        ('ATTR{[drivers/platform:acme-ring]unbind}="$kernel"', [("unbind", "", True)]),
        ('ATTR{[drivers/platform:acme-ring]bind}="$kernel"', [("bind", "", True)]),
        ('ATTR{driver/unbind}="$env{ID_X}"', [("unbind", "", False)]),
        ('ATTR{driver/unbind}="b200000.other"', []),
        ('ATTR{[drivers/pci:nvme]unbind}="$kernel"', []),
        (
            "RUN+=\"/bin/sh -c 'echo %k > /sys/bus/platform/drivers/acme-ring/unbind'\"",
            [("unbind", "", True)],
        ),
        ("RUN+=\"/bin/sh -c 'echo %k > /sys/%p/driver/unbind'\"", [("unbind", "", True)]),
    ],
)
def test_unbinding_and_binding_are_known(
    machine: Machine, line: str, expected: list[tuple[str, str, bool]]
) -> None:
    assert effects(machine, KERNEL + line) == expected


CLAIM = "#!/bin/sh\necho vfio-platform > /sys/bus/platform/devices/$1/driver_override\n"


@pytest.mark.parametrize(
    "command",
    [
        "/usr/local/bin/claim",
        "/usr/local/bin/claim %k",
        "/bin/sh /usr/local/bin/claim",
        "/bin/sh -c '/usr/local/bin/claim %k &'",
        "claim-in-libexec",
        "/usr/bin/systemctl --no-block start claim@%k.service",
        "/usr/bin/systemctl restart claim@%k",
    ],
)
def test_a_script_that_binds_drivers_may_change_the_device_of_the_event(
    machine: Machine, command: str
) -> None:
    machine.write("/usr/local/bin/claim", CLAIM)
    machine.write("/usr/lib/udev/claim-in-libexec", CLAIM)
    unit = "[Service]\nType=oneshot\nExecStart=-/usr/local/bin/claim %i\n"
    machine.write("/etc/systemd/system/claim@.service", unit)
    assert effects(machine, f'{KERNEL}RUN+="{command}"') == [("override", "", False)]
    assert effects(machine, f'KERNEL=="b200000.other", RUN+="{command}"') == []


def test_a_script_without_a_word_of_drivers_is_not_reported(machine: Machine) -> None:
    machine.write("/usr/local/bin/claim", "#!/bin/sh\nlogger $1\n")
    assert effects(machine, f'{KERNEL}RUN+="/usr/local/bin/claim %k"') == []


@pytest.mark.parametrize("name", ["b100000.ring", "/soc/ring@b100000"])
def test_a_script_that_names_the_device_may_change_it_at_any_event(
    machine: Machine, name: str
) -> None:
    machine.write("/usr/local/bin/claim", f"#!/bin/sh\ndevice={name}\n{CLAIM}")
    line = 'SUBSYSTEM=="net", RUN+="/usr/local/bin/claim"'
    assert effects(machine, line) == [("override", "", False)]
    machine.write("/usr/local/bin/claim", f"#!/bin/sh\ndevice=x{name}\n{CLAIM}")
    assert effects(machine, line) == []


def test_a_program_that_is_no_script_is_judged_by_its_arguments(machine: Machine) -> None:
    machine.write("/usr/local/bin/claim", "\x7fELF\0driver_override")
    assert effects(machine, f'{KERNEL}RUN+="/usr/local/bin/claim %k"') == []
    line = f'{KERNEL}RUN+="/usr/local/bin/claim %k driver_override"'
    assert effects(machine, line) == [("override", "", False)]


@pytest.mark.parametrize(
    ("line", "override"),
    [
        ('SUBSYSTEM=="net", ATTR{[platform/b100000.ring]driver_override}="a"', "a"),
        ('KERNEL=="eth*", ATTR{[platform/b100000.ring]driver_override}="$env{X}"', ""),
        ('SUBSYSTEM=="net", RUN+="/bin/sh -c \'echo a > %s/driver_override\'"' % SELF, "a"),
        ('SUBSYSTEM=="net", RUN+="driverctl -b platform set-override b100000.ring a"', "a"),
    ],
)
def test_a_rule_for_another_device_can_name_this_one(
    machine: Machine, line: str, override: str
) -> None:
    assert effects(machine, line) == [("override", override, False)]
    assert effects(machine, line, "add") == [("override", override, False)]
    assert effects(machine, line, "bind") == []


def test_if_the_other_device_is_there_it_is_known_whether_its_rule_applies(
    machine: Machine,
) -> None:
    machine.put("devices/platform/b200000.other/uevent")
    machine.link("devices/platform/b200000.other/subsystem", "bus/platform")
    machine.link("bus/platform/devices/b200000.other", "devices/platform/b200000.other")
    line = (
        'SUBSYSTEM=="platform", KERNEL=="b200000.other", KERNELS=="%s", '
        'ATTR{[platform/b100000.ring]driver_override}="a"'
    )
    assert effects(machine, line % "platform") == [("override", "a", True)]
    assert effects(machine, line % "nothing") == []


UNIT = (
    "[Service]\nExecStart=/bin/sh -c 'echo vfio > /sys/bus/platform/devices/%i/driver_override'\n"
)
WANTS = 'ENV{SYSTEMD_WANTS}+="claim@$kernel.service"'


@pytest.mark.parametrize(
    ("line", "is_started"),
    [
        (f'{KERNEL}TAG+="systemd", {WANTS}', True),
        (f'PROGRAM="/bin/ask", TAG+="systemd"\n{KERNEL}{WANTS}', True),
        (f'{KERNEL}TAG+="systemd", {WANTS}\nPROGRAM="/bin/ask", TAG="other"', True),
        (f'{KERNEL}TAG+="systemd", {WANTS}\nTAG="other"', False),
        (f'{KERNEL}TAG+="systemd", {WANTS}\nTAG-="systemd"', False),
        (f'{KERNEL}{WANTS}, TAG+="systemd"', True),
        # systemd starts nothing for a device without its tag.
        (f"{KERNEL}{WANTS}", False),
        (f'TAG+="systemd"\n{KERNEL}{WANTS}\n{KERNEL}ENV{{SYSTEMD_WANTS}}=""', False),
        (f'KERNEL=="b200000.other", TAG+="systemd", {WANTS}', False),
        (f'{KERNEL}TAG+="systemd", ENV{{SYSTEMD_WANTS}}+="missing@%k.service"', False),
    ],
)
def test_a_unit_that_systemd_starts_for_the_device_may_change_it(
    machine: Machine, line: str, is_started: bool
) -> None:
    machine.write("/etc/systemd/system/claim@.service", UNIT)
    assert effects(machine, line) == ([("override", "vfio", False)] if is_started else [])


SYSTEM, VENDOR = "/etc/systemd/system", "/usr/lib/systemd/system"
CLAIMING = UNIT.replace("%i", "b100000.ring")
PLAIN, TARGET = "[Service]\nExecStart=/bin/true\n", "[Unit]\nDescription=Mine\n"


@pytest.mark.parametrize(
    ("files", "may_bind"),
    [
        # What adds to a unit, in any directory and for any of its names.
        ({f"{VENDOR}/x.service": PLAIN, f"{SYSTEM}/x.service.d/a.conf": CLAIMING}, True),
        ({f"{SYSTEM}/x.service": PLAIN, f"{VENDOR}/x.service.d/a.conf": CLAIMING}, True),
        ({f"{VENDOR}/x.service": PLAIN, f"{SYSTEM}/service.d/a.conf": CLAIMING}, True),
        ({f"{VENDOR}/x.service": PLAIN, f"{SYSTEM}/x.service.d/a.txt": CLAIMING}, False),
        ({f"{VENDOR}/x.service": PLAIN, f"{SYSTEM}/y.service.d/a.conf": CLAIMING}, False),
        ({f"{SYSTEM}/x.service.d/a.conf": CLAIMING}, False),
        ({f"{VENDOR}/x.service": CLAIMING, f"{SYSTEM}/x.service": ""}, False),
        (
            {
                f"{VENDOR}/x.service": PLAIN,
                f"{VENDOR}/x.service.d/a.conf": CLAIMING,
                f"{SYSTEM}/x.service.d/a.conf": "",
            },
            False,
        ),
        # An empty value drops those before it.
        ({f"{VENDOR}/x.service": CLAIMING, f"{SYSTEM}/x.service.d/a.conf": PLAIN}, True),
        (
            {
                f"{VENDOR}/x.service": CLAIMING,
                f"{SYSTEM}/x.service.d/a.conf": "[Service]\nExecStart=\nExecStart=/bin/true\n",
            },
            False,
        ),
        # What a unit pulls in.
        ({f"{VENDOR}/x.service": f"Wants=y.service z.service\n{PLAIN}"}, True),
        ({f"{VENDOR}/x.service": f"Requires = y.service\n{PLAIN}"}, True),
        ({f"{VENDOR}/x.service": f"OnFailure=y.service\n{PLAIN}"}, True),
        ({f"{VENDOR}/x.service": f"After=y.service\nConflicts=y.service\n{PLAIN}"}, False),
        ({f"{VENDOR}/x.service": f"Wants=y.service\nWants=\n{PLAIN}"}, False),
        ({f"{VENDOR}/x.service": f"Wants=basic.target network-online.target\n{PLAIN}"}, False),
        ({f"{VENDOR}/x.service": PLAIN, f"{SYSTEM}/x.service.wants/y.service": CLAIMING}, True),
        ({f"{VENDOR}/x.service": PLAIN, f"{SYSTEM}/x.service.requires/y.service": CLAIMING}, True),
        (
            {
                f"{VENDOR}/x.service": "Wants=mine.target\n",
                f"{VENDOR}/mine.target": TARGET,
                f"{SYSTEM}/mine.target.wants/y.service": CLAIMING,
            },
            True,
        ),
        ({f"{VENDOR}/x.service": "Wants=y.timer\n", f"{VENDOR}/y.timer": "OnBootSec=1\n"}, True),
        ({f"{VENDOR}/x.service": "Wants=a.path\n", f"{VENDOR}/a.path": "Unit=y.service\n"}, True),
    ],
)
def test_what_is_started_with_a_unit_counts_as_well(
    machine: Machine, files: dict[str, str], *, may_bind: bool
) -> None:
    machine.write(f"{VENDOR}/y.service", CLAIMING)
    for name in ("basic.target", "network-online.target"):
        machine.write(f"{VENDOR}/{name}", TARGET)
        machine.write(f"{SYSTEM}/{name}.wants/y.service", CLAIMING)
    for path, content in files.items():
        machine.write(path, content)
    expected = [("override", "vfio", False)] if may_bind else []
    line = f'{KERNEL}TAG+="systemd", ENV{{SYSTEMD_WANTS}}+="x.service"'
    assert effects(machine, line) == expected
    assert effects(machine, f'{KERNEL}RUN+="/bin/systemctl start x"') == expected


@pytest.mark.parametrize(
    ("directory", "may_bind"),
    [
        ("bind-all@.service.d", True),
        ("bind-all@b100000.ring.service.d", True),
        ("bind-.service.d", True),
        ("all@.service.d", False),
        ("bind-all@b200000.other.service.d", False),
    ],
)
def test_what_adds_to_an_instance_can_be_for_all_of_them(
    machine: Machine, directory: str, *, may_bind: bool
) -> None:
    machine.write(f"{VENDOR}/bind-all@.service", PLAIN)
    command = "/bin/sh -c 'echo vfio > /sys/bus/platform/devices/%i/driver_override'"
    machine.write(f"/run/systemd/system/{directory}/a.conf", f"[Service]\nExecStart={command}\n")
    line = f'{KERNEL}TAG+="systemd", ENV{{SYSTEMD_WANTS}}+="bind-all@$kernel.service"'
    assert effects(machine, line) == ([("override", "vfio", False)] if may_bind else [])


def test_a_unit_can_be_named_by_what_udev_substitutes(machine: Machine) -> None:
    machine.write(f"{VENDOR}/claim-b100000.ring.service", CLAIMING)
    line = f'{KERNEL}TAG+="systemd", ENV{{SYSTEMD_WANTS}}+="claim-%k.service"'
    assert effects(machine, line) == [("override", "vfio", False)]
    line = f'{KERNEL}TAG+="systemd", ENV{{SYSTEMD_WANTS}}+="other-$kernel.service"'
    assert effects(machine, line) == []


def test_the_tag_can_come_from_another_file(machine: Machine) -> None:
    machine.write("/etc/systemd/system/claim@.service", UNIT)
    machine.write("/usr/lib/udev/rules.d/99-systemd.rules", 'KERNEL=="*.ring", TAG+="systemd"\n')
    assert effects(machine, KERNEL + WANTS) == [("override", "vfio", False)]


def test_the_unit_of_driverctl_is_judged_by_what_driverctl_has_stored(machine: Machine) -> None:
    machine.write(
        "/usr/lib/systemd/system/driverctl@.service",
        "[Service]\nExecStart=/usr/sbin/driverctl load-override %I\n",
    )
    machine.write("/usr/sbin/driverctl", "#!/bin/bash\necho $1 > $syspath/driver_override\n")
    line = 'TAG+="systemd", ENV{SYSTEMD_WANTS}+="driverctl@$env{SUBSYSTEM}-$kernel.service"'
    assert effects(machine, line) == []


def test_a_device_of_acpi_is_named_by_its_path(machine: Machine) -> None:
    machine.write("/usr/local/bin/claim", "#!/bin/sh\ngrep -l '\\_SB_.VR00' */path\n" + CLAIM)
    machine.write(OTHERS, 'SUBSYSTEM=="net", RUN+="/usr/local/bin/claim"\n')
    assert [rule.is_sure for rule in machine.rules(ACPI)] == [False]
    assert machine.rules(RING) == []


BELOW = 'SUBSYSTEM=="vfio-dev", '


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (BELOW + 'ATTR{device/driver/unbind}="b100000.ring"', "unbind"),
        (BELOW + 'ATTR{../../driver/unbind}="b100000.ring"', "unbind"),
        (BELOW + 'ATTR{device/driver/unbind}="$env{ID_X}"', "unbind"),
        (BELOW + 'KERNELS=="b100000.ring", ATTR{device/driver/unbind}="%b"', "unbind"),
        (BELOW + 'KERNEL=="vfio3", ATTR{device/driver_override}="a"', "override"),
        (BELOW + 'KERNEL=="vfio*", ATTR{device/driver_override}="a"', "override"),
        (BELOW + 'ATTR{device/driver_override}="a"', "override"),
        (BELOW + 'ATTR{../../driver_override}="a"', "override"),
        (BELOW + "RUN+=\"/bin/sh -c 'echo a > /sys/%p/../../driver_override'\"", "override"),
        ('SUBSYSTEM=="drivers", KERNEL=="vfio-platform", ATTR{unbind}="b100000.ring"', "unbind"),
        ('SUBSYSTEM=="module", ATTR{drivers/platform:x/unbind}="b100000.ring"', "unbind"),
        ('SUBSYSTEM=="drivers", ATTR{bind}="b100000.ring"', "bind"),
    ],
)
def test_a_rule_for_a_driver_or_the_device_of_vfio_may_change_the_device(
    machine: Machine, line: str, kind: str
) -> None:
    override = "a" if kind == "override" else ""
    assert effects(machine, line) == [(kind, override, False)]
    assert effects(machine, f'ACTION=="add", {line}') == [(kind, override, False)]


@pytest.mark.parametrize(
    "command",
    [
        "/sbin/modprobe -r vfio-platform",
        "/sbin/modprobe -qr vfio_platform",
        "modprobe --remove other vfio_platform",
        "modprobe vfio-platform -r",
        "/sbin/rmmod vfio_platform",
        "/sbin/rmmod -f vfio-platform",
        "/bin/sh -c 'sleep 1; rmmod vfio-platform'",
        "/usr/local/bin/unload",
    ],
)
@pytest.mark.parametrize("name", ["b100000.ring", "eth0"])
def test_a_driver_that_is_unloaded_is_unbound_from_all_its_devices(
    machine: Machine, command: str, name: str
) -> None:
    machine.write("/usr/local/bin/unload", "#!/bin/sh\nmodprobe -r vfio-platform\n")
    line = f'KERNEL=="{name}", RUN+="{command}"'
    assert effects(machine, line) == [("unbind", "", False)]


@pytest.mark.parametrize(
    "line",
    [
        f'{KERNEL}RUN+="/sbin/modprobe vfio-platform"',
        f'{KERNEL}RUN+="/sbin/modprobe -q vfio-platform reset_required=0"',
        f'{KERNEL}RUN+="/sbin/modprobe -r vfio-pci"',
        f'{KERNEL}RUN+="/sbin/rmmod mlx5_vfio_pci"',
        f'{KERNEL}RUN+="/sbin/rmmod vfio_platform_other"',
        f'{KERNEL}RUN+="/sbin/modprobe -r acme"',
        f'{KERNEL}RUN+="/usr/bin/tool --rm /x/remove"',
        f'{KERNEL}ATTR{{remove}}="0"',
        BELOW + 'ATTR{device/driver/unbind}="b200000.other"',
        BELOW + 'KERNELS=="b200000.other", ATTR{device/driver_override}="a"',
        BELOW + 'SUBSYSTEMS=="pci", ATTR{device/driver_override}="a"',
        BELOW + 'KERNEL=="other*", ATTR{device/driver_override}="a"',
        'SUBSYSTEM=="net", ATTR{device/driver_override}="a"',
        'SUBSYSTEM=="drivers", ATTR{unbind}="b200000.other"',
        'KERNEL=="b200000.other", ATTR{remove}="1"',
        'SUBSYSTEM=="pci", ATTR{remove}="1"',
    ],
)
def test_what_unloads_or_removes_another_one_is_not_reported(machine: Machine, line: str) -> None:
    assert effects(machine, line) == []


@pytest.mark.parametrize(
    "line",
    [
        'SUBSYSTEM=="pci", ATTR{vendor}=="0x8086", ATTR{remove}="1"',
        'ATTR{[pci/0000:01:00.0]remove}="1"',
        'SUBSYSTEM=="net", ATTR{[pci/0000:01:00.0]/remove}="1"',
        'KERNEL=="0000:01:00.0", ATTR{../remove}="1"',
        'KERNEL=="pci0000:00", ATTR{remove}="1"',
        BELOW + 'ATTR{device/remove}="1"',
        'KERNEL=="0000:01:00.0", RUN+="/bin/sh -c \'echo 1 > /sys/%p/remove\'"',
        'SUBSYSTEM=="net", RUN+="/bin/sh -c \'echo 1 > /sys/bus/pci/devices/0000:01:00.0/remove\'"',
        'SUBSYSTEM=="net", RUN+="/bin/sh -c \'echo 1 | tee %s/remove\'"' % FUNCTION_AT,
    ],
)
def test_a_function_can_be_removed(machine: Machine, line: str) -> None:
    machine.write(OTHERS, line + "\n")
    assert [(rule.kind, rule.is_sure) for rule in machine.rules(FUNCTION)] == [("remove", False)]


def test_modules_of_drivers_for_devices_of_some_vendors_are_known(machine: Machine) -> None:
    machine.write(OTHERS, 'KERNEL=="x", RUN+="/sbin/rmmod mlx5-vfio-pci"\n')
    assert [rule.kind for rule in machine.rules(FUNCTION)] == ["unbind"]


@pytest.mark.parametrize(("action", "is_reported"), [("add", False), ("change", True)])
def test_a_rule_for_the_device_itself_acts_only_at_its_event(
    machine: Machine, action: str, is_reported: bool
) -> None:
    line = f'ACTION=="change", {KERNEL}ATTR{{driver/unbind}}="b100000.ring"'
    assert effects(machine, line, action) == ([("unbind", "", True)] if is_reported else [])


def test_rules_of_distributions_are_not_reported(machine: Machine) -> None:
    lines = (
        'SUBSYSTEM=="pci", ATTR{power/control}="auto"',
        'ACTION=="remove", SUBSYSTEM=="block", RUN+="/usr/bin/umount /x"',
        'ACTION=="add", SUBSYSTEM=="module", KERNEL=="fuse", ENV{SYSTEMD_WANTS}+="x.mount"',
        'SUBSYSTEM=="vfio", KERNEL=="vfio", MODE="0666", OPTIONS+="static_node=vfio/vfio"',
        'ENV{MODALIAS}=="?*", RUN{builtin}+="kmod load"',
        'SUBSYSTEM=="usb", ATTR{authorized}="0", RUN+="/sbin/modprobe -q -b vfio-platform"',
    )
    assert effects(machine, "\n".join(lines)) == []


@pytest.mark.parametrize(
    "units",
    [
        {"a": "a " * 300},
        {f"a{number}": " ".join(f"a{other}" for other in range(40)) for number in range(40)},
        {"a@": " ".join(f"a@%i-{number}" for number in range(60))},
    ],
)
def test_units_that_start_each_other_are_each_looked_at_once(
    machine: Machine, units: dict[str, str]
) -> None:
    for name, started in units.items():
        text = f"[Service]\nExecStart=/bin/systemctl start {started}\n"
        machine.write(f"/etc/systemd/system/{name}.service", text)
    first = next(iter(units)).replace("@", "@0")
    assert effects(machine, f'{KERNEL}RUN+="/bin/systemctl start {first}"\n{SET_SHELL}') == [
        ("override", "a", True)
    ]


@pytest.mark.parametrize(
    "command",
    [
        "echo" + " " * 60000,
        "echo" + " -n" * 20000,
        "echo" + " -echo" * 10000,
        "echo " + "a" * 20000 + " " * 20000,
        "echo a > /x/bind;" * 3500,
        "driverctl set-override 0 a;" * 2200,
    ],
)
def test_a_long_command_takes_no_longer_than_others(machine: Machine, command: str) -> None:
    # udev reads no longer lines than 16 KiB, systemd does.
    unit = f"[Service]\nExecStart=/bin/sh -c '{command}'\n"
    machine.write("/etc/systemd/system/x.service", unit)
    line = f'{KERNEL}RUN+="/bin/systemctl start x"\n{SET_SHELL}'
    assert ("override", "a", True) in effects(machine, line)


def test_blanks_in_a_command_are_no_part_of_the_value(machine: Machine) -> None:
    command = "/bin/sh -c 'echo   -n   a   >   /sys/%p/driver_override'"
    assert effects(machine, f'{KERNEL}RUN+="{command}"') == [("override", "a", True)]
