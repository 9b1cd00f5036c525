# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes of a simulated host see a normal /sys; the machine that runs it is unchanged."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from extensions.simulator.__main__ import main
from extensions.simulator.control import ask
from extensions.simulator.host import Host, Plan, running, start
from extensions.simulator.inventory import inventory
from tests.simulated.boards import Part, device_tree, flattened

NAME = "test-host"
DEVICE = "1000.net"
PARTS = (
    Part("net", False, True, False, False, None),
    Part("crypto", True, True, False, True, None),
)
DRIVERS = """
kernel: {groups_at_boot: true}
drivers:
  - {name: acme-net, compatible: ["acme,net"], remove: never}
"""
OVERRIDE = f"/sys/bus/platform/devices/{DEVICE}/driver_override"
UNBIND = "/sys/bus/platform/drivers/acme-net/unbind"

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    (tmp_path / "board.dtb").write_bytes(flattened(device_tree(PARTS)))
    (tmp_path / "drivers.yml").write_text(DRIVERS)
    return tmp_path / "board.dtb"


@pytest.fixture
def host(board: Path) -> Iterator[Host]:
    (host,) = start([Plan(NAME, board, board.with_name("drivers.yml"))])
    yield host
    host.stop()


def login(host: Host) -> list[str]:
    """Return the command that connects to the host, as in the inventory."""
    (group,) = yaml.safe_load(inventory([host])).values()
    return [group["vars"]["ansible_ssh_executable"], group["hosts"][host.name]["ansible_host"]]


def on(host: Host, command: str, data: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*login(host), command], input=data, capture_output=True, text=True, check=False, timeout=60
    )


