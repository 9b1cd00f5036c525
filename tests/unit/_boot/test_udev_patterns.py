"""Patterns match what they match for udev, which compares with fnmatch of glibc."""

from __future__ import annotations

import ctypes
import locale
import random
from typing import Iterator

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.udev_patterns import (
    fnmatch,
    is_match,
)

_CASEFOLD = 1 << 4
_CHARACTERS = "aabB-]]*?!^\\[[:/.1é"
_CLASSES = ("[[:alpha:]]", "[![:digit:]b]", "[a-b]", "[]a]", "[!]a]", "[[:upper:]-]")


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a|b", "b", True),
        ("a|b", "", False),
        ("a|", "", True),
        ("|a*", "", True),
        ("", "", True),
        ("", "a", False),
        ("?*", "", False),
        ("?*", "a", True),
        ("*", "", True),
        ("*|a", "", True),
        ("b1*.ring|*.dma", "b100000.ring", True),
        ("/soc/*", "/soc/a/b", True),
        # Without a character of a pattern, a backslash is one like any other.
        (r"a\b", r"a\b", True),
        (r"a\*", "a*", True),
        (r"a\*", r"a\b", False),
        ("[!a]", "b", True),
        ("[^a]", "b", True),
        ("[]]", "]", True),
        ("[a", "[a", True),
        ("a|b", "a|b", False),
        # What two parts match does not overlap.
        ("ab*ba", "aba", False),
        ("ab*ba", "abba", True),
        # The bar comes before brackets.
        ("[a|b]", "a", False),
    ],
)
def test_a_pattern_matches_as_for_udev(pattern: str, text: str, expected: bool) -> None:
    assert is_match(pattern, text) is expected


@pytest.mark.parametrize("pattern", ["AbC", "A[b]*", "A?c", "x|ABC", "[[:alpha:]]BC"])
def test_case_is_ignored_on_request(pattern: str) -> None:
    assert not is_match(pattern, "aBc")
    assert is_match(pattern, "aBc", ignores_case=True)


def test_a_pattern_of_many_stars_takes_no_longer_than_others() -> None:
    assert not is_match("*a" * 100 + "*b", "a" * 5000)
    assert is_match("*a" * 100 + "*", "a" * 5000)


@pytest.mark.parametrize("pattern", ["[", "[!", "[a-", "[[.", "[[:alpha:", "[]", r"[\]"])
def test_a_pattern_of_many_unclosed_brackets_takes_no_longer_than_others(pattern: str) -> None:
    assert not is_match(pattern * 10000, "abc")
    assert is_match("[" * 10000, "[" * 10000)


def test_a_pattern_of_many_sets_takes_no_longer_than_others() -> None:
    assert not is_match("[" + "\0-é" * 20000 + "]", "abc")
    assert is_match("[" + "[:alpha:]" * 20000 + "]", "a")


@pytest.mark.parametrize(
    ("pattern", "text"), [("[[:alpha:]", "[a"), ("[[.].]", "[..]"), ("[[[:alpha:]", "[[p")]
)
def test_a_set_in_an_unclosed_bracket_is_one(pattern: str, text: str) -> None:
    assert is_match(pattern, text)
    assert not is_match(pattern, text[1:])


def test_only_letters_of_ascii_have_cases() -> None:
    assert not is_match("É", "é", ignores_case=True)


def test_a_character_is_a_byte() -> None:
    assert is_match("??", "é")
    assert not is_match("[é]", "é")


@pytest.fixture(name="c_locale")
def _c_locale() -> Iterator[None]:
    """Compare bytes, as udevd does, which never calls setlocale."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.mark.usefixtures("c_locale")
@pytest.mark.parametrize("ignores_case", [False, True])
def test_fnmatch_agrees_with_that_of_glibc(*, ignores_case: bool, depth: str) -> None:
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        pytest.skip("the C library is not glibc")
    chance = random.Random(21)
    parts = [*_CHARACTERS, *_CLASSES]
    differing = []
    for _number in range({"check": 5000, "test": 20000, "nightly": 500000}[depth]):
        pattern = "".join(chance.choices(parts, k=chance.randint(0, 7)))
        text = "".join(chance.choices(_CHARACTERS, k=chance.randint(0, 5)))
        answer = library.fnmatch(pattern.encode(), text.encode(), _CASEFOLD if ignores_case else 0)
        if fnmatch(pattern, text, ignores_case=ignores_case) != (answer == 0):
            differing.append((pattern, text, answer))
    assert differing == []
