"""Foreign udev rules that set the override of a device of a list are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, DMA, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.foreign_udev import (
    of_device,
    rules,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import Selector
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files

BY_NAME = {"name": "b000000.crypto", "policy": "vfio"}
OTHERS = "/etc/udev/rules.d/80-others.rules"
RING = Identity("platform", "b100000.ring", "/soc/ring@b100000", ("acme,ring-v2", "acme,ring"))
ACPI = Identity("platform", "LNRO0005:00", None, (), "\\_SB_.VR00", "LNRO0005")
BY_SHELL = """\
KERNEL=="b100000.ring", RUN+="/bin/sh -c 'echo vfio-platform > /sys/%p/driver_override; exit 1'\""""
SET = 'ATTR{driver_override}="uio"'


def overrides(root: Path, content: str, device: Identity = RING) -> list[tuple[str, str | None]]:
    (root / OTHERS[1:]).parent.mkdir(parents=True, exist_ok=True)
    (root / OTHERS[1:]).write_text(content + "\n")
    return [
        (rule.location, rule.driver_override)
        for rule in of_device(device, rules(Files(str(root)), RULES))
    ]


@pytest.mark.parametrize(
    "conditions",
    [
        'SUBSYSTEM=="platform", ',
        'SUBSYSTEM=="platform|amba", KERNEL=="*.ring", ',
        'KERNEL=="b100000.ring", ACTION=="add", ',
        'ENV{OF_FULLNAME}=="/soc/ring@*", ENV{MADE_BY_ANOTHER_RULE}=="1", ',
        'ENV{OF_COMPATIBLE_1}=="acme,ring", ',
        'ENV{OF_NAME}=="ring", DRIVER!="uio", ',
        'SUBSYSTEM=="platform", ENV{OF_COMPATIBLE_7}!="acme,other", ',
        "",
    ],
)
def test_a_rule_whose_conditions_the_device_meets_is_found(tmp_path: Path, conditions: str) -> None:
    assert overrides(tmp_path, conditions + SET) == [(f"{OTHERS}:1", "uio")]


@pytest.mark.parametrize(
    "line",
    [
        f"# {SET}",
        f'SUBSYSTEM=="pci", {SET}',
        f'SUBSYSTEM!="platform", {SET}',
        f'KERNEL=="b100000.rin?x", {SET}',
        f'ENV{{OF_COMPATIBLE_2}}=="acme,*", {SET}',
        f'ATTR{{firmware_node/hid}}=="LNRO0005", {SET}',
        # The rule has no match that applies to this device.
        f'ENV{{MADE_BY_ANOTHER_RULE}}=="1", {SET}',
        'KERNEL=="b100000.ring", ATTR{driver_override}=="uio", ENV{X}="1"',
    ],
)
def test_a_rule_for_others_is_not(tmp_path: Path, line: str) -> None:
    assert overrides(tmp_path, line) == []


@pytest.mark.parametrize(
    ("line", "override"),
    [
        ('KERNEL=="b100000.ring", ATTR{driver_override}="$env{X}"', None),
        ('ATTR{[platform/b100000.ring]driver_override}="none"', "none"),
        (BY_SHELL, "vfio-platform"),
        ('KERNEL=="b100000.ring", RUN+="/bin/set driver_override of it"', None),
        ('KERNEL=="b100000.ring", \\\n  ATTR{driver_override}="a"', "a"),
    ],
)
def test_all_ways_to_set_it_are_known(tmp_path: Path, line: str, override: str | None) -> None:
    number = 1 + line.count("\n")
    assert overrides(tmp_path, line) == [(f"{OTHERS}:{number}", override)]


@pytest.mark.parametrize(
    "jump",
    [
        'SUBSYSTEM=="platform", GOTO="end"',
        'KERNEL!="b200000.*", GOTO="end"',
        'ENV{OF_FULLNAME}!="/soc/crypto@b000000", SUBSYSTEM=="platform|amba", GOTO="end"',
        'SUBSYSTEM=="platform", GOTO="further"\nLABEL="end"\nLABEL="further"',
    ],
)
def test_a_rule_that_the_device_jumps_over_is_not(tmp_path: Path, jump: str) -> None:
    first, _newline, labels = jump.partition("\n")
    assert overrides(tmp_path, f'{first}\n{SET}\n{labels}\nLABEL="end"') == []


@pytest.mark.parametrize(
    "lines",
    [
        'SUBSYSTEM!="platform", GOTO="end"\n%s\nLABEL="end"',
        # The GOTO depends on the event, so the rule after it may apply at some events.
        'ACTION!="bind", GOTO="end"\n%s\nLABEL="end"',
        'SUBSYSTEM=="platform", ENV{X}=="1", GOTO="end"\n%s\nLABEL="end"',
        'SUBSYSTEM=="platform", PROGRAM="/bin/ask", GOTO="end"\n%s\nLABEL="end"',
        # The rule is at the label of the GOTO, or after it.
        'SUBSYSTEM=="platform", GOTO="end"\nLABEL="end", %s',
        'KERNEL=="*.ring", GOTO="end"\nLABEL="end"\n%s',
        # udev ignores a GOTO without a label, or with a label before it.
        'SUBSYSTEM=="platform", GOTO="nowhere"\n%s',
        'LABEL="end"\nSUBSYSTEM=="platform", GOTO="end"\n%s',
        # An earlier GOTO skips the GOTO.
        'GOTO="a"\nSUBSYSTEM=="platform", GOTO="end"\nLABEL="a"\n%s\nLABEL="end"',
    ],
)
def test_a_rule_that_the_device_may_come_to_is_found(tmp_path: Path, lines: str) -> None:
    assert [override for _location, override in overrides(tmp_path, lines % SET)] == ["uio"]


