"""A host that pulls: each test continues where the previous one ended.

Other files continue with the same guest, so that it is set up once. test_removal.py comes last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.sysfs import bindings
from tests.pull.pulling import (
    HOST,
    LIMIT,
    RINGS,
    SERVICE,
    SIGNED,
    TIMER,
    failed_units,
    last_pull,
    policy,
    pull,
    remains,
    set_up,
    shown,
    wait_for_another_pull,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest
    from tests.pull.repository import Keys, Repository

VFIO, NATIVE = ("vfio-platform", "vfio-platform"), ("acme-ring", None)


@pytest.mark.nightly
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
    repository.commit({**SIGNED, **policy(*RINGS)}, keys.gpg)
    # systemd starts no second pull while one is running.
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
