# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A pattern, canaries and a limit select the hosts of a play; wrong ones are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

from ansible_collections.armfleet.vfio.plugins.plugin_utils._play_hosts import (
    Choice,
    Inventory,
    Wave,
    choose,
    plan_waves,
)

GROUPS = {
    "boards": ["a", "b", "c", "d"],
    "rack": ["c", "d"],
    "nobody": [],
    "others": ["outside", "switch"],
    "addresses": ["2001:db8::1", "10.0.0.1"],
}


def chosen(pattern: Any, canaries: Any = None, limit: str | None = None) -> Choice:
    manager = InventoryManager(DataLoader(), parse=False)
    for group, hosts in GROUPS.items():
        manager.add_group(group)
        for host in hosts:
            manager.add_host(host, group="all")
            manager.add_host(host, group=group)
    return choose(Inventory(manager, limit), pattern, canaries)


@pytest.mark.parametrize(
    ("pattern", "canaries", "limit", "hosts"),
    [
        ("boards", None, None, "a b c d"),
        ("boards", "", None, "a b c d"),
        ("boards", " ", None, "a b c d"),
        ("boards", [], None, "a b c d"),
        ("boards", "[]", None, "a b c d"),
        ('["a", "rack"]', '["d"]', None, "d a c"),
        ("boards:!b", "d", None, "d a c"),
        ("all", ["d"], None, "d a b c outside switch 2001:db8::1 10.0.0.1"),
        ("boards", ["rack"], None, "c d a b"),
        ("boards", "d,b", None, "d b a c"),
        ("boards", ["d", "rack"], None, "d c a b"),
        ("boards:!a", None, None, "b c d"),
        ("boards:&rack", "d", None, "d c"),
        ("boards,!nobody", None, None, "a b c d"),
        ("boards,!web*", None, None, "a b c d"),
        (["boards", "nobody"], None, None, "a b c d"),
        (["a", "others"], None, None, "a outside switch"),
        ("boards[0:1]", None, None, "a b"),
        ("~[ab]$", None, None, "a b"),
        ("2001:db8::1", None, None, "2001:db8::1"),
        ("localhost", None, None, "localhost"),
        ("boards", None, "rack", "c d"),
        ("boards", ["c", "a"], "rack", "c d"),
        ("boards", None, "all:!rack", "a b"),
    ],
)
def test_hosts_are_those_of_ansible_with_the_canaries_first(
    pattern: Any, canaries: Any, limit: str | None, hosts: str
) -> None:
    assert chosen(pattern, canaries, limit)[:2] == (hosts.split(), [])


@pytest.mark.parametrize(
    ("hosts", "canaries", "waves", "sizes"),
    [
        (5, 0, [1, "50%", "100%"], [1, 2, 2]),
        (5, 0, [2], [2, 2, 1]),
        (5, 0, ["1%"], [1] * 5),
        (40, 0, [1, "10%", "50%", "100%"], [1, 4, 20, 15]),
        (42, 2, [1, "10%", "50%", "100%"], [2, 1, 4, 20, 15]),
        (3, 3, ["100%"], [3]),
        (4, 3, ["100%"], [3, 1]),
        (1, 0, [10**6], [1]),
    ],
)
def test_canaries_are_a_wave_before_the_others(
    hosts: int, canaries: int, waves: list[int | str], sizes: list[int]
) -> None:
    choice = Choice([str(number) for number in range(hosts)], [], canaries)
    planned = plan_waves(choice, waves)
    assert [wave.size for wave in planned] == sizes
    assert sum(wave.size for wave in planned) == hosts
    assert [wave.are_canaries for wave in planned] == [
        bool(canaries and not number) for number in range(len(sizes))
    ]


