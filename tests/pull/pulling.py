"""Sets up a host that pulls, lets it pull, and inspects it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tests.harness.playbook import Run, play
from tests.pull.repository import URL, Keys, Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest

SERVICE, TIMER = "armfleet-vfio-pull.service", "armfleet-vfio-pull.timer"
HOST = "test-pull"
RINGS = ("/soc/ring@b100000", "/soc/ring@b101000")
# Many times the duration of a pull on two idle cores, because the machine may be busy.
LIMIT = 600
NEVER = "2099-01-01"
SETTINGS = {
    "pull_repository": URL,
    "pull_revision": "main",
    "pull_inventory": "inventory",
    "pull_schedule": NEVER,
    "pull_randomized_delay": "0",
    # The guest already has the packages, and no package manager.
    "pull_packages": [],
    "pull_verify_commit": True,
    "pull_gnupg_home": "/etc/pull-keys",
    "pull_allowed_signers": "/etc/pull-signers",
    "pull_timeout": LIMIT,
}
SITE = [
    {
        "name": "Boards",
        "hosts": "boards",
        "become": True,
        "gather_facts": False,
        "roles": ["armfleet.vfio.passthrough"],
    }
]
# An inventory that a control node could use as well; no host here has these addresses.
INVENTORY = {
    "boards": {
        "hosts": {name: {"ansible_host": "192.0.2.1"} for name in (HOST, "board-2")},
        "vars": {"ansible_connection": "ssh"},
    }
}
COLLECTIONS = {"collections": [{"name": "/srv/armfleet-vfio.tar.gz", "type": "file"}]}
# The files of the first signed commit, in addition to a list.
SIGNED = {
    "site.yml": SITE,
    "inventory/hosts.yml": INVENTORY,
    "collections/requirements.yml": COLLECTIONS,
}


class Pull(NamedTuple):
    """The result of a pull as systemd reports it, and what it wrote to the journal."""

    result: str
    log: str


def policy(*paths: str) -> dict[str, Any]:
    """Return the file of the repository that has the policy list."""
    variables = {
        "passthrough_devices": [{"dt_path": path, "policy": "vfio"} for path in paths],
        "passthrough_reset_required": False,
        "passthrough_initramfs": "never",
    }
    return {"inventory/group_vars/boards.yml": variables}


def set_up(inventory: Path, *arguments: str, **variables: Any) -> Run:
    run = play(inventory, "armfleet.vfio.pull", *arguments, variables={**SETTINGS, **variables})
    assert run.code == 0, run.output
    return run


def shown(guest: Guest, unit: str, name: str) -> str:
    return guest.run(["systemctl", "show", "--value", f"--property={name}", unit]).stdout.strip()


def last_pull(guest: Guest) -> Pull:
    # journald may not have written the last lines yet when the service has ended.
    guest.run(["journalctl", "--sync"])
    # Not by the invocation ID: lines that arrive after the end have only the unit.
    journal = guest.run(["journalctl", "--output=cat", f"--unit={SERVICE}"]).stdout
    return Pull(shown(guest, SERVICE, "Result"), journal.rpartition(f"Starting {SERVICE}")[2])


def pull(guest: Guest) -> Pull:
    guest.run(["systemctl", "start", SERVICE], check=False, timeout=LIMIT)
    return last_pull(guest)


def wait_for_another_pull(guest: Guest, invocation: str) -> None:
    """Wait until a pull other than ``invocation`` has ended."""
    show = f"systemctl show --property=InvocationID,ActiveState {SERVICE}"
    is_another = f"! {show} | grep --quiet {invocation}"
    has_ended = f"{show} | grep --quiet --extended-regexp '=(inactive|failed)$'"
    guest.run(f"until {is_another} && {has_ended}; do sleep 1; done", timeout=LIMIT)


def failed_units(guest: Guest) -> str:
    return guest.run(["systemctl", "--failed", "--no-legend", "--plain"]).stdout


def remains(guest: Guest) -> list[str]:
    """Return all files and systemd units that are named after the pull."""
    named = "find / -xdev -path /proc -prune -o -name '*armfleet-vfio-pull*' -print"
    known = "systemctl list-units --all --no-legend --plain 'armfleet-vfio-pull*'"
    return guest.run(f"{named}; {known}").stdout.splitlines()


def ensure_pulling(guest: Guest, inventory: Path, repository: Repository, keys: Keys) -> None:
    """Set the host up and let it pull a signed commit, unless an earlier test did."""
    if shown(guest, TIMER, "ActiveState") == "active":
        return
    set_up(inventory)
    repository.commit({**SIGNED, **policy(RINGS[0])}, keys.ssh)
    done = pull(guest)
    assert done.result == "success", done.log
