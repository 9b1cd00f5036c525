"""The main job on one guest: each test continues where the previous one ended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import list_applier
from tests.harness.playbook import Run, play
from tests.harness.program_versions import program_versions
from tests.harness.sysfs import files, read_machine
from tests.harness.tracing import TRACED, state_writes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

HOST_POLICY = "armfleet.vfio.host_policy"
VFIO = ("vfio-platform", "vfio-platform")

FULL = (
    "mkdir -p -m 700 %(directory)s && mount -t tmpfs -o size=4k,mode=700 none %(directory)s && "
    "echo > %(directory)s/x"
)
BOOT_FILES = (
    "/etc/udev/rules.d/70-armfleet-vfio.rules",
    "/etc/modprobe.d/armfleet-vfio.conf",
    "/etc/modules-load.d/armfleet-vfio.conf",
)

# udev reports a line of it whenever it reads all rules again.
BROKEN = "/etc/udev/rules.d/99-broken.rules"
# The first release of systemd whose udevadm checks rule files.
HAS_VERIFY = 254

RTC = "9010000.pl031"
LIST: list[dict[str, Any]] = [
    {"dt_path": "crypto0", "policy": "vfio", "when_board": ["acme,none", "linux,dummy-virt"]},
    {"compatible": "acme,dma", "expect": 2, "policy": "vfio"},
    {"dt_path": "/soc/engine@b005000", "policy": "vfio"},
    {"dt_path": "/soc/ethernet@e0700000", "policy": "vfio"},
    {"name": RTC, "bus": "amba", "policy": "no_autobind"},
    {"dt_path": "/soc/ring@b100000", "policy": "driver", "driver": "acme-ring"},
    {"dt_path": "/proc/device-tree/soc/ring@b101000", "policy": "default"},
    {"compatible": "acme,nowhere", "required": False, "policy": "vfio"},
    # The name that the same machine has when it boots with ACPI.
    {"compatible": "acme,ring", "policy": "no_autobind", "when_board": "QEMU Virtual Machine"},
]
WANTED = {
    "/soc/crypto@b000000": VFIO,
    "/soc/dma@b001000": VFIO,
    "/soc/dma@b002000": VFIO,
    "/soc/engine@b005000": ("vfio-amba", "vfio-amba"),
    "/soc/ethernet@e0700000": VFIO,
    "/pl031@9010000": (None, "none"),
    "/soc/ring@b100000": ("acme-ring", "acme-ring"),
    "/soc/ring@b101000": ("acme-ring", None),
}
SETTINGS = {
    "passthrough_reset_required": False,
    "passthrough_allow": ["clock"],
    "passthrough_vfio_group": "users",
    "passthrough_vfio_mode": "0660",
}
apply = list_applier(LIST, SETTINGS)


def attempt(inventory: Path, *arguments: str) -> Run:
    variables = dict(SETTINGS, passthrough_devices=LIST)
    return play(inventory, "armfleet.vfio.apply", *arguments, variables=variables)


def assert_as_wanted(guest: Guest) -> None:
    machine = read_machine(guest)
    assert {path: machine.at(path).binding for path in WANTED} == WANTED


def assert_nodes_are_open_to_the_group(guest: Guest) -> None:
    machine = read_machine(guest)
    nodes = [
        f"/dev/vfio/{device.group}"
        for device in machine.devices
        if (device.driver or "").startswith("vfio-")
    ]
    assert len(nodes) == 5
    seen = guest.run(["stat", "--format", "%G %a", *nodes]).stdout.splitlines()
    assert seen == ["users 660"] * len(nodes)


def read_of_the_host(guest: Guest) -> set[str]:
    """Return the paths of the host's state that the module accessed in the last traced run."""
    trace = guest.run("cat /root/trace").stdout
    return {
        path
        for path in re.findall(r'"(/(?:sys|proc|etc|dev|run|lib|usr/lib/udev)/[^"]*)"', trace)
        if not path.startswith("/run/armfleet-vfio/")
    }


def systemd_version(guest: Guest) -> int:
    return int(first_number(guest.run("udevadm --version").stdout))


def first_number(text: str) -> str:
    match = re.search(r"\d+(\.\d+)*", text)
    return match[0] if match else ""


class Story:
    """What later tests compare with."""

    untouched: dict[str, tuple[str | None, str | None]]
    predicted: Run
    first: Run
    second: Run
    read: set[str]


