"""Names that local users and firmware choose neither stop a run nor get into a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.guest.packages import STOCK_SERIES
from tests.harness.calls import apply_vfio, info
from tests.harness.sysfs import read_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

HOSTILE, RING = "/soc/hostile@b030000", "/soc/ring@b100000"

# A user's own mounts. Their paths have separators that the kernel does not escape, and one path
# forges a line of mountinfo.
_MOUNT = r"""
import os, signal
for name in ("\x1c", "\u2028\x85\xa0", "\x1b[31m", "a\x1c9 1 254:0 x y rw - ext4 a rw"):
    os.mkdir("/tmp/" + name)
    assert not os.system("mount -t tmpfs none '/tmp/%s'" % name)
open("/run/eve/held", "w").close()
signal.pause()
"""
# A user's own file, open and mapped, that has the path of a node in the user's mount namespace.
_PRETEND = r"""
import mmap, os, signal, sys
node = sys.argv[1]
assert not os.system("mount -t tmpfs none %s" % os.path.dirname(node))
held = os.open(node, os.O_RDWR | os.O_CREAT)
os.truncate(held, 4096)
memory = mmap.mmap(held, 4096)
other = os.open("/dev/null", os.O_RDONLY)
named = os.open(os.path.dirname(node) + "/x anon_inode:[vfio-device]", os.O_RDWR | os.O_CREAT)
os.truncate(named, 4096)
more = mmap.mmap(named, 4096)
open("/run/eve/held", "w").close()
signal.pause()
"""


@pytest.fixture(scope="module")
def guest(start: Callable[..., Guest]) -> Guest:
    # This kernel lets users create namespaces.
    guest = start("test-untrusted", "g", STOCK_SERIES)
    guest.run("cat > /srv/mount.py", input=_MOUNT)
    guest.run("cat > /srv/pretend.py", input=_PRETEND)
    return guest


@pytest.fixture(autouse=True)
def _from_nothing_to_nothing(released_guest: None) -> None:
    """Each test's list is released."""


@pytest.fixture
def user(guest: Guest) -> Iterator[Callable[..., None]]:
    """Yield a function that runs a program as a user who is root of a mount namespace."""
    guest.run("mkdir -p /run/eve && chown nobody /run/eve")

    def run(program: str, *words: str) -> None:
        guest.run(
            "systemd-run --quiet --unit=eve -p User=nobody -p PrivateTmp=yes unshare -Urm "
            f"python3 /srv/{program} {' '.join(words)}"
        )
        guest.run("until [ -e /run/eve/held ]; do systemctl is-active --quiet eve || exit 1; done")

    yield run
    guest.run("systemctl stop eve; rm -rf /run/eve")


def test_a_users_mounts_stop_no_run_and_forge_nothing(
    guest: Guest, inventory: Path, user: Callable[..., None]
) -> None:
    user("mount.py")
    reported = [hazard["message"] for device in info(inventory) for hazard in device["in_use_by"]]
    assert [sentence for sentence in reported if "disk vda" in sentence]
    assert all(sentence.isprintable() for sentence in reported)
    assert not [sentence for sentence in reported if "cannot be parsed" in sentence]
    applied = apply_vfio(inventory, RING)
    assert applied.code == 0, applied.output
    assert read_machine(guest).at(RING).driver == "vfio-platform"


def test_a_users_own_file_that_is_called_like_a_node_keeps_no_device(
    guest: Guest, inventory: Path, user: Callable[..., None]
) -> None:
    assert apply_vfio(inventory, RING).code == 0
    group = read_machine(guest).at(RING).group
    user("pretend.py", f"/dev/vfio/{group}")
    released = apply_vfio(inventory)
    assert released.code == 0, released.output
    assert read_machine(guest).at(RING).driver == "acme-ring"


def test_the_words_of_firmware_delete_nothing(guest: Guest, inventory: Path) -> None:
    guest.run("mkdir -p /srv/data && touch /srv/data/file")
    applied = apply_vfio(inventory, HOSTILE)
    assert applied.code == 0, applied.output
    device = read_machine(guest).at(HOSTILE)
    # It looks for changed rules every three seconds.
    guest.run("udevadm control --reload")
    for _round in range(2):
        guest.run(f"echo {device.name} > /sys/bus/platform/drivers/vfio-platform/unbind")
        guest.run("udevadm settle")
        assert guest.run("test -e /srv/data/file", check=False).returncode == 0
        assert guest.run("find /dev/vfio -name '*hostile*'").stdout == ""
        guest.run(f"echo {device.name} > /sys/bus/platform/drivers/vfio-platform/bind")
        guest.run("udevadm settle")
        links = guest.run("find /dev/vfio -path '*by-path*' -type l -printf '%f\\n'").stdout.split()
        assert set(links) == {"soc:hostile@b030000"}
