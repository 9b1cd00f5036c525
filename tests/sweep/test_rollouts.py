# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rollouts that people interrupt, name wrongly, or begin twice, with settings of their own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from extensions.simulator.host import Host
from tests.harness.nightly import at_night
from tests.harness.playbook import Run, play, rows, summary
from tests.harness.started_playbook import StartedPlaybook
from tests.matrix.test_role import DRIVERS, PARTS, VARIABLES
from tests.simulated.boards import alike
from tests.simulated.fleet import Fleet, fleet, root

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)

NAMES = ("a", "b", "c", "d")
LISTED = 2
ONE_WAVE = {"rollout_waves": "100%"}
SHORT = VARIABLES["passthrough_devices"][:1]
GONE = {"lost": {"gone": {"ansible_host": "/nowhere/gone"}}}
# What waits longer than this has failed.
MOST_SECONDS = 120


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("rollouts")
    with fleet(directory, alike(directory, NAMES, PARTS, DRIVERS), VARIABLES, GONE) as running:
        yield running


@pytest.fixture(autouse=True)
def release(boards: Fleet) -> Iterator[None]:
    yield
    (boards.inventory.parent / "host_vars/b.yml").unlink(missing_ok=True)
    if any(boards.on_vfio().values()):
        done = run(boards, "release", passthrough_hosts="simulated")
        assert done.code == 0, done.output


def run(boards: Fleet, playbook: str, *arguments: str, **variables: Any) -> Run:
    given = {"passthrough_hosts": "simulated", **variables}
    done = play(boards.inventory, f"armfleet.vfio.{playbook}", *arguments, variables=given)
    assert "Traceback" not in done.output
    return done


def outcomes(done: Run) -> dict[str, tuple[str, str]]:
    return {name: (row.wave, row.outcome) for name, row in rows(done).items()}


def at_the_end(done: Run) -> list[str]:
    lines = summary(done)
    return lines[lines.index("") + 1 :]


def names_in(output: str) -> set[str]:
    return set(re.findall(r"passthrough_rollout=([\w.:+-]+)", output))


def give(boards: Fleet, host: str, variables: Mapping[str, Any]) -> None:
    path = boards.inventory.parent / f"host_vars/{host}.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(dict(variables)))


def unfinished(board: Host) -> str | None:
    path = root(board) / "run/armfleet-vfio-rollout"
    return path.read_text() if path.exists() else None