def test_rules_come_by_the_names_of_their_files_and_what_they_start_after_all(
    tmp_path: Path,
) -> None:
    for path, override in {
        "/usr/lib/udev/rules.d/60-a.rules": 'ATTR{driver_override}="a"',
        "/etc/udev/rules.d/50-b.rules": BY_SHELL,
        "/run/udev/rules.d/90-c.rules": 'ATTR{driver_override}="c"',
    }.items():
        Files(str(tmp_path)).write_atomic(path, override + "\n")
    ordered = of_device(RING, rules(Files(str(tmp_path)), RULES))
    assert [(rule.driver_override, rule.is_after_ours) for rule in ordered] == [
        ("a", False),
        ("c", True),
        ("vfio-platform", True),
    ]


def test_acpi_devices_are_known_by_their_own_names(tmp_path: Path) -> None:
    line = 'ATTR{firmware_node/path}=="*VR00", ' + SET
    assert overrides(tmp_path, line, ACPI) == [(f"{OTHERS}:1", "uio")]
    assert overrides(tmp_path, f'ENV{{OF_FULLNAME}}=="*", ENV{{OF_NAME}}=="?*", {SET}', ACPI) == []


@pytest.mark.parametrize("runtime", [True, False])
def test_a_list_is_refused_as_long_as_somebody_sets_another_override(
    board: Board, runtime: bool
) -> None:
    board.write_file(OTHERS, f'ENV{{OF_FULLNAME}}=="/soc/crypto@b000000", {SET}\n')
    before = board.everything()
    with pytest.raises(PolicyError) as caught:
        board.apply([BY_NAME, DMA], reset_required=False, runtime=runtime)
    assert board.everything() == before
    (problem,) = caught.value.problems
    assert problem == (
        "/soc/crypto@b000000 (platform device b000000.crypto) has a conflicting udev rule: the "
        f"list sets its driver_override to vfio-platform at each boot, but {OTHERS}:1 sets uio. "
        "Remove that rule, or remove the device from the list"
    )


def test_one_that_sets_the_same_is_in_nobodys_way(board: Board) -> None:
    board.write_file(OTHERS, 'KERNEL=="b000000.crypto", ATTR{driver_override}="vfio-platform"\n')
    assert board.apply([CRYPTO], reset_required=False).is_changed


def info(board: Board, name: str) -> dict[str, Any]:
    (device,) = device_info.inspections(board.inspect([Selector("name", name)]))["devices"]
    return device


def test_info_names_the_rule_and_what_it_makes_of_the_next_boot(board: Board) -> None:
    board.write_file(OTHERS, f'KERNEL=="b000000.crypto", {SET}\n')
    crypto = info(board, "b000000.crypto")
    assert crypto["foreign_rules"] == [{"location": f"{OTHERS}:1", "driver_override": "uio"}]
    reason = f"the rule {OTHERS}:1 sets its override, and there is no driver uio"
    assert crypto["next_boot"] == {
        "driver": None,
        "driver_override": "uio",
        "known": True,
        "reason": reason,
    }
    board.write_file(OTHERS, 'KERNEL=="b000000.crypto", ATTR{driver_override}="acme-dma-uio"\n')
    assert info(board, "b000000.crypto")["next_boot"] == {
        "driver": "acme-dma-uio",
        "driver_override": "acme-dma-uio",
        "known": True,
        "reason": f"the rule {OTHERS}:1 sets its override",
    }
    board.write_file("/etc/modprobe.d/others.conf", "blacklist acme\n")
    after = info(board, "b000000.crypto")["next_boot"]
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
    crypto = info(board, "b000000.crypto")
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
    after = info(board, "b000000.crypto")["next_boot"]
    assert (after["driver"], after["driver_override"]) == (VFIO, override)
    assert after["reason"].endswith("sets its override when the device is bound") is (
        override == "uio"
    )


def test_a_rule_on_bind_leaves_a_native_driver_where_it_is(board: Board) -> None:
    board.write_file(OTHERS, f'ACTION=="bind", KERNEL=="b000000.crypto", {SET}\n')
    after = info(board, "b000000.crypto")["next_boot"]
    assert (after["driver"], after["driver_override"]) == ("acme-crypto", "uio")


def test_a_rule_that_is_not_plain_is_told_where_a_list_wants_something(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    board.write_file(OTHERS, 'KERNEL=="b000000.crypto", ATTR{driver_override}="$env{X}"\n')
    (sentence,) = info(board, "b000000.crypto")["drift"]
    assert sentence == (
        f"{OTHERS}:1 may set another driver_override at each boot, but the last-applied "
        "configuration sets vfio-platform"
    )
