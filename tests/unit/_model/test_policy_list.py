"""Policy lists: valid entries, claims of the same device, and devices that a new list drops."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import (
    DEFAULT,
    DRIVER,
    NO_AUTOBIND,
    VFIO,
    Claim,
    Policy,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import (
    Entry,
    check_tags,
    claims,
    compared,
    dropped,
    parse_entries,
    parse_selectors,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import Selector

ONE, TWO = Identity("platform", "1.x", "/soc/x@1"), Identity("platform", "2.x", "/soc/x@2")
GIVE, KEEP_OFF, BACK = Policy(VFIO), Policy(NO_AUTOBIND), Policy(DEFAULT)


def entry(name: str, policy: Policy) -> Entry:
    return Entry(Selector("name", name), policy)


@pytest.mark.parametrize(
    ("said", "policy"),
    [
        ({"policy": "vfio"}, GIVE),
        ({"policy": "vfio", "driver": None}, GIVE),
        ({"policy": "no_autobind"}, KEEP_OFF),
        ({"policy": "default"}, BACK),
        ({"policy": "driver", "driver": "uio"}, Policy(DRIVER, "uio")),
    ],
)
def test_an_entry_says_a_policy(said: dict[str, Any], policy: Policy) -> None:
    assert parse_entries([{"name": "x", **said}]) == [entry("x", policy)]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"policy": "vfio", "driver": "uio"}, "requires policy driver"),
        ({"policy": "driver", "driver": "a/b"}, "is not a valid driver name"),
        ({"policy": "driver", "driver": 'x"\n'}, "is not a valid driver name"),
        ({"policy": "driver"}, "requires the name of a driver"),
        ({"policy": "nonsense"}, "'nonsense' is unknown"),
    ],
)
def test_a_policy_that_is_none_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        parse_entries([{"name": "x", **said}])


def test_every_bad_entry_is_named_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_selectors([{"name": "a/b"}, {"name": "good"}, {"compatible": "*"}])
    assert len(caught.value.problems) == 2


def test_two_entries_may_claim_a_device_with_the_same_policy() -> None:
    entries = [entry("1.x", GIVE), entry("x", GIVE)]
    assert claims(entries, [[ONE], [ONE, TWO]]) == [Claim(ONE, GIVE), Claim(TWO, GIVE)]


@pytest.mark.parametrize("tag", ["left", "0", "a.b_C-9", "x" * 64])
def test_an_entry_for_vfio_may_have_a_tag(tag: str) -> None:
    (parsed,) = parse_entries([{"name": "x", "policy": "vfio", "tag": tag}])
    assert parsed == entry("x", GIVE)._replace(tag=tag)


@pytest.mark.parametrize("tag", ["", ".", "..", ".x", "-x", "a/b", "a b", "a\n", "ä", "x" * 65])
def test_a_tag_that_no_link_can_be_called_is_refused(tag: str) -> None:
    with pytest.raises(PolicyError, match=r"is not valid\. Use 1 to 64 letters"):
        parse_entries([{"name": "x", "policy": "vfio", "tag": tag}])


def test_a_tag_without_vfio_is_refused() -> None:
    with pytest.raises(PolicyError, match="Tag 'left' requires policy vfio"):
        parse_entries([{"name": "x", "policy": "no_autobind", "tag": "left"}])


def test_a_tag_of_two_entries_is_refused() -> None:
    entries = [{"name": name, "policy": "vfio", "tag": "left"} for name in "xy"]
    with pytest.raises(PolicyError, match="Tag 'left' is used by 2 entries"):
        check_tags(parse_entries(entries))


def test_a_tag_that_would_be_that_of_two_devices_is_refused_and_both_are_named() -> None:
    with pytest.raises(PolicyError, match=r"/soc/x@1 .*, /soc/x@2 .* omit the tag"):
        claims([entry("x", GIVE)._replace(tag="left")], [[ONE, TWO]])


def test_a_device_has_the_tag_of_whichever_entry_has_one() -> None:
    entries = [entry("x", GIVE), entry("1.x", GIVE)._replace(tag="left")]
    assert claims(entries, [[ONE, TWO], [ONE]]) == [Claim(ONE, GIVE, tag="left"), Claim(TWO, GIVE)]


def test_two_tags_of_one_device_are_refused() -> None:
    entries = [entry("1.x", GIVE)._replace(tag=tag) for tag in ("left", "right")]
    with pytest.raises(PolicyError, match="different tags: left and right"):
        claims(entries, [[ONE], [ONE]])


def test_two_policies_for_one_device_are_refused_and_both_are_named() -> None:
    with pytest.raises(PolicyError) as caught:
        claims([entry("1.x", GIVE), entry("x", KEEP_OFF)], [[ONE], [ONE, TWO]])
    (problem,) = caught.value.problems
    assert "/soc/x@1" in problem
    assert "'1.x': vfio" in problem
    assert "'x': no_autobind" in problem


def test_what_the_list_before_claimed_and_this_one_does_not_is_given_back() -> None:
    before = [Claim(ONE, GIVE), Claim(TWO, KEEP_OFF)]
    (back,) = dropped([Claim(ONE, BACK)], before)
    assert (back.device, back.policy) == (TWO, Policy(DEFAULT, release_of=KEEP_OFF))


def test_what_was_on_default_before_is_not_given_back_again() -> None:
    assert dropped([], [Claim(ONE, BACK)]) == []


def test_a_claim_is_new_unless_the_list_before_said_the_same() -> None:
    now = [Claim(ONE, GIVE), Claim(TWO, GIVE)]
    before = [Claim(ONE, GIVE), Claim(TWO, BACK)]
    assert [claim.is_new for claim in compared(now, before)] == [False, True]