def test_canaries_are_a_wave_and_settings_of_ansible_change_nothing(
    boards: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_STRATEGY", "free")
    monkeypatch.setenv("ANSIBLE_ANY_ERRORS_FATAL", "True")
    done = run(
        boards,
        "rollout",
        passthrough_hosts="simulated:lost:!b",
        rollout_canaries="d, c",
        # As the answers to a survey are.
        rollout_waves="2,10%",
        rollout_max_failures="50 %",
        rollout_soak="1s",
        passthrough_rollout=" survey ",
    )
    assert done.code == 2, done.output
    assert outcomes(done) == {
        "d": ("1", "changed"),
        "c": ("1", "changed"),
        "a": ("2", "changed"),
        "gone": ("2", "unreachable"),
    }
    assert boards.on_vfio() == {"a": LISTED, "b": 0, "c": LISTED, "d": LISTED}
    began = done.output.index("Hosts: 4. Waves: 2, 2; the first are the canaries.")
    assert "Hosts that may fail: 2." in done.output[began:]
    assert began < done.output.index("Apply the policy list")
    assert names_in(done.output[: done.output.index("Apply the policy list")]) == {"survey"}
    ended, failed, *_advice = at_the_end(done)
    assert ended == (
        "Rollout survey ended, but not all hosts are in sync: 1 unreachable, 3 changed."
    )
    assert failed == "Hosts that failed: gone"
    # It has ended, so that another one may follow.
    assert {unfinished(board) for board in boards.boards.values()} == {None}


def test_a_rollback_is_of_a_rollout_that_a_host_has(boards: Fleet) -> None:
    first = run(boards, "rollout", passthrough_hosts="a,b", passthrough_rollout="first", **ONE_WAVE)
    assert first.code == 0, first.output
    assert at_the_end(first) == [
        "Rollout first ended: 2 changed.",
        "Roll back: ansible-playbook armfleet.vfio.rollback -e passthrough_rollout=first",
    ]
    assert (
        at_the_end(
            run(
                boards,
                "rollout",
                passthrough_hosts="b,c",
                passthrough_rollout="second",
                passthrough_devices=SHORT,
                **ONE_WAVE,
            )
        )[0]
        == "Rollout second ended: 2 changed."
    )
    unknown = run(boards, "rollback", passthrough_rollout="frost")
    assert unknown.code == 2
    assert at_the_end(unknown)[1:5] == [
        "No host has anything of rollout frost to roll back.",
        "Rollout first can be rolled back on: a",
        "Rollout second can be rolled back on: b, c",
        "No rollout can be rolled back on: d",
    ]
    overtaken = run(boards, "rollback", passthrough_rollout="first")
    assert overtaken.code == 2
    assert {name: row.outcome for name, row in rows(overtaken).items()} == {
        "a": "changed",
        "b": "failed",
        "c": "unchanged",
        "d": "unchanged",
    }
    assert "the list was changed after it by rollout second" in rows(overtaken)["b"].sentence
    assert "Its last rollout is second." in rows(overtaken)["c"].sentence
    assert boards.on_vfio() == {"a": 0, "b": 1, "c": 1, "d": 0}


def listed(history: Run) -> list[str]:
    """Return what the playbook history printed."""
    (lines,) = [task.result["lines"] for task in history.tasks if task.task == "Print the rollouts"]
    return [str(line) for line in lines]


def test_a_fleet_is_rolled_back_two_names_deep_and_its_history_shows_it(boards: Fleet) -> None:
    for board in boards.boards.values():
        # Of the tests before.
        (root(board) / "var/lib/armfleet-vfio/previous.json").unlink(missing_ok=True)
    lists = {"base": SHORT, "wide": VARIABLES["passthrough_devices"], "none": []}
    for name, devices in lists.items():
        hosts = "a,b" if name == "base" else "a,b,c"
        given = {"passthrough_hosts": hosts, "passthrough_devices": devices}
        done = run(boards, "rollout", passthrough_rollout=name, **given, **ONE_WAVE)
        assert done.code == 0, done.output
    refused = run(boards, "rollback", passthrough_rollout="wide", passthrough_hosts="a,b")
    assert refused.code == 2
    for row in rows(refused).values():
        assert row.outcome == "failed"
        assert "Rollout wide cannot be rolled back alone on this host" in row.sentence
        assert "by rollout none" in row.sentence
        assert "`passthrough_rollback_overtaken: true`" in row.sentence
    assert boards.on_vfio() == dict.fromkeys(NAMES, 0)

    back = {"passthrough_rollout": "wide", "passthrough_rollback_overtaken": "true"}
    checked = run(boards, "rollback", "--check", passthrough_hosts="a,b", **back)
    assert checked.code == 0, checked.output
    assert "Rolled back with it: none." in rows(checked)["a"].sentence
    assert boards.on_vfio() == dict.fromkeys(NAMES, 0)
    done = run(boards, "rollback", passthrough_hosts="a,b", **back)
    assert done.code == 0, done.output
    assert {row.outcome for row in rows(done).values()} == {"changed"}
    assert "Rolled back with it: none." in rows(done)["a"].sentence
    assert boards.on_vfio() == {"a": 1, "b": 1, "c": 0, "d": 0}
    # Repeated, it does not go further back.
    again = run(boards, "rollback", passthrough_hosts="a,b", **back)
    assert {row.outcome for row in rows(again).values()} == {"unchanged"}
    assert boards.on_vfio() == {"a": 1, "b": 1, "c": 0, "d": 0}

    history = run(boards, "history", passthrough_hosts="simulated:lost")
    assert history.code != 0
    assert max(map(len, listed(history))) <= 120
    table = [re.split("  +", line.strip()) for line in listed(history)]
    assert table[0] == ["ROLLOUT", "TIME (UTC)", "BY", "DIGEST", "HOSTS", "DEVICES"]
    assert [row[:1] + row[4:5] for row in table if len(row) == 6][1:] == [
        ["none", "3"],
        ["wide", "3"],
        ["base", "2"],
    ]
    assert [row[0] for row in table if len(row) == 1][:6] == [
        "newest on c",
        "rolled back on a, b",
        "overtaken on c",
        "rolled back on a, b",
        "newest on a, b",
        "Without a rollout: d",
    ]
    assert any(line.startswith("gone: It cannot be reached: ") for line in listed(history))
    assert all("@" in row[2] for row in table[1:] if len(row) == 6)

    programs = run(boards, "history", history_format="json")
    assert programs.code == 0, programs.output
    content = json.loads("\n".join(listed(programs)))
    assert [past["name"] for past in content["rollouts"]] == ["none", "wide", "base"]
    assert content["without"] == ["d"]


class Interrupted:
    """A rollout that a board of its second wave holds up."""

    def __init__(self, boards: Fleet, directory: Path, *arguments: str, **variables: Any) -> None:
        self._fifo, self._released = directory / "fifo", directory / "released"
        os.mkfifo(self._fifo)
        # The template is evaluated before the module starts, and more than once.
        waiting = f"touch {directory}/waiting; test -e {self._released} || cat {self._fifo}"
        give(boards, "b", {"passthrough_timeout": "{{ lookup('pipe', '%s') or 30 }}" % waiting})
        self._run = StartedPlaybook(
            boards.inventory, "armfleet.vfio.rollout", directory, *arguments, **variables
        )
        # A FIFO is open for writing when somebody reads it.
        self._held = os.open(self._fifo, os.O_RDWR)
        self._run.wait_until((directory / "waiting").exists)

    @property
    def output(self) -> str:
        return self._run.output

    def go_on(self) -> int:
        """Return the exit status of the rollout, which nothing holds up any more."""
        self._release()
        return self._run.wait()

    def end(self, number: signal.Signals) -> int:
        code = self._run.end(number)
        self._release()
        self._run.close()
        return code

    def _release(self) -> None:
        self._released.touch()
        os.write(self._held, b"30\n")
        os.close(self._held)


# Ctrl-C, a CI system that cancels a job, and a terminal that is lost.
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *at_night(signal.SIGINT, signal.SIGHUP, signal.SIGKILL)],
    ids=lambda number: number.name,
)
def test_an_interrupted_rollout_names_itself_and_is_continued_and_rolled_back(
    boards: Fleet, tmp_path: Path, number: signal.Signals
) -> None:
    hosts = {"passthrough_hosts": "a,b,c", "rollout_waves": 1}
    is_reported = number in INTERRUPTIONS
    interrupted = Interrupted(boards, tmp_path, **hosts)
    (name,) = names_in(interrupted.output)
    assert re.fullmatch(r"rollout-20\d{6}T\d{6}Z-[0-9a-f]{4}", name)
    code = interrupted.end(number)
    assert code == (99 if is_reported else -number)
    if is_reported:
        end = interrupted.output[interrupted.output.rindex("User interrupted") :]
        assert f"Rollout {name} was interrupted in wave 2 of 3: 1 changed, 1 not started." in end
        assert "Hosts that may have been changed: b" in end
        assert names_in(end) == {name}
        assert "Traceback" not in interrupted.output
    assert boards.on_vfio() == {"a": LISTED, "b": 0, "c": 0, "d": 0}
    (boards.inventory.parent / "host_vars/b.yml").unlink()

    # Under another name half of the way back would be lost.
    second = run(boards, "rollout", **hosts)
    assert second.code == 2
    assert outcomes(second)["a"] == ("1", "failed")
    assert f"Rollout {name} has changed the list of this host and has not ended" in (
        rows(second)["a"].sentence
    )
    assert f"`passthrough_rollout: {name}`" in rows(second)["a"].sentence

    again = run(boards, "rollout", passthrough_rollout=name, passthrough_hosts="a,b,c", **ONE_WAVE)
    assert again.code == 0, again.output
    assert boards.on_vfio() == {"a": LISTED, "b": LISTED, "c": LISTED, "d": 0}
    assert {unfinished(board) for board in boards.boards.values()} == {None}
    back = run(boards, "rollback", passthrough_rollout=name)
    assert back.code == 0, back.output
    assert boards.on_vfio() == dict.fromkeys(NAMES, 0)