def test_the_board_is_named_by_its_device_tree(guest: Guest, inventory: Path) -> None:
    board = play(inventory, "armfleet.vfio.boards").of("armfleet.vfio.device_info")["board"]
    shown = guest.run("tr '\\0' '\\n' </proc/device-tree/compatible").stdout.splitlines()
    assert board == {"compatible": shown, "product_name": None, "board_name": None}


def test_the_guest_has_the_programs_of_the_table(guest: Guest) -> None:
    systemd, kmod, dracut, _driverctl, python = program_versions()[guest.userland.suite]
    assert str(systemd_version(guest)) == systemd
    assert first_number(guest.run("kmod --version").stdout).split(".")[0] == kmod
    assert first_number(guest.run("python3 --version").stdout).rpartition(".")[0] == python
    # That of bullseye does not know its own version.
    files = "/usr/bin/dracut /usr/lib/dracut/dracut-version.sh"
    declared = guest.run(f"grep -hs ^DRACUT_VERSION= {files} || true").stdout
    assert first_number(declared) in (dracut, "")


def test_a_check_touches_nothing(guest: Guest, inventory: Path) -> None:
    Story.untouched = read_machine(guest).bindings
    Story.predicted = apply(inventory, "--check", "--diff")
    assert read_machine(guest).bindings == Story.untouched
    assert files(guest) == {}


@pytest.mark.parametrize(
    ("directory", "mount", "problems"),
    [
        (
            "/etc",
            "mount --bind /etc /etc && mount -o remount,bind,ro /etc",
            [f"Cannot write {path}: Read-only file system (EROFS, " for path in BOOT_FILES],
        ),
        (
            "/run/armfleet-vfio",
            FULL % {"directory": "/run/armfleet-vfio"},
            ["Cannot lock /run/armfleet-vfio/lock: No space left on device (ENOSPC, "],
        ),
    ],
    ids=["read-only /etc", "full /run"],
)
def test_where_nothing_can_be_written_no_device_is_touched(
    guest: Guest, inventory: Path, directory: str, mount: str, problems: list[str]
) -> None:
    guest.run(mount)
    try:
        run = attempt(inventory, *TRACED)
        writes = state_writes(guest)
        checked = attempt(inventory, "--check") if directory == "/etc" else None
    finally:
        guest.run(f"umount {directory}")
    message = run.of(HOST_POLICY)["msg"]
    assert "/run/armfleet-vfio/lock" in guest.run("cat /root/trace").stdout
    assert writes == []
    for problem in problems:
        assert problem in message
    assert "rolled back" not in message
    assert read_machine(guest).bindings == Story.untouched
    assert files(guest) == {}
    left = guest.run("find /etc -name '.armfleet*'; ls /run/armfleet-vfio").stdout
    assert left.split() in (["lock"], [])
    if checked:
        assert checked.of(HOST_POLICY)["msg"] == message
        assert "was interrupted" not in apply(inventory, "--check").output


def test_the_first_run_does_what_the_check_predicted(guest: Guest, inventory: Path) -> None:
    run = Story.first = apply(inventory, "--diff")
    predicted, done = Story.predicted.of(HOST_POLICY), run.of(HOST_POLICY)
    assert predicted["diff"] == done["diff"]
    assert predicted["boot_files"] == done["boot_files"]
    assert predicted["host_steps"] == done["host_steps"]
    assert predicted["changed"] is done["changed"] is True
    # update-initramfs is installed, but there is no image to update.
    assert "there is no /boot/initrd.img-* to add them to" in run.output
    assert run.changed == {guest.name: 1}
    for before, after in zip(predicted["devices"], done["devices"], strict=True):
        # A group and its node are created when the driver is bound: check mode cannot know them.
        born = ("iommu_group", "vfio_nodes", "links")
        assert {key: before[key] for key in before if key not in born} == {
            key: after[key] for key in after if key not in born
        }
    assert_as_wanted(guest)
    others = {
        name: binding
        for name, binding in read_machine(guest).bindings.items()
        if binding != Story.untouched[name]
    }
    assert len(others) == len(WANTED) - 1, others


def test_every_vfio_device_has_the_node_that_was_reported(guest: Guest) -> None:
    reported = Story.first.of(HOST_POLICY)["devices"]
    machine = read_machine(guest)
    given = [device for device in reported if (device["driver"] or "").startswith("vfio-")]
    assert len(given) == 5
    for device in given:
        group = machine.named(device["name"]).group
        assert group in machine.nodes
        assert device["iommu_group"] == group
        assert f"/dev/vfio/{group}" in device["vfio_nodes"]
    assert_nodes_are_open_to_the_group(guest)


