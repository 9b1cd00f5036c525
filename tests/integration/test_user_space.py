"""The example of docs/user-space.md reads real registers, each way that the kernel offers.

The page is the specification: its list is applied, its samples are run, its errors are provoked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from tests.harness.calls import apply_role
from tests.harness.guests import released

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples/user-space/read_registers.py"
PAGE = (DOCS / "user-space.md").read_text()
(LIST,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SAMPLES = dict(
    re.findall(
        r"^```console\n\$ sudo python3 read_registers\.py (.+)\n((?:0x.+\n)+)```$",
        PAGE,
        re.MULTILINE,
    )
)
ROWS = re.findall(r"^\| `([^|]+)` \|", PAGE.partition("## Errors")[2], re.MULTILINE)

# A device without registers, in addition to those of the page.
KEYS = {"dt_path": "/soc/keys", "policy": "vfio", "tag": "keys"}

GROUP, OWN = "/dev/vfio/by-tag/clock", "/dev/vfio/devices/by-tag/clock"
SLOT = "/dev/vfio/by-tag/slot"
PROGRAM = "/tmp/read_registers.py"
READ = f"python3 {PROGRAM} "
STRANGER = "setpriv --reuid nobody --regid nogroup --clear-groups "
MEMBER = "setpriv --reuid nobody --regid kvm --clear-groups "
UNSAFE = "/sys/module/{}/parameters/allow_unsafe_interrupts"
TYPE1, IOMMUFD = UNSAFE.format("vfio_iommu_type1"), UNSAFE.format("iommufd")


class Case(NamedTuple):
    """Command lines that fail with a message, and commands that set up and undo the cause."""

    commands: tuple[str, ...]
    before: str = "true"
    after: str = "true"


# On board a, with the list of the page applied and interrupts allowed.
CASES = {
    "does not exist": Case((READ + "/dev/vfio/by-tag/none",)),
    "is no node of a VFIO device": Case((READ + "/dev/null", READ + "/dev/vfio/vfio")),
    "Permission denied": Case((STRANGER + READ + GROUP, STRANGER + READ + OWN)),
    "requires CAP_SYS_RAWIO": Case((MEMBER + READ + SLOT,)),
    "Stop the program that has the device open": Case(
        (
            f"exec 3<>{GROUP}; {READ}{GROUP}",
            f"exec 3<>{GROUP}; {READ}{OWN}",
        )
    ),
    "vfio_iommu_type1/parameters/allow_unsafe_interrupts": Case(
        (READ + GROUP,), f"echo N > {TYPE1}", f"echo Y > {TYPE1}"
    ),
    "iommufd/parameters/allow_unsafe_interrupts": Case(
        (READ + OWN,), f"echo N > {IOMMUFD}", f"echo Y > {IOMMUFD}"
    ),
    "The device has no region": Case((READ + "/dev/vfio/by-tag/keys",)),
    "Choose words of 4 bytes within it": Case(
        (
            f"{READ}{GROUP} --offset 2",
            f"{READ}{GROUP} --offset 0xffc --count 2",
            f"{READ}{SLOT} --offset 0x200",
        )
    ),
    "Load the module vfio_iommu_type1": Case(
        (READ + GROUP,), "rmmod vfio_iommu_type1", f"modprobe vfio_iommu_type1; echo Y > {TYPE1}"
    ),
    "Load the module that makes this node": Case(
        (READ + OWN,), "mv /dev/iommu /dev/moved", "mv /dev/moved /dev/iommu"
    ),
}
# On board d, where two devices share a group.
OF_A_GROUP = {"Choose one with --device", "is bound to a native driver"}


@pytest.fixture(scope="module", autouse=True)
def _from_nothing_to_nothing(guest: Guest, inventory: Path) -> Iterator[None]:
    guest.run("udevadm settle")
    with released(guest, inventory):
        apply_role(inventory, variables())
        guest.put(EXAMPLE, PROGRAM)
        guest.run(f"udevadm settle; echo Y > {IOMMUFD}")
        yield
        guest.run(f"echo N > {IOMMUFD}; rm {PROGRAM}")


def variables(**others: object) -> dict[str, object]:
    """Return the variables of the page, with those of ``others``."""
    listed: dict[str, object] = yaml.safe_load(LIST)
    devices = listed["passthrough_devices"]
    assert isinstance(devices, list)
    return {**listed, "passthrough_devices": [*devices, KEYS], **others}


def read(guest: Guest, arguments: str) -> str:
    return guest.run(READ + arguments).stdout


def assert_tells_the_time(guest: Guest, command: str) -> None:
    """Assert that register 0 of the clock shows the guest's time, with a tolerance of 2 s."""
    output = guest.run(f"date +%s; {command}; date +%s").stdout
    before, register, after = output.splitlines()
    offset, word = register.split()
    assert offset == "0x000"
    assert int(before) - 2 <= int(word, 16) <= int(after) + 2