def test_canaries_within_the_limit_are_counted_once() -> None:
    assert chosen("boards", "c,rack,a").canaries == 3
    assert chosen("boards", ["c", "a"], "rack").canaries == 1
    assert plan_waves(chosen("boards", "rack"), ["100%"]) == [
        Wave(2, are_canaries=True),
        Wave(2, are_canaries=False),
    ]


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("bords", 'has "bords", but the inventory has no such group or host'),
        ("boards,bords", 'has "bords"'),
        (["boards", "bords"], 'has "bords"'),
        ("boards:!bords", 'has "bords"'),
        ("boards:&bords", 'has "bords"'),
        ("boards,!", 'has ""'),
        ("boards,web*", 'has "web*", which matches no host'),
        ("boards,~web[0-9]", 'has "~web[0-9]", which matches no host'),
        ("boards[7]", "No hosts matched the subscripted pattern 'boards[7]'"),
        ("~[", 'passthrough_hosts is "~[".'),
        ("boards[0", 'passthrough_hosts is "boards[0".'),
        ("boards,~(", "passthrough_hosts is "),
        ("nobody", 'is "nobody", which matches no host'),
        ("boards:&others", 'is "boards,&others", which matches no host'),
        ("boards,!boards", 'is "boards,!boards", which matches no host'),
        ("", 'passthrough_hosts is "". It must be a pattern'),
        (",", 'passthrough_hosts is ",".'),
        (None, "passthrough_hosts is null."),
        ([], "passthrough_hosts is []."),
        ([["boards"]], 'passthrough_hosts is [["boards"]].'),
        (["boards", None], 'passthrough_hosts is ["boards", null].'),
        (7, "passthrough_hosts is 7."),
        (True, "passthrough_hosts is true."),
        ({"boards": 1}, 'passthrough_hosts is {"boards": 1}.'),
    ],
)
def test_a_wrong_pattern_is_refused(pattern: Any, sentence: str) -> None:
    hosts, (problem,), _canaries = chosen(pattern)
    assert not hosts
    assert sentence in problem


@pytest.mark.parametrize(
    ("canaries", "sentence"),
    [
        (["outside"], "does not match: outside."),
        ("a,outside", "does not match: outside."),
        (["rack", "others"], "does not match: outside, switch."),
        (["out*"], "does not match: outside."),
        (["all"], "does not match: outside, switch, 2001:db8::1, 10.0.0.1."),
        (["cannary"], 'rollout_canaries has "cannary"'),
        ("a,cannary", 'rollout_canaries has "cannary"'),
        (["nobody"], 'rollout_canaries has "nobody", which matches no host'),
        (["a", "web*"], 'rollout_canaries has "web*", which matches no host'),
        (["a", "!b"], 'rollout_canaries has "!b", but canaries must be hosts and groups'),
        (["boards:&rack"], 'rollout_canaries has "&rack", but canaries must be'),
        ([""], 'rollout_canaries is [""].'),
        ([None], "rollout_canaries is [null]."),
        (["a", ["b"]], 'rollout_canaries is ["a", ["b"]].'),
        (5, "rollout_canaries is 5."),
        (0, "rollout_canaries is 0."),
        (False, "rollout_canaries is false."),
        ({}, "rollout_canaries is {}."),
    ],
)
def test_canaries_are_named_and_are_hosts_of_the_pattern(canaries: Any, sentence: str) -> None:
    hosts, (problem,), _canaries = chosen("boards", canaries)
    assert not hosts
    assert sentence in problem


def test_many_hosts_are_not_all_named() -> None:
    _hosts, (problem,), _canaries = chosen("a", ["all"])
    assert "does not match: b, c, d, outside, switch and 2 more." in problem


def test_the_limit_leaves_a_host_and_a_canary() -> None:
    assert (
        "`--limit others` excludes all of its hosts" in chosen("boards", limit="others").problems[0]
    )
    (problem,) = chosen("boards", ["a"], limit="rack").problems
    assert 'rollout_canaries is "a", but `--limit rack` excludes all of these hosts' in problem


def test_the_file_of_a_limit_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "failed"
    file.write_text("a\n\n2001:db8::1\n")
    limit = f"d,@{file}"
    assert chosen("all", limit=limit).hosts == ["a", "d", "2001:db8::1"]
    # The playbook that it limits removes it.
    file.unlink()
    assert chosen("all", limit=limit).hosts == ["a", "d", "2001:db8::1"]
    with pytest.raises(AnsibleError, match="Unable to find limit file"):
        chosen("all", limit=f"@{tmp_path}/another")


ROOT = Path(__file__).parents[3]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))


def uses_filters(path: Path) -> bool:
    """Return whether a playbook, its tasks or its roles use filters of this collection."""
    content = path.read_text()
    parts = [ROOT / "playbooks" / name for name in re.findall(r"tasks/\w+\.yml", content)]
    for role in re.findall(r"role: armfleet\.vfio\.(\w+)", content):
        parts += [file for file in (ROOT / "roles" / role).rglob("*") if file.suffix != ".md"]
    texts = [content, *(part.read_text() for part in parts if part.is_file())]
    return any(re.search(r"\|\s*armfleet\.vfio\.", text) for text in texts)


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_filters_are_loaded_before_the_tasks_of_the_playbooks_that_use_them(path: Path) -> None:
    is_without = "armfleet.vfio.play_hosts" in path.read_text() and "filters=false" in (
        path.read_text()
    )
    assert is_without != uses_filters(path)