def test_the_second_run_writes_nothing(guest: Guest, inventory: Path) -> None:
    run = apply(inventory, *TRACED)
    assert run.changed == {guest.name: 0}
    assert "/sys/bus/platform/devices" in guest.run("cat /root/trace").stdout
    assert state_writes(guest) == []
    Story.second, Story.read = run, read_of_the_host(guest)
    assert Story.read >= {*BOOT_FILES, "/proc/cmdline"}


def test_the_third_run_gives_the_answer_of_the_second_for_it_reads_the_same(
    guest: Guest, inventory: Path
) -> None:
    kept = "stat --format '%n %i %s %y' /run/armfleet-vfio/last-answer-*"
    before = guest.run(kept).stdout
    run = apply(inventory, *TRACED)
    assert guest.run(kept).stdout == before
    assert run.of(HOST_POLICY) == Story.second.of(HOST_POLICY)
    # What is no longer there cannot be read again: processes end.
    unread = {
        path
        for path in Story.read - read_of_the_host(guest)
        if guest.run(["test", "-e", path], check=False).returncode == 0
    }
    assert unread == set()
    assert state_writes(guest) == []


def test_what_somebody_changes_manually_is_seen_by_the_next_run(
    guest: Guest, inventory: Path
) -> None:
    guest.run("echo b001000.dma > /sys/bus/platform/drivers/vfio-platform/unbind")
    assert apply(inventory, "--check").changed == {guest.name: 1}
    assert apply(inventory).changed == {guest.name: 1}
    assert_as_wanted(guest)


def test_the_trace_would_show_a_write(guest: Guest) -> None:
    guest.run(
        '/root/traced-python -c \'open("/sys/bus/platform/uevent", "w").close()\'', check=False
    )
    assert len(state_writes(guest)) == 1


def test_udev_replays_the_rules_and_nothing_changes(guest: Guest) -> None:
    before = read_machine(guest).bindings
    guest.run(
        "udevadm trigger --action=add --settle --subsystem-match=platform --subsystem-match=amba"
    )
    assert read_machine(guest).bindings == before


def test_udev_takes_the_rules_without_a_complaint(guest: Guest) -> None:
    rules = BOOT_FILES[0]
    guest.run(f"cat > {BROKEN}", input='KERNEL=="x", NOTHING=="y"\n')
    guest.run("udevadm control --reload")
    guest.run("udevadm trigger --action=change --settle /sys/devices/virtual/mem/null")
    logged = guest.run("journalctl --boot --unit=systemd-udevd --output=cat").stdout
    guest.run(f"rm {BROKEN}; udevadm control --reload")
    assert BROKEN in logged
    assert [line for line in logged.splitlines() if rules in line] == []
    if systemd_version(guest) >= HAS_VERIFY:
        verified = guest.run(["udevadm", "verify", rules], check=False)
        assert (verified.returncode, verified.stderr) == (0, ""), verified.stdout


def test_after_a_reboot_everything_is_as_it_was(guest: Guest, inventory: Path) -> None:
    guest.reboot()
    assert_as_wanted(guest)
    assert_nodes_are_open_to_the_group(guest)
    run = apply(inventory)
    assert run.changed == {guest.name: 0}
    assert guest.run("systemctl is-system-running").stdout.strip() == "running"


def test_what_is_taken_off_the_list_is_given_back(guest: Guest, inventory: Path) -> None:
    shorter = [entry for entry in LIST if "compatible" not in entry]
    run = apply(inventory, "--diff", devices=shorter)
    machine = read_machine(guest)
    assert machine.at("/soc/dma@b001000").binding == ("acme-ring", None)
    assert machine.at("/soc/dma@b002000").binding == ("acme-ring", None)
    assert machine.at("/soc/crypto@b000000").binding == VFIO
    assert "(released)" in run.output
    assert '-# policy: {"compatible": "acme,dma"' in run.output
    assert apply(inventory, devices=shorter).changed == {guest.name: 0}


def test_release_gives_everything_back(guest: Guest, inventory: Path) -> None:
    run = play(inventory, "armfleet.vfio.release")
    assert run.code == 0, run.output
    assert read_machine(guest).bindings == Story.untouched
    assert files(guest) == {}
    # No file is left that a boot would read.
    assert guest.run("find /etc /boot -name '*armfleet*'").stdout == ""
    assert play(inventory, "armfleet.vfio.release").changed == {guest.name: 0}


def test_after_another_reboot_nothing_is_left_of_us(guest: Guest) -> None:
    guest.reboot()
    assert read_machine(guest).bindings == Story.untouched