def reported(host: Host, command: str) -> str:
    done = on(host, command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_process_on_the_host_sees_the_board(host: Host) -> None:
    assert reported(host, f"readlink /sys/bus/platform/devices/{DEVICE}/driver").endswith(
        "acme-net"
    )
    assert reported(host, "tr '\\0' , </sys/firmware/devicetree/base/compatible") == "acme,board,"
    assert reported(host, "hostname") == NAME
    own = reported(host, "ls -d /proc/[0-9]*").splitlines()
    assert "/proc/1" in own
    assert len(own) < len(list(Path("/proc").glob("[0-9]*")))


def test_a_write_has_the_kernels_effect_and_its_errno(host: Host) -> None:
    assert reported(host, f"echo vfio-platform >{OVERRIDE}; cat {OVERRIDE}") == "vfio-platform"
    refused = on(host, "tee /sys/bus/platform/drivers/acme-net/bind", "nothing")
    assert "No such device" in refused.stderr
    assert ask(host.control, do="writes")[-1] == [
        "bus/platform/drivers/acme-net/bind",
        "nothing",
        19,
    ]


def test_what_is_gone_is_gone_at_once(host: Host) -> None:
    home = "/sys/module/vfio_platform"
    parameter = f"{home}/parameters/reset_required"
    looks = (f"ls {home}", f"cd {home}", f"test -r {parameter}", f"cat {parameter}")
    reported(host, "modprobe vfio-platform")
    for look in looks:
        reported(host, look)
    reported(host, "modprobe --remove vfio-platform")
    assert not [look for look in looks if on(host, look).returncode == 0]


def test_a_user_may_what_the_modes_say(host: Host) -> None:
    as_user = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    assert reported(host, f"{as_user} cat {OVERRIDE}") == "(null)"
    for look in ("tee", "test -w"):
        assert on(host, f"{as_user} {look} {OVERRIDE}", "x").returncode
        assert not on(host, f"{look} {OVERRIDE}", "x").returncode


def test_modprobe_on_the_host_loads_a_simulated_module(host: Host) -> None:
    reported(host, "echo 'options vfio_platform reset_required=N' >/etc/modprobe.d/test.conf")
    reported(host, "modprobe vfio-platform")
    assert reported(host, "cat /sys/module/vfio_platform/parameters/reset_required") == "N"
    assert "not found in directory" in on(host, "modprobe acme-missing").stderr


def test_a_remove_that_never_returns_hangs_the_writer_alone(host: Host) -> None:
    # The writer runs until the host is stopped: nothing else can end it.
    command = f"echo {DEVICE} >{UNBIND}"
    writer = subprocess.Popen([*login(host), command], stdin=subprocess.DEVNULL)
    assert reported(
        host, f"until grep -q {DEVICE} /proc/[0-9]*/cmdline; do :; done; cat {OVERRIDE}"
    )
    assert writer.poll() is None
    host.stop()
    assert writer.wait(60)


def test_nothing_of_a_host_is_seen_from_outside_nor_left_when_it_is_stopped(host: Host) -> None:
    reported(host, "touch /etc/only-on-the-host /root/only-on-the-host")
    assert not Path("/etc/only-on-the-host").exists()
    assert str(host.directory) not in Path("/proc/self/mountinfo").read_text()
    assert host in running()
    host.stop()
    assert host not in running()
    assert not host.directory.exists()


def test_each_host_has_a_machine_of_its_own(host: Host, board: Path) -> None:
    (other,) = start([Plan(NAME + "-2", board)])
    try:
        reported(host, f"echo only-here >{OVERRIDE}")
        assert reported(other, f"cat {OVERRIDE}") == "(null)"
    finally:
        other.stop()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"no device tree at all", "is not a device tree"),
        (None, "is truncated"),
    ],
)
def test_a_bad_board_file_gives_one_line_of_error(
    board: Path, capfd: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    bad = board.with_name("bad.dtb")
    bad.write_bytes(board.read_bytes()[:200] if content is None else content)
    assert main(["start", NAME, "--dtb", str(bad)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("simulator: ")
    assert str(bad) in line
    assert reason in line
    assert not Host(NAME).directory.exists()


@pytest.mark.parametrize("option", ["--dtb", "--acpi", "--drivers"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/dev/zero", "is not a regular file"),
        ("fifo", "is not a regular file"),
        ("large", "is larger than"),
        (".", "Is a directory"),
        ("missing", "No such file or directory"),
    ],
)
def test_a_file_that_never_ends_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str, path: str, reason: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(1 << 30)
    assert main(["start", NAME, option, str(tmp_path / path)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert reason in line


def test_a_board_on_which_nothing_is_in_use_is_reported_first(
    board: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    note = f"simulator: No disk or network interface of {NAME} is in use, because none is described"
    for uses in ([], [f"--carries={DEVICE} eth0 up"]):
        assert main(["start", NAME, "--dtb", str(board), *uses]) == 0
        Host(NAME).stop()
        assert capfd.readouterr().err.startswith(note) is not uses


def test_an_error_of_a_line_is_printed_without_terminal_escapes(
    board: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = f"{DEVICE} \x1b]0;title\x07 up"
    assert main(["start", NAME, "--dtb", str(board), "--carries", line]) == 1
    error = capfd.readouterr().err
    assert error.startswith(f"simulator: line 1: '{DEVICE} \\x1b]0;title\\x07 up' has ")
    assert error.rstrip("\n").isprintable()


def test_a_board_has_a_device_tree_or_a_list_of_acpi_devices(
    board: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["start", NAME, "--dtb", str(board), "--acpi", str(board)]) == 1
    assert "has a device tree and a list of ACPI devices" in capfd.readouterr().err


def test_no_interface_is_created_in_the_network_of_this_machine(
    board: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = os.listdir("/sys/class/net")
    uses = [f"--carries={DEVICE} eth7 192.0.2.7/24 default"]
    assert main(["serve", NAME, "--dtb", str(board), *uses]) == 0
    try:
        assert main(["network", NAME, str(os.getpid())]) == 1
        assert "shares the network of this machine" in capfd.readouterr().err
        assert main(["network", NAME, "999999999"]) == 1
        assert "has no network" in capfd.readouterr().err
    finally:
        Host(NAME).stop()
    assert os.listdir("/sys/class/net") == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("drivers: [", "is not YAML"),
        ("driver: []", "unknown driver; known: kernel"),
        ("drivers: [{name: x, bus: usb}]", "'usb' is not one of platform, amba, pci"),
        ("drivers: [{name: x, probe: OOPS}]", "'OOPS' is not the name of an error"),
        ("kernel: {vfio: perhaps}", "'perhaps' is not one of module, built-in, absent"),
    ],
)
def test_a_bad_description_gives_one_line_of_error(
    board: Path, capfd: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    bad = board.with_name("bad.yml")
    bad.write_text(text)
    assert main(["start", NAME, "--dtb", str(board), "--drivers", str(bad)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert str(bad) in line
    assert reason in line
