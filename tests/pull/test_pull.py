"""A host that pulls, told as one story: each test goes on where the last one ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.harness.playbook import Run, play
from tests.harness.sysfs import bindings, files
from tests.pull.repository import URL, Keys, Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest

SERVICE, TIMER = "armfleet-vfio-pull.service", "armfleet-vfio-pull.timer"
HOST = "test-pull"
VFIO, NATIVE = ("vfio-platform", "vfio-platform"), ("acme-ring", None)
RINGS = ("/soc/ring@b100000", "/soc/ring@b101000")
# Many times what a pull takes on two idle cores; a busy machine is slow, not broken.
LIMIT = 600
NEVER = "2099-01-01"
SETTINGS = {
    "pull_repository": URL,
    "pull_revision": "main",
    "pull_inventory": "inventory",
    "pull_schedule": NEVER,
    "pull_randomized_delay": "0",
    # The guest has them, and no package manager.
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
# As a control node would use it, too: the addresses lead nowhere here.
INVENTORY = {
    "boards": {
        "hosts": {name: {"ansible_host": "192.0.2.1"} for name in (HOST, "board-2")},
        "vars": {"ansible_connection": "ssh"},
    }
}
COLLECTIONS = {"collections": [{"name": "/srv/armfleet-vfio.tar.gz", "type": "file"}]}


class Pull(NamedTuple):
    """How a pull ended in the words of systemd, and what it wrote to the journal."""

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
    # What was written last may be on its way when the service has ended.
    guest.run(["journalctl", "--sync"])
    # Not by the invocation: lines that come in after the end are of the unit alone.
    journal = guest.run(["journalctl", "--output=cat", f"--unit={SERVICE}"]).stdout
    return Pull(shown(guest, SERVICE, "Result"), journal.rpartition(f"Starting {SERVICE}")[2])


def pull(guest: Guest) -> Pull:
    guest.run(["systemctl", "start", SERVICE], check=False, timeout=LIMIT)
    return last_pull(guest)


def wait_for_another_pull(guest: Guest, invocation: str) -> None:
    """Wait until one that is not ``invocation`` has ended."""
    show = f"systemctl show --property=InvocationID,ActiveState {SERVICE}"
    is_another = f"! {show} | grep --quiet {invocation}"
    has_ended = f"{show} | grep --quiet --extended-regexp '=(inactive|failed)$'"
    guest.run(f"until {is_another} && {has_ended}; do sleep 1; done", timeout=LIMIT)


def failed_units(guest: Guest) -> str:
    return guest.run(["systemctl", "--failed", "--no-legend", "--plain"]).stdout


def remains(guest: Guest) -> list[str]:
    """Return every file with the pull's name, and every unit that systemd knows by it."""
    named = "find / -xdev -path /proc -prune -o -name '*armfleet-vfio-pull*' -print"
    known = "systemctl list-units --all --no-legend --plain 'armfleet-vfio-pull*'"
    return guest.run(f"{named}; {known}").stdout.splitlines()


def test_a_check_sets_up_nothing(guest: Guest, inventory: Path) -> None:
    run = set_up(inventory, "--check", "--diff")
    assert run.changed == {HOST: 3}
    assert "+OnCalendar=2099-01-01" in run.output
    assert remains(guest) == []


def test_a_timer_is_set_up_once(guest: Guest, inventory: Path) -> None:
    set_up(inventory)
    assert shown(guest, TIMER, "ActiveState") == "active"
    assert shown(guest, TIMER, "UnitFileState") == "enabled"
    verified = guest.run(["systemd-analyze", "verify", SERVICE, TIMER], check=False)
    assert "armfleet" not in verified.stderr
    assert set_up(inventory).changed == {HOST: 0}


def test_a_pull_brings_the_host_to_the_repositorys_list(
    guest: Guest, repository: Repository, keys: Keys
) -> None:
    site = {"site.yml": SITE, "inventory/hosts.yml": INVENTORY}
    site["collections/requirements.yml"] = COLLECTIONS
    repository.commit({**site, **policy(*RINGS)}, keys.gpg)
    # Whoever asks while one runs gets that one.
    start = f"systemctl start --no-block {SERVICE}"
    guest.run(f"{start}; {start}; systemctl start {SERVICE}", check=False, timeout=LIMIT)
    done = last_pull(guest)
    assert done.result == "success", done.log
    assert bindings(guest, RINGS) == [VFIO, VFIO]
    begun = guest.run(["journalctl", "--output=cat", f"--unit={SERVICE}"]).stdout
    assert begun.count(f"Starting {SERVICE}") == 1


@pytest.mark.nightly
def test_a_second_pull_changes_nothing(guest: Guest) -> None:
    stat = ["stat", "--format=%i %Y", "/etc/udev/rules.d/70-armfleet-vfio.rules"]
    before = guest.run(stat).stdout
    done = pull(guest)
    assert done.result == "success", done.log
    assert f"{HOST} : ok=2 changed=0" in " ".join(done.log.split())
    assert guest.run(stat).stdout == before


@pytest.mark.nightly
def test_a_broken_commit_fails_for_all_to_see_and_changes_nothing(
    guest: Guest, repository: Repository, keys: Keys
) -> None:
    repository.commit({"inventory/group_vars/boards.yml": "passthrough_devices: [\n"}, keys.ssh)
    done = pull(guest)
    assert done.result == "exit-code"
    assert "YAML parsing failed" in done.log
    assert SERVICE in failed_units(guest)
    assert bindings(guest, RINGS) == [VFIO, VFIO]


@pytest.mark.nightly
def test_the_timer_pulls_the_next_commit(
    guest: Guest, inventory: Path, repository: Repository, keys: Keys
) -> None:
    repository.commit(policy(RINGS[0]), keys.ssh)
    before = shown(guest, SERVICE, "InvocationID")
    soon = guest.run(["date", "--date=30 seconds", "+%F %T"]).stdout.strip()
    set_up(inventory, pull_schedule=soon)
    wait_for_another_pull(guest, before)
    done = last_pull(guest)
    assert done.result == "success", done.log
    assert failed_units(guest) == ""
    assert bindings(guest, RINGS) == [VFIO, NATIVE]


def test_a_commit_that_nobody_signed_is_not_run(guest: Guest, repository: Repository) -> None:
    before = bindings(guest, RINGS)
    repository.commit(policy(RINGS[1]))
    refused = pull(guest)
    assert refused.result == "exit-code"
    assert "has no valid signature" in refused.log
    assert bindings(guest, RINGS) == before


def test_the_removal_leaves_the_devices_and_nothing_else(guest: Guest, inventory: Path) -> None:
    before = bindings(guest, RINGS), files(guest)
    set_up(inventory, pull_state="absent")
    assert remains(guest) == []
    assert failed_units(guest) == ""
    assert (bindings(guest, RINGS), files(guest)) == before
    assert before[0][0] == VFIO
    assert set_up(inventory, pull_state="absent").changed == {HOST: 0}
