"""Guests that tests share; each test file starts from devices that nobody has touched.

A directory of tests that wants them names them in its conftest.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.guest import Guest, write_inventory
from tests.guest.packages import DEFAULT_SERIES
from tests.harness.playbook import play
from tests.harness.sysfs import state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.sysfs import State

# Traces each file that a module run opens or asks for.
_TRACED_PYTHON = """\
#!/bin/sh
exec strace -f --seccomp-bpf -qq -e trace=%file -e signal=none -o /root/trace \\
    /usr/bin/python3 "$@"
"""


@pytest.fixture(scope="session")
def kernel(request: pytest.FixtureRequest) -> str:
    """The kernel that is asked for, by its name in tests.guest.packages."""
    return str(request.config.getoption("--kernel") or DEFAULT_SERIES)


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Guest]]:
    """Starts a guest by name, board and kernel with a disk that nobody has used."""
    started: list[Guest] = []

    def start_one(name: str, board: str, kernel: str = DEFAULT_SERIES) -> Guest:
        guest = Guest(name, board, kernel)
        started.append(guest)
        guest.start(fresh=True)
        guest.run(
            "cat > /root/traced-python && chmod 755 /root/traced-python", input=_TRACED_PYTHON
        )
        return guest

    yield start_one
    for guest in started:
        guest.stop()


@pytest.fixture(scope="module")
def guest(start: Callable[..., Guest], kernel: str) -> Guest:
    """A guest with board a and the kernel that is asked for."""
    # Parts of a run of tests that have other kernels run beside each other.
    name = "test-a" if kernel == DEFAULT_SERIES else f"test-a-{kernel}"
    return start(name, "a", kernel)


@pytest.fixture(scope="module")
def inventory(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inventory of that guest alone."""
    path = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    write_inventory(path, [guest])
    return path


@contextmanager
def unchanged(guest: Guest) -> Iterator[None]:
    """Fail if a device has another driver or override afterwards, or a file of ours differs."""
    before = state(guest)
    yield
    # Asked over ssh, so that the network answers as well.
    assert state(guest) == before


@contextmanager
def released(guest: Guest, inventory: Path) -> Iterator[None]:
    """Release the list afterwards, and fail if anything is left of it."""
    with unchanged(guest):
        yield
        assert play(inventory, "armfleet.vfio.release").code == 0


@pytest.fixture(scope="module")
def states(guest: Guest) -> list[State]:
    """The state before the first test that changes nothing, and after each of them."""
    return [state(guest)]


@pytest.fixture
def unchanged_guest(guest: Guest, states: list[State]) -> Iterator[None]:
    """The guest, in which a test changes nothing; all tests of its file are such tests."""
    yield
    # Asked over ssh, so that the network answers as well.
    states.append(state(guest))
    assert states[-1] == states[-2]


@pytest.fixture
def released_guest(
    unchanged_guest: None,  # noqa: ARG001 (it looks at the guest after the release)
    inventory: Path,
) -> Iterator[None]:
    """The guest, whose list is released after the test; it leaves nothing."""
    yield
    assert play(inventory, "armfleet.vfio.release").code == 0
