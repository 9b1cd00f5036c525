"""Guests that tests share; each test file starts with devices in their state after boot.

A directory of tests imports the fixtures in its conftest.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.guest import Guest, write_inventory
from tests.guest.packages import DEFAULT_SERIES
from tests.guest.userlands import DEFAULT_SUITE, userland_named
from tests.harness.loaded_python import BY_ITSELF, load_python
from tests.harness.playbook import play
from tests.harness.sysfs import state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.sysfs import State

# Traces each file that a run of a module opens or queries.
_TRACED_PYTHON = f"""\
#!/bin/sh
export {BY_ITSELF}=yes
exec strace -f --seccomp-bpf -qq -e trace=%file -e signal=none -o /root/trace \\
    /usr/bin/python3 "$@"
"""


@pytest.fixture(scope="session")
def kernel(request: pytest.FixtureRequest) -> str:
    """Return the kernel of ``--kernel``, by its name in tests.guest.packages."""
    return str(request.config.getoption("--kernel") or DEFAULT_SERIES)


class Guests:
    """Guests with unused disks, which are stopped together."""

    def __init__(self, userland: str = DEFAULT_SUITE) -> None:
        self._userland = userland_named(userland)
        self._started: list[Guest] = []

    def start(self, name: str, board: str, kernel: str = DEFAULT_SERIES) -> Guest:
        # Parts of a test run that have different userlands run at the same time.
        guest = Guest(self._userland.named(name), board, kernel, self._userland.suite)
        self._started.append(guest)
        guest.start(fresh=True)
        guest.run(
            "cat > /root/traced-python && chmod 755 /root/traced-python", input=_TRACED_PYTHON
        )
        load_python(guest)
        return guest

    def stop(self) -> None:
        for guest in self._started:
            guest.stop()


@pytest.fixture(scope="module")
def start(pytestconfig: pytest.Config) -> Iterator[Callable[..., Guest]]:
    """Yield a function that starts a guest by name, board and kernel, with ``--userland``."""
    guests = Guests(pytestconfig.getoption("--userland") or DEFAULT_SUITE)
    yield guests.start
    guests.stop()


@pytest.fixture(scope="module")
def guest(start: Callable[..., Guest], kernel: str) -> Guest:
    """Start a guest with board a and the kernel of ``--kernel``."""
    # Parts of a test run that have different kernels run at the same time.
    name = "test-a" if kernel == DEFAULT_SERIES else f"test-a-{kernel}"
    return start(name, "a", kernel)


@pytest.fixture(scope="module")
def inventory(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an inventory with only this guest."""
    path = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    write_inventory(path, [guest])
    return path


@contextmanager
def unchanged(guest: Guest) -> Iterator[None]:
    """Fail if the block changes a device's driver or override, or one of our files."""
    before = state(guest)
    yield
    # Read over ssh, which shows that the network works as well.
    assert state(guest) == before


@contextmanager
def released(guest: Guest, inventory: Path) -> Iterator[None]:
    """Release the list afterwards, and fail if anything is left of it."""
    with unchanged(guest):
        yield
        assert play(inventory, "armfleet.vfio.release").code == 0


@pytest.fixture(scope="module")
def states(guest: Guest) -> list[State]:
    """Return the state before the first test of a file; each test appends the state after it."""
    return [state(guest)]


@pytest.fixture
def unchanged_guest(guest: Guest, states: list[State]) -> Iterator[None]:
    """Fail if the test changes the guest; all tests of its file must use this fixture."""
    yield
    # Read over ssh, which shows that the network works as well.
    states.append(state(guest))
    assert states[-1] == states[-2]


@pytest.fixture
def released_guest(
    unchanged_guest: None,  # noqa: ARG001 (it looks at the guest after the release)
    inventory: Path,
) -> Iterator[None]:
    """Release the list after the test, and fail if anything is left of it."""
    yield
    assert play(inventory, "armfleet.vfio.release").code == 0
