# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Patterns of udev rules, compared as udev compares them. Pure.

``rule_line_add_token`` and ``token_match_string`` in src/udev/udev-rules.c of systemd, which use
fnmatch(3) of glibc in the C locale, so that a character is a byte.
"""

from __future__ import annotations

import functools
import re
from typing import Iterator, NamedTuple, Pattern, Sequence

_GLOB = frozenset("*?[")
_NEVER = "(?!)"
# Names of the classes of isalpha(3) and their like, in the C locale.
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t\\n\\v\\f\\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_CLASS = re.compile(r"\[:([a-y]*):\]")
# One character as a collating symbol or an equivalence class.
_SYMBOL = re.compile(r"\[([.=])(.)\1\]", re.DOTALL)


def is_match(pattern: str, text: str, *, ignores_case: bool = False) -> bool:
    """Return whether the text matches one of the alternatives, which ``|`` separates.

    An empty alternative matches the empty text alone.
    """
    if pattern == "?*":
        return text != ""
    alternatives = pattern.split("|")
    if not text:
        return "" in alternatives or (not _GLOB.isdisjoint(pattern) and _is_any(pattern))
    compare = _is_alike if _GLOB.isdisjoint(pattern) else fnmatch
    return any(
        compare(alternative, text, ignores_case=ignores_case)
        for alternative in alternatives
        if alternative
    )


def _is_any(pattern: str) -> bool:
    return any(fnmatch(alternative, "") for alternative in pattern.split("|") if alternative)


def _is_alike(value: str, text: str, *, ignores_case: bool) -> bool:
    return _folded(value) == _folded(text) if ignores_case else value == text


def fnmatch(pattern: str, text: str, *, ignores_case: bool = False) -> bool:
    """Return whether fnmatch(3) without flags, or with FNM_CASEFOLD, accepts the text."""
    first, *others = _compiled(_as_bytes(pattern), ignores_case)
    characters = _as_bytes(text)
    if not others:
        return len(characters) == first.length and bool(first.expression.match(characters))
    if not first.expression.match(characters):
        return False
    position = first.length
    # Each is as long as what it matches, so that the first occurrence leaves most for the rest.
    for piece in others[:-1]:
        match = piece.expression.search(characters, position)
        if match is None:
            return False
        position = match.end()
    start = len(characters) - others[-1].length
    return start >= position and bool(others[-1].expression.match(characters, start))


def _as_bytes(text: str) -> str:
    """Return a text with a character for each byte."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _folded(text: str) -> str:
    """Return the text with small letters of ASCII, as strcasecmp(3) in the C locale."""
    return re.sub("[A-Z]+", lambda match: match.group().lower(), text)


class _Piece(NamedTuple):
    """What is between two ``*``: it matches texts of one length."""

    expression: Pattern[str]
    length: int


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str, ignores_case: bool) -> Sequence[_Piece]:
    pieces: list[list[str]] = [[]]
    position = 0
    unclosed: set[int] = set()
    while position < len(pattern):
        if pattern[position] == "*":
            pieces.append([])
            position += 1
            continue
        part, position = _part(pattern, position, unclosed, ignores_case=ignores_case)
        pieces[-1].append(part)
    return [_Piece(re.compile("".join(parts), re.DOTALL), len(parts)) for parts in pieces]


def _part(
    pattern: str, position: int, unclosed: set[int], *, ignores_case: bool
) -> tuple[str, int]:
    """Return a regular expression for what is at the position, and the position after it."""
    character = pattern[position]
    position += 1
    if character == "?":
        return ".", position
    if character == "[":
        bracket = _Bracket(pattern, position, unclosed, ignores_case=ignores_case)
        if bracket.is_closed:
            return bracket.expression, bracket.position
    elif character == "\\":
        if position == len(pattern):
            return _NEVER, position
        character = pattern[position]
        position += 1
    return _literal(character, ignores_case=ignores_case), position


def _literal(character: str, *, ignores_case: bool) -> str:
    if ignores_case and character.isascii() and character.isalpha():
        return "[%s%s]" % (character.lower(), character.upper())
    return re.escape(character)


class _Bracket:
    """A set of characters in brackets; ``position`` is that after it, if it ``is_closed``.

    ``unclosed`` are the positions from which no item of a set leads to its end; those that this one
    went through are added to it, so that a pattern is read once however many ``[`` it has.
    """

    def __init__(
        self, pattern: str, position: int, unclosed: set[int], *, ignores_case: bool
    ) -> None:
        self._pattern = pattern
        self._ignores_case = ignores_case
        self._ranges: set[tuple[str, str]] = set()
        self._classes: set[str] = set()
        self.is_closed = False
        self.position = position
        self._is_valid = True
        self._is_negated = self._next in ("!", "^")
        if self._is_negated:
            self.position += 1
        self._read(unclosed)

    @property
    def _next(self) -> str:
        return self._pattern[self.position : self.position + 1]

    def _read(self, unclosed: set[int]) -> None:
        if self._next:
            self._read_item()
        passed = []
        while self._next and self.position not in unclosed:
            if self._next == "]":
                self.is_closed = True
                self.position += 1
                return
            passed.append(self.position)
            self._read_item()
        unclosed.update(passed)

    def _read_item(self) -> None:
        named = _CLASS.match(self._pattern, self.position)
        if named:
            self._is_valid = self._is_valid and named.group(1) in _CLASSES
            self._classes.add(_CLASSES.get(named.group(1), ""))
            self.position = named.end()
            return
        first = self._read_character()
        last = first
        after = self._pattern[self.position + 1 : self.position + 2]
        if self._next == "-" and after not in ("", "]"):
            self.position += 1
            last = self._read_character()
        self._ranges.add((first, last))

    def _read_character(self) -> str:
        symbol = _SYMBOL.match(self._pattern, self.position)
        if symbol:
            self.position = symbol.end()
            return symbol.group(2)
        if self._next == "\\" and self.position + 1 < len(self._pattern):
            self.position += 1
        character = self._next
        self.position += 1
        return character

    @property
    def _characters(self) -> set[str]:
        if not self._ignores_case:
            return {character for first, last in self._ranges for character in _range(first, last)}
        folded = {(_folded(first), _folded(last)) for first, last in self._ranges}
        inside = {character for first, last in folded for character in _range(first, last)}
        return {character for character in map(chr, range(256)) if _folded(character) in inside}

    @property
    def expression(self) -> str:
        """The same set as a regular expression."""
        if not self._is_valid:
            return _NEVER
        inside = "".join(map(re.escape, sorted(self._characters)))
        inside += "".join(sorted(self._classes))
        if not inside:
            return "." if self._is_negated else _NEVER
        return "[%s%s]" % ("^" if self._is_negated else "", inside)


def _range(first: str, last: str) -> Iterator[str]:
    return map(chr, range(ord(first), ord(last) + 1))
