"""Foreign udev rules that change the driver of a device of a list are reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from board import CRYPTO, DMA, Board
from udev_machine import ACPI, FUNCTION, OTHERS, RING, Machine

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import (
    foreign_udev,
    played_rules,
    udev_event,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.udev_syntax import Line
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity
from tests.harness.udev_rule_files import Scratch, effective_file, odd_file

BY_NAME = {"name": "b000000.crypto", "policy": "vfio"}
BY_SHELL = """\
KERNEL=="b100000.ring", RUN+="/bin/sh -c 'echo vfio-platform > /sys/%p/driver_override; exit 1'\""""
SET = 'ATTR{driver_override}="uio"'


def test_rules_come_by_the_names_of_their_files_and_what_they_start_after_all(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path)
    for path, line in {
        "/usr/lib/udev/rules.d/60-a.rules": 'ATTR{driver_override}="a"',
        "/etc/udev/rules.d/50-b.rules": BY_SHELL,
        "/run/udev/rules.d/90-c.rules": 'ATTR{driver_override}="c"',
    }.items():
        machine.write(path, line + "\n")
    assert [(rule.driver_override, rule.is_after_ours) for rule in machine.rules()] == [
        ("a", False),
        ("c", True),
        ("vfio-platform", True),
    ]


def test_files_without_a_word_of_drivers_are_not_followed(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write("/usr/bin/blkid", "\x7fELF\0")
    machine.write(
        OTHERS,
        'ENV{MODALIAS}=="?*", RUN{builtin}+="kmod load"\n'
        'SUBSYSTEM=="block", PROGRAM="/usr/bin/blkid", ENV{SYSTEMD_WANTS}+="x@%k.service"\n',
    )
    assert not foreign_udev.rules(machine.files, RULES)
    assert machine.rules() == []


@pytest.mark.parametrize("kind", ["directory", "loop", "null", "binary"])
def test_an_odd_file_does_not_stop_a_run(tmp_path: Path, kind: str) -> None:
    machine = Machine(tmp_path)
    machine.write(OTHERS, "\0\x7f\udcff{driver_override}\n" + 'ATTR{driver_override}="a"\n')
    file = tmp_path / OTHERS[1:]
    if kind != "binary":
        file.unlink()
    if kind == "directory":
        file.mkdir()
    elif kind != "binary":
        file.symlink_to({"loop": file.name, "null": "/dev/null"}[kind])
    assert [rule.driver_override for rule in machine.rules()] == (["a"] if kind == "binary" else [])


def test_whatever_is_in_a_file_is_read_without_an_error(tmp_path: Path, depth: str) -> None:
    machine = Machine(tmp_path)
    scratch = Scratch("platform", RING.name, "ring@b100000", "acme,ring")
    for seed in range({"check": 100, "test": 300, "nightly": 3000}[depth]):
        odd, effective = odd_file(seed), effective_file(seed, scratch)
        machine.write(OTHERS, f"{odd}\n{effective}{odd}\n{SET}\n")
        assert all(rule.location.startswith(OTHERS) for rule in machine.rules())


@pytest.mark.parametrize(
    ("rule", "action", "override"),
    [
        ('ACTION=="add", %s', "add", True),
        ('ACTION=="add", %s', "bind", False),
        ('ACTION=="bind|change", %s', "bind", True),
        ('ACTION=="change", %s', None, True),
        ('ACTION=="change", %s', "add", False),
        ('ACTION=="remove", %s', None, False),
    ],
)
def test_a_rule_acts_at_the_events_that_it_names(
    tmp_path: Path, rule: str, action: str | None, override: bool
) -> None:
    overrides = Machine(tmp_path).overrides(rule % SET, RING, action)
    assert overrides == ({"uio": True} if override else {})


@pytest.mark.parametrize("runtime", [True, False])
def test_a_list_is_refused_as_long_as_somebody_sets_another_override(
    board: Board, runtime: bool
) -> None:
    board.write_file(OTHERS, f'ENV{{OF_FULLNAME}}=="/soc/crypto@b000000", {SET}\n')
    (problem,) = board.refused([BY_NAME, DMA], reset_required=False, runtime=runtime)
    assert problem == (
        "/soc/crypto@b000000 (platform device b000000.crypto) has a conflicting udev rule: the "
        f"list sets its driver_override to vfio-platform at each boot, but {OTHERS}:1 sets uio. "
        "Remove that rule, or remove the device from the list"
    )


def test_a_list_is_refused_as_long_as_a_rule_unbinds_its_device(board: Board) -> None:
    board.write_file(OTHERS, 'KERNEL=="b000000.crypto", ATTR{driver/unbind}="%k"\n')
    with pytest.raises(PolicyError) as caught:
        board.apply([BY_NAME], reset_required=False)
    (problem,) = caught.value.problems
    assert f"but {OTHERS}:1 unbinds it from its driver. Remove that rule" in problem
    # A device that has no driver anyway does not lose one.
    assert board.apply([{**BY_NAME, "policy": "no_autobind"}], reset_required=False).is_changed


@pytest.mark.parametrize(
    ("line", "act"),
    [
        (f'PROGRAM="/bin/ask", {SET}', "sets its driver_override"),
        ('DRIVER=="uio", ATTR{driver/unbind}="%k"', "unbinds it from its driver"),
        ('KERNEL=="b000000.crypto", RUN+="/bin/set driver_override"', "sets its driver_override"),
        (
            'SUBSYSTEM=="vfio-dev", ATTR{device/driver/unbind}="b000000.crypto"',
            "unbinds it from its driver",
        ),
        (
            'ACTION=="add", SUBSYSTEM=="drivers", KERNEL=="%s", ATTR{unbind}="b000000.crypto"'
            % "vfio-platform",
            "unbinds it from its driver",
        ),
        (
            'SUBSYSTEM=="vfio-dev", ATTR{device/driver_override}="other"',
            "sets its driver_override",
        ),
        (
            'KERNEL=="b000000.crypto", RUN+="/sbin/modprobe -r vfio-platform"',
            "unbinds it from its driver",
        ),
        ('SUBSYSTEM=="net", ATTR{[platform/b000000.crypto]remove}="1"', "removes it"),
    ],
)
def test_a_rule_that_may_oppose_the_list_is_a_warning(board: Board, line: str, act: str) -> None:
    board.write_file(OTHERS, line + "\n")
    outcome = board.apply([BY_NAME], reset_required=False)
    assert outcome.is_changed
    (warning,) = [text for text in outcome.warnings if OTHERS in text]
    assert warning == (
        "/soc/crypto@b000000 (platform device b000000.crypto) may be changed by a foreign udev "
        "rule: the list sets its driver_override to vfio-platform at each boot, and whether "
        f"{OTHERS}:1 {act} depends on what is not known before. Check that rule"
    )


def test_a_rule_that_may_set_the_same_is_no_warning(board: Board) -> None:
    board.write_file(OTHERS, 'PROGRAM="/bin/ask", ATTR{driver_override}="vfio-platform"\n')
    outcome = board.apply([BY_NAME], reset_required=False)
    assert not [text for text in outcome.warnings if OTHERS in text]


def test_one_that_sets_the_same_is_in_nobodys_way(board: Board) -> None:
    board.write_file(OTHERS, 'KERNEL=="b000000.crypto", ATTR{driver_override}="vfio-platform"\n')
    assert board.apply([CRYPTO], reset_required=False).is_changed


def test_info_names_the_rule_and_what_it_makes_of_the_next_boot(board: Board) -> None:
    board.write_file(OTHERS, f'KERNEL=="b000000.crypto", {SET}\n')
    crypto = board.info("b000000.crypto")
    assert crypto["foreign_rules"] == [{"location": f"{OTHERS}:1", "driver_override": "uio"}]
    reason = f"the rule {OTHERS}:1 sets its override, and there is no driver uio"
    assert crypto["next_boot"] == {
        "driver": None,
        "driver_override": "uio",
        "known": True,
        "in_drift": True,
        "reason": reason,
    }
    board.write_file(OTHERS, 'KERNEL=="b000000.crypto", ATTR{driver_override}="acme-dma-uio"\n')
    assert board.info("b000000.crypto")["next_boot"] == {
        "driver": "acme-dma-uio",
        "driver_override": "acme-dma-uio",
        "known": True,
        "in_drift": True,
        "reason": f"the rule {OTHERS}:1 sets its override",
    }
    board.write_file("/etc/modprobe.d/others.conf", "blacklist acme\n")
    after = board.info("b000000.crypto")["next_boot"]
    assert after["driver"] is None
    assert "but /etc/modprobe.d/others.conf:1 has 'blacklist acme'" in after["reason"]


VFIO = "vfio-platform"
AFTER = "its override afterwards"
EARLY = "/etc/udev/rules.d/60-others.rules"


@pytest.mark.parametrize(
    ("policy", "before", "after", "binding", "words"),
    [
        ("vfio", "uio", None, (VFIO, VFIO), "policy vfio of the last-applied configuration"),
        (
            "vfio",
            None,
            "uio",
            (VFIO, "uio"),
            f"policy vfio of the last-applied configuration; the rule {OTHERS}:1 sets {AFTER}",
        ),
        (
            "no_autobind",
            "acme-dma-uio",
            None,
            ("acme-dma-uio", "acme-dma-uio"),
            f"the rule {EARLY}:1 sets its override, which policy no_autobind leaves unchanged",
        ),
        (
            "no_autobind",
            None,
            None,
            (None, "none"),
            "policy no_autobind of the last-applied configuration",
        ),
    ],
)
def test_rules_before_and_after_ours_make_the_next_boot_together(
    board: Board,
    policy: str,
    before: str | None,
    after: str | None,
    binding: tuple[str | None, str | None],
    words: str,
) -> None:
    board.apply([{**BY_NAME, "policy": policy}], reset_required=False)
    for path, override in ((EARLY, before), (OTHERS, after)):
        if override:
            rule = f'ACTION=="add", KERNEL=="b000000.crypto", ATTR{{driver_override}}="{override}"'
            board.write_file(path, rule + "\n")
    crypto = board.info("b000000.crypto")
    expected = crypto["next_boot"]
    assert (expected["driver"], expected["driver_override"]) == binding
    assert expected["reason"] == words
    assert bool(crypto["drift"]) is (binding != board.kernel.binding("b000000.crypto"))


@pytest.mark.parametrize(
    ("lines", "override"),
    [
        # The rule runs before ours at the add event, and again at the bind event that ours causes.
        ("%s", "uio"),
        ('ACTION!="remove", %s', "uio"),
        ('ACTION=="bind|change", %s', "uio"),
        ('ACTION!="add|change", GOTO="end"\n%s\nLABEL="end"', VFIO),
        ('ACTION=="add", %s', VFIO),
    ],
)
def test_a_rule_before_ours_has_the_last_word_if_it_acts_on_bind_too(
    board: Board, lines: str, override: str
) -> None:
    board.apply([CRYPTO], reset_required=False)
    board.write_file(EARLY, lines % f'KERNEL=="b000000.crypto", {SET}' + "\n")
    after = board.info("b000000.crypto")["next_boot"]
    assert (after["driver"], after["driver_override"]) == (VFIO, override)
    assert after["reason"].endswith("sets its override when the device is bound") is (
        override == "uio"
    )


def test_a_rule_on_bind_leaves_a_native_driver_where_it_is(board: Board) -> None:
    board.write_file(OTHERS, f'ACTION=="bind", KERNEL=="b000000.crypto", {SET}\n')
    after = board.info("b000000.crypto")["next_boot"]
    assert (after["driver"], after["driver_override"]) == ("acme-crypto", "uio")


@pytest.mark.parametrize(
    ("line", "driver", "words"),
    [
        ('ATTR{driver/unbind}="%k"', None, f"the rule {OTHERS}:1 unbinds it afterwards"),
        (
            'ACTION=="bind", ATTR{driver/unbind}="%k"',
            None,
            f"the rule {OTHERS}:1 unbinds it when the device is bound",
        ),
        ('ACTION=="change", ATTR{driver/unbind}="%k"', VFIO, "last-applied configuration"),
    ],
)
def test_a_rule_that_unbinds_leaves_no_driver(
    board: Board, line: str, driver: str | None, words: str
) -> None:
    board.apply([CRYPTO], reset_required=False)
    board.write_file(OTHERS, f'KERNEL=="b000000.crypto", {line}\n')
    after = board.info("b000000.crypto")["next_boot"]
    assert (after["driver"], after["driver_override"]) == (driver, VFIO)
    assert after["reason"].endswith(words)


@pytest.mark.parametrize(
    ("action", "is_known"), [('ACTION=="add", ', False), ('ACTION=="bind", ', True), ("", True)]
)
def test_whether_a_driver_is_bound_when_a_device_appears_is_not_known(
    board: Board, action: str, is_known: bool
) -> None:
    board.write_file(OTHERS, f'{action}KERNEL=="b000000.crypto", ATTR{{driver/unbind}}="%k"\n')
    after = board.info("b000000.crypto")["next_boot"]
    assert (after["driver"], after["known"]) == (None, is_known)
    assert f"the rule {OTHERS}:1 unbinds it" in after["reason"]


def test_a_rule_that_is_not_plain_is_told_where_a_list_wants_something(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    board.write_file(OTHERS, 'KERNEL=="b000000.crypto", ATTR{driver_override}="$env{ID_X}"\n')
    (sentence,) = board.info("b000000.crypto")["drift"]
    assert sentence == (
        f"{OTHERS}:1 may set another driver_override at each boot, but the last-applied "
        "configuration sets vfio-platform"
    )


@pytest.mark.parametrize(
    "content",
    [
        "ENV{" * 50000,
        "ENV{" * 50000 + "}",
        "ENV" + " " * 50000 + "x",
        "ENV{A}" + " " * 50000 + "x",
        "RUN" + " " * 50000 + "x",
        "PROGRAM{program}" + " " * 50000 + "x",
    ],
)
def test_a_file_of_the_beginnings_of_rules_takes_no_longer_than_others(
    tmp_path: Path, content: str
) -> None:
    machine = Machine(tmp_path)
    machine.write("/etc/udev/rules.d/40-x.rules", content + "\n")
    machine.write(OTHERS, SET + "\n")
    assert [rule.driver_override for rule in machine.rules()] == ["uio"]
    assert foreign_udev.names_set(foreign_udev.rules(machine.files, RULES).texts) == set()


# driverctl's own line, and files of systemd and mdadm as Debian has them.
_OF_DISTRIBUTION = """\
ACTION=="add", TEST=="/etc/driverctl.d/$env{SUBSYSTEM}-$kernel", TAG+="systemd", \
ENV{SYSTEMD_WANTS}="driverctl@$env{SUBSYSTEM}-$kernel.service"
SUBSYSTEM!="block", GOTO="md_end"
IMPORT{program}="/sbin/mdadm --export $devnode"
ENV{MD_MON_THIS}=="?*", ENV{SYSTEMD_WANTS}+="mdmon@%c.service"
LABEL="md_end"
SUBSYSTEM=="backlight", TAG+="systemd", ENV{SYSTEMD_WANTS}+="systemd-backlight@backlight:$name"
SUBSYSTEM=="bluetooth", TAG+="systemd", ENV{SYSTEMD_WANTS}+="bluetooth.target"
"""


def test_rules_are_not_played_if_none_that_acts_can_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)
    machine.write(
        "/usr/lib/systemd/system/driverctl@.service",
        "ExecStart=/bin/driverctl set-override %I uio\n",
    )
    machine.write(OTHERS, _OF_DISTRIBUTION)
    played: list[str] = []
    apply = udev_event.Event.apply

    def note(event: udev_event.Event, lines: Sequence[Line]) -> Iterator[udev_event.Applied]:
        played.append(event.device.kernel)
        return apply(event, lines)

    monkeypatch.setattr(udev_event.Event, "apply", note)
    assert machine.rules() == []
    assert played == []
    machine.write(f"/etc/driverctl.d/platform-{RING.name}", "uio\n")
    assert machine.rules() == []
    assert set(played) == {RING.name}


def test_the_rule_of_driverctl_is_not_followed_for_what_is_stored_is_read(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    service = "/usr/lib/systemd/system/driverctl@.service"
    command = "ExecStart=/usr/sbin/driverctl load-override %I\n"
    machine.write(service, command)
    machine.write(OTHERS, _OF_DISTRIBUTION)
    assert not foreign_udev.rules(machine.files, RULES)
    # Nor does it hide that of another.
    machine.write(service, command + "ExecStartPost=/usr/sbin/driverctl set-override x uio\n")
    assert foreign_udev.rules(machine.files, RULES)


@pytest.mark.parametrize(
    "lines",
    [
        'SUBSYSTEM!="platform", GOTO="end"\n%s\nLABEL="end"',
        'ENV{MINE}="1"\nENV{MINE}=="1", %s',
        'ENV{SUBSYSTEM}=="platform", %s',
        'IMPORT{program}="/bin/tell"\nENV{OF_NAME}=="ring", %s',
        'IMPORT{parent}="*"\nENV{OF_NAME}=="other", %s',
        'IMPORT{db}="OF_NAME"\nENV{OF_NAME}=="other", %s',
        'PROGRAM="/bin/tell"\nRESULT=="other", %s',
        'KERNELS=="soc", ENV{MINE}="1"\nTEST=="/etc$attr{none}", %s',
        'ENV{MINE}=="1", GOTO="end"\n%s\nLABEL="end"',
        'ENV{MINE}=="", GOTO="far"\nKERNEL=="b*", GOTO="end"\nLABEL="far"\n%s\nLABEL="end"',
        'KERNEL==i"B*", GOTO="end"\n%s\nLABEL="end"',
    ],
)
@pytest.mark.parametrize(
    "assignment",
    [
        SET,
        "RUN+=\"/bin/sh -c 'echo uio > /sys/%p/driver_override'\"",
        "RUN+=\"/bin/sh -c 'cd /sys/%p/driver && echo %k > bind'\"",
    ],
)
def test_whatever_lines_can_change_is_not_taken_for_what_keeps_a_rule_from_acting(
    tmp_path: Path, lines: str, assignment: str
) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "etc").mkdir()
    machine.write(OTHERS, lines % assignment + "\n# driver_override\n")
    assert [rule.location for rule in machine.rules()] == [
        f"{OTHERS}:{1 + lines[: lines.index('%')].count(chr(10))}"
    ]


def test_a_command_that_is_put_together_is_followed(tmp_path: Path) -> None:
    lines = 'ENV{COMMAND}="/bin/sh -c \'echo uio > /sys/%p/driver_override\'"\nRUN+="$env{COMMAND}"'
    assert Machine(tmp_path).overrides(lines) == {"uio": True}


def test_a_rule_that_changes_to_the_directory_of_a_driver_is_followed(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    command = "cd /sys/bus/platform/drivers/acme-ring && echo b100000.ring > bind"
    machine.write(OTHERS, f'KERNEL=="b100000.ring", RUN+="/bin/sh -c \'{command}\'"\n')
    assert [(rule.kind, rule.is_sure) for rule in machine.rules()] == [("bind", False)]


def test_two_jumps_to_one_label_meet_there(tmp_path: Path) -> None:
    lines = 'ENV{ID_X}=="1", GOTO="end"\nKERNEL=="b*", GOTO="end"\n%s\nLABEL="end"'
    machine = Machine(tmp_path)
    assert machine.overrides(lines % SET) == {}
    assert machine.overrides(lines % 'TAG+="x"' + f"\n{SET}") == {"uio": True}
    # Only the first, of which nothing is known, leads to the line between the labels.
    further = lines.replace('"end"\nKERNEL', '"near"\nKERNEL').replace("%s", 'LABEL="near"\n%s')
    assert machine.overrides(further % SET) == {"uio": False}


@pytest.mark.parametrize("device", [RING, ACPI, FUNCTION])
def test_rules_are_the_same_if_every_event_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: str, device: Identity
) -> None:
    machine = Machine(tmp_path)
    scratch = Scratch(device.bus, device.name, "ring@b100000", "acme,ring")
    lines = _OF_DISTRIBUTION
    for seed in range({"check": 60, "test": 300, "nightly": 3000}[depth]):
        machine.write(OTHERS, f"{lines}{odd_file(seed)}\n{effective_file(seed, scratch)}\n")
        at_events = [machine.rules(device, action) for action in (None, "add", "bind")]
        with monkeypatch.context() as patched:
            patched.setattr(played_rules, "_can_act", lambda _commands, _token: True)
            assert at_events == [machine.rules(device, action) for action in (None, "add", "bind")]