def written(path: Path) -> dict[str, str]:
    """Return the outcomes in a file of results."""
    return {row["host"]: row["outcome"] for row in json.loads(path.read_text())["hosts"]}


def test_of_two_rollouts_at_once_the_later_one_fails_where_the_first_is(
    boards: Fleet, tmp_path: Path
) -> None:
    ours, theirs, retry = (tmp_path / name for name in ("ours.json", "theirs.json", "failed"))
    hosts = {"passthrough_hosts": "a,b", "passthrough_rollout": "ours", "rollout_waves": 1}
    first = Interrupted(boards, tmp_path, **hosts, rollout_results=str(ours))
    other = run(
        boards,
        "rollout",
        passthrough_hosts="a,c",
        passthrough_rollout="theirs",
        passthrough_devices=SHORT,
        rollout_waves="100%",
        rollout_results=str(theirs),
        rollout_retry_file=str(retry),
    )
    assert other.code == 2
    assert "Rollout ours has changed the list of this host and has not ended" in (
        rows(other)["a"].sentence
    )
    assert written(theirs) == {"a": "failed", "c": "changed"}
    assert retry.read_text() == "a\n"
    assert first.go_on() == 0, first.output
    assert written(ours) == {"a": "changed", "b": "changed"}
    assert boards.on_vfio() == {"a": LISTED, "b": LISTED, "c": 1, "d": 0}


