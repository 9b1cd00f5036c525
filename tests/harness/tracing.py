"""What a run of a module opened for writing below /sys of a guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.guest import Guest

# For ansible-playbook: modules run by the interpreter that tests.harness.guests puts on a guest.
TRACED = ("-e", "ansible_python_interpreter=/root/traced-python")


def state_writes(guest: Guest) -> list[str]:
    """Return the calls of the last traced run; assert that there was one."""
    guest.run("test -s /root/trace")
    shown = guest.run("grep /sys/ /root/trace | grep -E 'O_WRONLY|O_RDWR' || true")
    return shown.stdout.splitlines()