def assert_fails_with(done: subprocess.CompletedProcess[str], message: str) -> None:
    """Assert that the program failed with one line that has this message and a remedy."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert message in line
    assert re.search(r"[.] [A-Z].*[.]$", line)


@pytest.mark.parametrize(
    ("link", "node"),
    [
        (GROUP, r"/dev/vfio/\d+"),
        (OWN, r"/dev/vfio/devices/vfio\d+"),
        (SLOT, r"/dev/vfio/noiommu-\d+"),
    ],
)
def test_each_link_leads_another_way(guest: Guest, link: str, node: str) -> None:
    assert re.fullmatch(node, guest.run(["readlink", "-f", link]).stdout.strip())


@pytest.mark.parametrize("link", [GROUP, OWN])
def test_the_clock_tells_the_time_of_the_guest(guest: Guest, link: str) -> None:
    assert_tells_the_time(guest, READ + link)


def test_a_member_of_the_group_needs_no_root_for_a_container(guest: Guest) -> None:
    assert_tells_the_time(guest, MEMBER + READ + GROUP)


def test_a_member_of_the_group_needs_access_to_dev_iommu_for_its_own_node(guest: Guest) -> None:
    refused = guest.run(MEMBER + READ + OWN, check=False)
    assert_fails_with(refused, "/dev/iommu: Permission denied")
    guest.run("chgrp kvm /dev/iommu")
    assert_tells_the_time(guest, MEMBER + READ + OWN)
    guest.run("chgrp root /dev/iommu")


@pytest.mark.parametrize("arguments", SAMPLES)
def test_the_samples_of_the_page_are_what_the_program_prints(guest: Guest, arguments: str) -> None:
    shown, printed = SAMPLES[arguments], read(guest, arguments)
    if arguments == GROUP:
        # The sample was recorded at another time.
        shown, printed = (re.sub(r"(?<= 0x)\w{8}", "TIME", text) for text in (shown, printed))
    assert printed == shown


def test_a_list_allows_containers_and_takes_it_back(guest: Guest, inventory: Path) -> None:
    """The clock's interrupts are not isolated: with EPERM if the list forbids it, and without."""
    option = "passthrough_unsafe_interrupts"
    modprobe = "cat /etc/modprobe.d/armfleet-vfio.conf"
    try:
        apply_role(inventory, variables(**{option: False}))
        assert guest.run(["cat", TYPE1]).stdout == "N\n"
        assert "vfio_iommu_type1 allow_unsafe_interrupts=0\n" in guest.run(modprobe).stdout
        refused = guest.run(READ + GROUP, check=False)
        assert_fails_with(refused, "vfio_iommu_type1/parameters/allow_unsafe_interrupts")
        apply_role(inventory, variables(**{option: True}))
        assert guest.run(["cat", TYPE1]).stdout == "Y\n"
        assert "vfio_iommu_type1 allow_unsafe_interrupts=1\n" in guest.run(modprobe).stdout
        assert_tells_the_time(guest, READ + GROUP)
        apply_role(inventory, {"passthrough_devices": []})
        assert guest.run(["cat", TYPE1]).stdout == "N\n"
    finally:
        apply_role(inventory, variables())
        guest.run("udevadm settle")


def test_the_page_has_a_sample_of_each_way() -> None:
    assert {arguments.split()[0] for arguments in SAMPLES} == {GROUP, OWN, SLOT}


def test_less_than_a_page_is_read_from_any_offset(guest: Guest) -> None:
    words = read(guest, f"{SLOT} --count 3").splitlines()
    assert read(guest, f"{SLOT} --offset 4 --count 2").splitlines() == words[1:]


def test_each_row_of_the_page_is_provoked() -> None:
    assert {*CASES, *OF_A_GROUP} == set(ROWS)


@pytest.mark.parametrize("row", CASES)
def test_an_error_says_what_to_do(guest: Guest, row: str) -> None:
    case = CASES[row]
    guest.run(case.before)
    try:
        for command in case.commands:
            assert_fails_with(guest.run(command, check=False), row)
    finally:
        guest.run(case.after)


@pytest.fixture(scope="module")
def board_d(start: Callable[[str, str], Guest]) -> Guest:
    """Start a guest whose pl031 has no IOMMU, and which has two devices in one group."""
    guest = start("test-user-space-d", "d")
    guest.put(EXAMPLE, PROGRAM)
    guest.run("udevadm settle; modprobe vfio-platform reset_required=0; modprobe vfio-amba")
    return guest


def bind(guest: Guest, bus: str, device: str) -> str:
    """Bind a device to the VFIO driver of its bus, and return its group."""
    script = """
        cd /sys/bus/$1/devices/$2
        echo vfio-$1 > driver_override
        [ ! -e driver ] || echo $2 > driver/unbind
        echo $2 > /sys/bus/$1/drivers_probe
        udevadm settle
        basename $(readlink iommu_group)
    """
    return guest.run(["sh", "-ec", script, "sh", bus, device]).stdout.strip()


def test_a_clock_without_an_iommu_is_mapped_as_well(board_d: Guest) -> None:
    board_d.run("echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
    group = bind(board_d, "amba", "9010000.pl031")
    assert_tells_the_time(board_d, f"{READ}/dev/vfio/noiommu-{group}")


def test_a_group_of_several_devices(board_d: Guest) -> None:
    pair, native = "b015000.pair", "b014000.pair"
    # A device joins its group when it is probed, on a slow boot too late for the sibling.
    for action in ("unbind", "bind"):
        board_d.run(f"echo {native} > /sys/bus/platform/drivers/acme-ring/{action}")
    node = "/dev/vfio/" + bind(board_d, "platform", pair)
    nameless = board_d.run(READ + node, check=False)
    assert_fails_with(nameless, f"{node} is the node of {native}, {pair}. Choose one with --device")
    named = board_d.run(f"{READ}{node} --device {pair}", check=False)
    assert_fails_with(named, "is bound to a native driver")