@pytest.mark.nightly
def test_who_is_overtaken_by_another_operator_does_not_report_success(
    boards: Fleet, tmp_path: Path
) -> None:
    other = {**VARIABLES, "passthrough_hosts": "b", "passthrough_devices": SHORT}
    (tmp_path / "other.json").write_text(json.dumps(other))
    # Another operator applies a list as soon as this rollout has applied its own.
    program = tmp_path / "operator"
    program.write_text(
        f"""#!/bin/sh
        grep -qs dma2 {root(boards.boards["b"])}/etc/udev/rules.d/*vfio.rules || exit 0
        mkdir {tmp_path}/once 2>/dev/null || exit 0
        ansible-playbook -i {boards.inventory} armfleet.vfio.apply -e @{tmp_path}/other.json \\
            > {tmp_path}/output 2>&1
        """
    )
    program.chmod(0o755)
    give(boards, "b", {"ansible_ssh_extra_args": "{{ lookup('pipe', '%s') }}" % program})
    results = tmp_path / "results.json"
    done = run(
        boards,
        "rollout",
        passthrough_hosts="b",
        passthrough_rollout="loser",
        rollout_results=str(results),
    )
    assert (tmp_path / "once").exists()
    assert done.code == 2, done.output
    assert rows(done)["b"].outcome == "failed"
    assert "Another run has replaced the list that was applied here." in rows(done)["b"].sentence
    assert written(results) == {"b": "failed"}


def answered(boards: Fleet, answers: list[bytes], directory: Path) -> tuple[int, str]:
    """Return the exit status and the output of a rollout in a terminal, where somebody answers.

    An answer is given when nothing was written for a second: what is typed before is flushed.
    """
    given = {"passthrough_hosts": "a,b", "rollout_canaries": "a", "passthrough_rollout": "asked"}
    (directory / "vars.json").write_text(json.dumps(given))
    asked = len(answers)
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(ANSIBLE_NOCOLOR="1", TERM="xterm")
        os.execlp(
            "ansible-playbook",
            "ansible-playbook",
            *(
                "-i",
                str(boards.inventory),
                "-e",
                f"@{directory}/vars.json",
                "armfleet.vfio.rollout",
            ),
        )
    output, answer, seconds = b"", b"", 0
    while seconds < MOST_SECONDS:
        if not select.select([terminal], [], [], 1)[0]:
            seconds += 1
            os.write(terminal, answer)
            continue
        try:
            output += os.read(terminal, 1 << 16)
        except OSError:
            # On Linux a terminal that nobody has open anymore cannot be read.
            break
        if output.count(b"[yes/no]") > asked - len(answers) and answers:
            answer = answers.pop(0)
    else:
        os.kill(process, signal.SIGKILL)
    _process, status = os.waitpid(process, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), output.decode()


def test_a_person_is_asked_after_the_canaries(boards: Fleet, tmp_path: Path) -> None:
    code, output = answered(boards, [b"perhaps\r", b"no\r"], tmp_path)
    assert code == 2, output
    assert "the canaries are done (a). Go on with the other hosts (1)? [yes/no]" in output
    assert output.count("[yes/no]") == 2
    assert "Rollout asked stopped in wave 1 of 2: 1 changed, 1 not started." in output
    assert "It was stopped by the answer to the question after the canaries." in output
    assert boards.on_vfio() == {"a": LISTED, "b": 0, "c": 0, "d": 0}


@pytest.mark.nightly
def test_a_person_may_go_on_after_the_canaries(boards: Fleet, tmp_path: Path) -> None:
    code, output = answered(boards, [b"YES\r"], tmp_path)
    assert code == 0, output
    assert boards.on_vfio() == {"a": LISTED, "b": LISTED, "c": 0, "d": 0}


@pytest.mark.nightly
def test_playbooks_of_one_run_have_rows_of_their_own(boards: Fleet) -> None:
    # The arguments come before the playbook.
    done = run(
        boards,
        "reboot",
        "armfleet.vfio.rollout",
        passthrough_hosts="a,b,gone",
        rollout_waves=[2, 1],
        rollout_max_failures=1,
    )
    # The rollout ends with a failure, and nothing is rebooted.
    assert done.code == 2
    assert "The reboot" not in done.output
    both = run(boards, "reboot", "armfleet.vfio.rollout", passthrough_hosts="a,b", rollout_waves=1)
    assert both.code == 0, both.output
    assert outcomes(both) == {"a": ("1", "unchanged"), "b": ("2", "unchanged")}
    assert at_the_end(both) == ["The reboot ended: 2 unchanged."]


@pytest.mark.nightly
def test_only_the_limit_is_begun(boards: Fleet) -> None:
    done = run(boards, "rollout", "--limit=a,c", rollout_canaries="a,b", rollout_waves="100%")
    assert done.code == 0, done.output
    assert outcomes(done) == {"a": ("1", "changed"), "c": ("2", "changed")}
    assert boards.on_vfio() == {"a": LISTED, "b": 0, "c": LISTED, "d": 0}
